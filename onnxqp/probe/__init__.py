"""A first look at an unseen model file by a process that may die of it.

Opening a session, inferring shapes and converting an old opset run native code on bytes that nobody vouches for; where
it crashes, hangs or eats the memory, no `except` helps. So a child (child.py) does it first, under limits, and its end
is one of our errors.

One child serves the process: the next model finds it warm. It leaves after idle seconds, and with its parent.
Cost on two cores: 0.3 s for its start, which `warm` moves beside the parent's own imports, and then as long as
onnxruntime takes to open the model.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from onnxqp.errors import InternalError, ModelError, ResourceError

_CHILD = Path(__file__).resolve().with_name("child.py")
BASE_SECONDS = 60.0  # for any model; a large one gets more
BYTES_PER_SECOND = 5_000_000
LARGEST = 1_000_000_000  # bytes: above it, opening the model twice costs more than the look is worth
FLOOR = 2_000_000_000  # bytes of memory that the child may take however little is free
_GRACE_SECONDS = 10.0  # for the system to write off a child that has crashed


Declared: TypeAlias = tuple[str, str, list[Any] | None]  # name, type and shape as onnxruntime has them


def warm() -> None:
    """Start the child, if there is none, and return at once."""
    with _lock:
        _worker.start()


def stop() -> None:
    """End the child, if there is one; the next model gets another."""
    with _lock:
        _worker.stop()


def process() -> subprocess.Popen[bytes] | None:
    """The child, if there is one."""
    return _worker.child


@dataclass(frozen=True)
class Finding:
    """What the child saw: all None when it was not asked because the model is very large."""

    refusal: str | None = None  # why onnxruntime does not open the model
    doubt: str | None = None  # why it does not run on made-up inputs, or what onnx finds inconsistent; may be harmless
    signature: tuple[list[Declared], list[Declared]] | None = None  # inputs and outputs of a model that opens


def examine(path: Path, size: int) -> Finding:
    """Let the child look at the model at `path`, of `size` bytes with its external data.

    Raises ModelError when native code crashes on the file, ResourceError when it exceeds its time or memory.
    """
    if size > LARGEST or not sys.executable:
        return Finding()
    seconds = BASE_SECONDS + size / BYTES_PER_SECOND
    request = {"model": str(path.absolute()), "seconds": seconds, "memory": _allowance(size)}
    try:
        with _lock:
            answer = _worker.ask(request, seconds)
    except TimeoutError as err:
        raise ResourceError(
            f"opening the model takes more than {seconds:.0f} seconds",
            where=str(path),
            hint="the file may be built to hang its reader; if you trust it, simplify it first",
        ) from err
    if answer.get("out_of_memory"):
        raise _too_large(str(path), "not enough memory to look at the model")
    inputs, outputs = answer.get("signature") or (None, None)
    signature = None if inputs is None or outputs is None else (list(map(tuple, inputs)), list(map(tuple, outputs)))
    return Finding(answer.get("refusal"), answer.get("doubt"), signature)


def _allowance(size: int) -> int:
    """Bytes that the child may allocate: most of what this machine, or this container, has left."""
    return max(FLOOR, int(0.8 * (available_memory() or 16 * FLOOR)), 4 * size)


def available_memory() -> int | None:
    """Bytes that can still be allocated without swapping, in this control group too; None where nobody tells."""
    found = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found.append(1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")))
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text(encoding="ascii"))  # "max": no limit, a ValueError
        found.append(limit - int((group / "memory.current").read_text(encoding="ascii")))
    return max(0, min(found)) if found else None


class _Worker:
    """The child, and the pipes to it."""

    def __init__(self) -> None:
        self.child: subprocess.Popen[bytes] | None = None
        self._forked: list[subprocess.Popen[bytes] | None] = []

    def start(self) -> None:
        if self.child is not None and self.child.poll() is None:
            return
        self.stop()
        command = [sys.executable, "-P", str(_CHILD)]  # -P: nothing is imported from where we are
        pipe = subprocess.PIPE
        # A session of its own: Ctrl-C is for the parent, who then stops the child.
        self.child = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self._send({"modules": [entry for entry in sys.path if entry]})

    def stop(self) -> int:
        """End the child, whatever it does; returns its exit code, negative for a signal."""
        process, self.child = self.child, None
        if process is None:
            return 0
        process.kill()  # to no effect where it has ended by itself
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        return process.wait()

    def forget(self) -> None:
        """After a fork: the child is that of the other process, which goes on talking to it."""
        self._forked.append(self.child)  # not to be waited for here
        self.child = None

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The answer to a request; a child that had just left for idleness is replaced once."""
        for attempt in (1, 2):
            try:
                self.start()
                self._send(request)
                answer = self._receive(time.monotonic() + seconds)
            except BaseException:  # also Ctrl-C: the child must not outlive the question
                self.stop()
                raise
            if answer is not None:
                return answer
            code = self._ended()
            if code != 0 or attempt == 2:
                raise _death(code, str(request["model"]))
        raise AssertionError("unreachable: the second attempt returns or raises")

    def _ended(self) -> int:
        """How a child ended that has closed its side of the pipe."""
        if self.child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(_GRACE_SECONDS)
        return self.stop()

    def _send(self, message: dict[str, Any]) -> None:
        assert self.child is not None
        assert self.child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died or left: reading finds out
            self.child.stdin.write(json.dumps(message).encode() + b"\n")
            self.child.stdin.flush()

    def _receive(self, deadline: float) -> dict[str, Any] | None:
        """One answer, or None when the child is gone; raises TimeoutError at the deadline."""
        assert self.child is not None
        assert self.child.stdout is not None
        received = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.child.stdout, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                piece = os.read(self.child.stdout.fileno(), 1 << 16)
                if not piece:
                    return None
                received += piece
        answer: dict[str, Any] = json.loads(received)
        return answer


def _death(code: int, path: str) -> Exception:
    """What the end of the child stands for."""
    if code >= 0:
        return InternalError(f"the process that looks at models ended with exit code {code}")
    if code == -signal.SIGKILL:
        return _too_large(path, "the system killed the process that opened the model")
    return ModelError(
        f"onnx or onnxruntime crashes on this model ({signal.Signals(-code).name})",
        where=path,
        hint="the file is damaged or built to crash its reader: export it again from a source that you trust",
    )


def _too_large(path: str, message: str) -> ResourceError:
    return ResourceError(message, where=path, hint="close other programs, or use a machine with more memory")


_lock = threading.Lock()
_worker = _Worker()
atexit.register(_worker.stop)
os.register_at_fork(after_in_child=_worker.forget)
