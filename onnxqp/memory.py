"""How much memory a run really took: anonymous pages, this process and its children.

Peak resident size, which is what `getrusage` gives, counts memory-mapped weights too and would blame us for the page
cache. The kernel keeps no peak of anonymous memory, so a thread samples it.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

_PERIOD = 0.05  # seconds; one sample reads a few small files, some 50 microseconds


def anonymous_bytes() -> int | None:
    """Anonymous resident memory of this process and its children, now; None where the kernel does not tell."""
    total = _anonymous("self")
    if total is None:
        return None
    for task in Path("/proc/self/task").iterdir():
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        total += sum(_anonymous(child) or 0 for child in children)
    return total


def _anonymous(process: str) -> int | None:
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return None


class PeakMemory:
    """`with PeakMemory() as memory: ...` and then `memory.peak`, in bytes; None where it cannot be known.

    `pause()` stops sampling, for the time in which latency is measured.
    """

    def __init__(self) -> None:
        self.peak = anonymous_bytes()
        self._stop = threading.Event()
        self._running = threading.Event()
        self._running.set()
        self._thread = threading.Thread(target=self._watch, name="onnxqp-memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        if self.peak is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._running.set()
        if self._thread.is_alive():
            self._thread.join()
        self._sample()

    def pause(self) -> None:
        self._sample()
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    def _sample(self) -> None:
        now = anonymous_bytes()
        if now is not None and self.peak is not None:
            self.peak = max(self.peak, now)

    def _watch(self) -> None:
        while not self._stop.wait(_PERIOD):
            self._running.wait()
            self._sample()
