"""How much to cut for a wanted time: a latency model fitted from real runs, then checked and corrected.

A few cuts are timed, and the time is fitted against the multiply-accumulates that they leave: monotone, for less work
is never slower but by noise. The fit says which cut should meet the wanted time. That cut is timed until the reading
is steady, which either confirms it or corrects the fit, and so on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

T = TypeVar("T")

PROBES = (0.3, 0.55, 0.8)  # ratios that the model is first fitted from
CHECKS = 4  # cuts that may be checked
READINGS = 5  # of a cut that is checked, at most; at least 2
STEADY = 0.02  # share of a reading that readings may differ by
CLOSE = 0.03  # of the wanted share of time: near enough
TRIALS = 10  # halvings of the ratio


@dataclass
class LatencyModel:
    """Time against work, both as shares of the original's, from points with a weight each."""

    points: list[tuple[float, float, float]] = field(default_factory=lambda: [(1.0, 1.0, 3.0)])  # work, time, weight

    def add(self, work: float, time: float, weight: float) -> None:
        self.points.append((work, time, weight))

    def fitted(self) -> tuple[list[float], list[float]]:
        """Works in ascending order and their times, which never fall: neighbours that do are pooled (isotonic fit)."""
        blocks: list[list[tuple[float, float, float]]] = []
        for point in sorted(self.points):
            blocks.append([point])
            while len(blocks) > 1 and (blocks[-1][0][0] == blocks[-2][0][0] or _mean(blocks[-2]) >= _mean(blocks[-1])):
                blocks[-2:] = [blocks[-2] + blocks[-1]]
        works = [sum(w * weight for w, _, weight in each) / sum(weight for *_, weight in each) for each in blocks]
        return works, [_mean(each) for each in blocks]

    def work_for(self, time: float) -> float:
        """The work that should take this time; beyond the points, along the line through the last two."""
        works, times = self.fitted()
        if len(works) < 2:
            return time
        place = int(np.clip(np.searchsorted(times, time), 1, len(times) - 1))
        slope = (works[place] - works[place - 1]) / (times[place] - times[place - 1])
        return float(np.clip(works[place] + (time - times[place]) * slope, 0.0, 1.0))


def _mean(points: list[tuple[float, float, float]]) -> float:
    return sum(time * weight for _, time, weight in points) / sum(weight for *_, weight in points)


def find_cut(
    wanted: float,
    cut: Callable[[float], T],
    work: Callable[[T], float],
    time: Callable[[T], float],
) -> T:
    """The cut whose time is nearest to `wanted`, of those that were checked.

    `cut` makes one for a ratio in [0, 1), `work` tells its share of the multiply-accumulates and `time` takes a reading
    of its share of the time.
    """
    model = LatencyModel()
    for ratio in PROBES:
        probe = cut(ratio)
        model.add(work(probe), time(probe), 1.0)
    checked: dict[float, tuple[float, T]] = {}
    for _ in range(CHECKS):
        found = nearest(model.work_for(wanted), cut, work)
        left = work(found)
        if left in checked:
            break
        readings = steady(lambda found=found: time(found))  # type: ignore[misc]
        checked[left] = (abs(float(np.median(readings)) - wanted), found)
        model.add(left, float(np.median(readings)), float(len(readings)))
        if checked[left][0] < CLOSE * wanted:
            break
    return min(checked.values(), key=lambda entry: entry[0])[1]


def steady(read: Callable[[], float]) -> list[float]:
    """Readings, until the error of their mean is small against it."""
    found = [read(), read()]
    while len(found) < READINGS and np.std(found, ddof=1) / np.sqrt(len(found)) > STEADY * np.mean(found):
        found.append(read())
    return found


def nearest(wanted: float, cut: Callable[[float], T], share: Callable[[T], float]) -> T:
    """The cut that leaves the share that is wanted, as nearly as channels allow: the ratio is found by halving."""
    low, high = 0.0, 1.0
    best, off = None, np.inf
    for _ in range(TRIALS):
        ratio = (low + high) / 2
        tried = cut(ratio)
        left = share(tried)
        if best is None or abs(left - wanted) < off:
            best, off = tried, abs(left - wanted)
        low, high = (ratio, high) if left > wanted else (low, ratio)
    assert best is not None
    return best
