"""What runs in the child process. A script of its own that knows nothing of onnxqp but how to pass over the weights of
a file (onnxqp/wire.py, which imports nothing): it starts fast, and dies alone.

It reads requests, one JSON object a line, and answers each with another. Requests: `modules` (once, where to import
from), then `model` (a path), `seconds`, `memory` (bytes).
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import selectors
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

IDLE_SECONDS = 5.0  # until the first model comes...
BETWEEN_SECONDS = 0.5  # ...and another one: who works on one model for long wants the memory
OPEN_SIZE = 32  # of an input axis that is open, but for the first
LARGEST_INPUT = 10_000_000  # elements
LARGE_FILE = 100_000_000  # bytes
SMALLEST_WEIGHT = 1024  # bytes; no shape depends on larger ones
DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{f"tensor({kind})": kind for kind in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
}


def serve() -> None:
    """Answer requests until the parent closes the pipe or nothing comes."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # native code may print
        os.dup2(nothing, descriptor)
    for line in _lines(requests):
        message = json.loads(line)
        if "modules" in message:
            sys.path[:] = message["modules"]
            import onnx  # noqa: F401 - now, while the parent is busy
            import onnxruntime  # noqa: F401

            continue
        signal.alarm(int(message["seconds"]) + 5)  # should the parent be gone
        _limit_memory(message["memory"])
        answers.write(json.dumps(_look(message["model"])).encode() + b"\n")
        answers.flush()
        signal.alarm(0)


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines, until the end or an idle while; the pipe is read without a buffer, which would hide what has come."""
    waiting = b""
    lines = 0
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            while b"\n" in waiting:
                line, waiting = waiting.split(b"\n", 1)
                lines += 1
                yield line
            if not selector.select(IDLE_SECONDS if lines < 2 else BETWEEN_SECONDS):  # the first line names modules
                return
            piece = os.read(stream.fileno(), 1 << 16)
            if not piece:
                return
            waiting += piece


def _limit_memory(allowance: int) -> None:
    """Let the address space grow by `allowance` bytes from here."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = used + allowance
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard < 0 else min(wanted, hard), hard))


def _look(path: str) -> dict[str, Any]:
    """Do to the model what the parent will do.

    `refusal` is why onnxruntime does not open it; `doubt` why it does not run on inputs that are merely made up, or
    what onnx finds inconsistent; `signature` its inputs and outputs as onnxruntime declares them.
    """
    answer: dict[str, Any] = {}
    session = None
    try:
        session = _open(path)
        sides = (session.get_inputs(), session.get_outputs())
        answer["signature"] = [[[value.name, value.type, value.shape] for value in side] for side in sides]
        _run(session)
    except MemoryError:
        return {"out_of_memory": True}
    except Exception as err:
        answer["refusal" if session is None else "doubt"] = str(err) or type(err).__name__
    session = None  # its memory goes back
    try:
        _infer(path)
    except MemoryError:
        return {"out_of_memory": True}
    except Exception as err:
        answer.setdefault("doubt", str(err) or type(err).__name__)
    return answer


def _open(path: str) -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 4
    if Path(path).stat().st_size > LARGE_FILE:  # all but the layout passes, which rewrite every convolution's weight
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    try:
        source: str | bytes = os.fsencode(path).decode("utf-8")  # onnxruntime knows no locale
    except UnicodeDecodeError:
        source = Path(path).read_bytes()
        settings.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(Path(path).parent)
        )
    return onnxruntime.InferenceSession(source, settings, providers=["CPUExecutionProvider"])


def _run(session: Any) -> None:
    """Once, on ones: kernels can crash where the session did not."""
    import numpy as np

    feed = {}
    for value in session.get_inputs():
        kind = DTYPES.get(value.type)
        shape = [
            size if isinstance(size, int) and size >= 0 else 1 if axis == 0 else OPEN_SIZE
            for axis, size in enumerate(value.shape)
        ]
        if kind is None or math.prod(shape) > LARGEST_INPUT:
            return
        feed[value.name] = np.ones(shape, kind)
    session.run(None, feed)


def _infer(path: str) -> None:
    import onnx
    import onnx.shape_inference
    import onnx.version_converter

    from onnxqp.wire import lighten

    proto = onnx.ModelProto()
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        with memoryview(content) as whole:
            light = lighten(whole, SMALLEST_WEIGHT)
        proto.ParseFromString(content[:] if light is None else light.content)
    old = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 1)
    if old < 13:
        with contextlib.suppress(Exception):  # the parent tries again, and says what it could not convert
            onnx.version_converter.convert_version(proto, 17)
    with contextlib.suppress(Exception):
        onnx.shape_inference.infer_shapes(proto, check_type=False, data_prop=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)


if __name__ == "__main__":
    serve()
