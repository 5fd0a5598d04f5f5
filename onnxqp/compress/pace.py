"""How many steps a search takes: as many as fit a time that one is willing to wait."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from onnxqp.measurements import Measurements

PATIENCE = 180.0  # seconds of one core, or of the clock, whichever are fewer: for what is pruned
SPARED = 1  # steps that are kept for what lies between two others
_INSTANT = 1e-6  # seconds

Clock = Callable[[], tuple[float, float]]


def clocks() -> tuple[float, float]:
    """Seconds of the clock, and those that the process has computed, on all cores."""
    return time.perf_counter(), time.process_time()


@dataclass
class Pace:
    """Counts the steps of a search and what they take: other work on the machine does not make a step longer, nor do
    several cores that share it. Not `timed` there is time for all, whatever they take."""

    measured: Measurements = field(default_factory=Measurements)
    timed: bool = True
    clock: Clock = clocks
    _steps: int = 0
    _spent: float = 0.0
    _last: tuple[float, float] | None = None

    def begin(self) -> None:
        """A step begins."""
        self._read()
        self._steps += 1

    def left(self) -> float:
        """How many more steps there is time for, if they take as long as those so far; asked once one has ended."""
        if not self.timed:
            return math.inf
        (found,) = self.measured.of("steps that there is time for", self._estimate, 1)
        return found

    def fitting(self, ahead: Sequence[float]) -> list[float]:
        """As many of the steps ahead as there is time for, spread evenly, the last one among them."""
        left = max(self.left() - SPARED, 0)
        if len(ahead) <= left:
            return list(ahead)
        return [ahead[-1 - place * len(ahead) // int(left)] for place in reversed(range(int(left)))]

    def _estimate(self) -> list[float]:
        self._read()
        return [math.floor((PATIENCE - self._spent) * self._steps / max(self._spent, _INSTANT))]

    def _read(self) -> None:
        now = self.clock()
        if self._last is not None:
            self._spent += min(after - before for before, after in zip(self._last, now, strict=True))
        self._last = now
