"""What a compressed model must keep, and which of several candidates is taken. Numbers only; no graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from onnxqp.options import Gates

DEFAULT_DROP = 1.0  # points, with labels
DEFAULT_AGREEMENT = 99.0  # percent, without
CUT_DB = 35.0  # where no output holds class scores: what fewer channels lose is not spread as evenly as rounding is
# (YOLOX-nano at 96 % of its arithmetic: 25.9 dB, and 4.9 points of mAP; NanoDet in int8: 22 dB, and 0.5)
ROOM_DB = 0.2
_ROUNDING = 1e-9
TIE = 0.02  # speeds this close are taken for equal: the smaller candidate wins,
SAME_SIZE = 0.1  # and of sizes this close the more faithful


@dataclass(frozen=True)
class Closeness:
    """How close a candidate is to the original on samples without labels.

    `agreement`: percent of equal predictions, and `drop`: points of accuracy that the differing ones cost if the
    original's own confidence in its predictions is right; both None where no output holds class scores. `noise`:
    squared error relative to the squared signal of the worst output. `drop_error`: the standard error of `drop`, in
    points; None: that of a share. `cut`: whether the candidate computes less than the original.
    """

    samples: int
    agreement: float | None
    drop: float | None
    noise: float
    drop_error: float | None = None
    cut: bool = False

    @property
    def sqnr_db(self) -> float:
        """Signal to noise at the outputs."""
        return -10 * math.log10(max(self.noise, 1e-12))


@dataclass(frozen=True)
class Measured:
    """A candidate in numbers: `speedup` over the original, `size_ratio` and `bytes`."""

    closeness: Closeness
    speedup: float
    size_ratio: float
    bytes: int


@dataclass(frozen=True)
class Goal:
    """Budgets, None where there is none: points, percent, decibels; how much faster, how much smaller, bytes."""

    max_drop: float | None = None
    min_agreement: float | None = None
    min_sqnr_db: float | None = None
    min_speedup: float | None = None
    min_size_ratio: float | None = None
    max_size: int | None = None
    lenient: bool = False  # nobody asked for it

    @property
    def bounds_accuracy(self) -> bool:
        """Whether accuracy is bounded, and speed is to be had within; else the other way round."""
        return not (self.max_drop is None and self.min_agreement is None and self.min_sqnr_db is None)

    def accurate(self, found: Closeness) -> bool:
        """Whether the budgets of accuracy are kept, and not by luck: with one standard error to spare."""
        if self.max_drop is not None and _lost(found) > self.max_drop:
            return False
        if self.min_agreement is not None and _changed(found) > 100 - self.min_agreement:
            return False
        return found.sqnr_db >= self._least_db(found)

    def _least_db(self, found: Closeness) -> float:
        if self.min_sqnr_db is None:
            return -math.inf
        return max(self.min_sqnr_db, CUT_DB) if found.cut and found.agreement is None else self.min_sqnr_db

    def at_most(self, found: Closeness) -> Goal:
        """The same where no more is asked for than there is in `found`, the model when it is only quantized: unless the
        user asked, or that costs points, too."""
        if not self.lenient or _lost(found) > DEFAULT_DROP:
            return self
        agreement, decibels = self.min_agreement, self.min_sqnr_db
        if agreement is not None:
            agreement = min(agreement, 100 - _changed(found) - _ROUNDING)
        if decibels is not None:
            decibels = min(decibels, found.sqnr_db)
        return replace(self, min_agreement=agreement, min_sqnr_db=decibels)

    def leaves_room(self, found: Closeness) -> bool:
        """Whether a candidate may yet lose something that can be told from nothing."""
        return found.sqnr_db >= self._least_db(found) + ROOM_DB

    def within(self, found: Closeness, decibels: float) -> bool:
        """Whether so many decibels more would be signal enough; where predictions are judged, they do not say."""
        return found.agreement is not None or found.sqnr_db + decibels >= self._least_db(found)

    def midway(self, found: Closeness) -> Goal:
        """The budgets of accuracy with half of what a candidate that keeps them leaves."""
        drop, agreement, decibels = self.max_drop, self.min_agreement, self.min_sqnr_db
        if drop is not None:
            drop = (drop + _lost(found)) / 2
        if agreement is not None:
            agreement = (agreement + 100 - _changed(found)) / 2
        if decibels is not None:
            decibels = -10 * math.log10((10 ** (-self._least_db(found) / 10) + found.noise) / 2)
        return Goal(drop, agreement, decibels)

    def most_bytes(self, original: int) -> int | None:
        """How large the result may be, for an original of so many bytes; None: as it comes."""
        limits = [] if self.max_size is None else [self.max_size]
        if self.min_size_ratio is not None:
            limits.append(int(original / self.min_size_ratio))
        return min(limits, default=None)

    def small_and_fast(self, found: Measured) -> bool:
        """Whether the budgets of time and bytes are kept."""
        return (
            (self.min_speedup is None or found.speedup >= self.min_speedup)
            and (self.min_size_ratio is None or found.size_ratio >= self.min_size_ratio)
            and (self.max_size is None or found.bytes <= self.max_size)
        )

    def keeps(self, found: Measured) -> bool:
        """Whether every budget is kept."""
        return self.accurate(found.closeness) and self.small_and_fast(found)


def goal_of(
    gates: Gates, *, classes: bool, labelled: bool, enough_db: float, samples: int, original: int | None = None
) -> Goal:
    """What `gates` ask for; without any of them, next to no loss. `classes`: the judged output holds class scores;
    where it does not, accuracy is bounded by the signal-to-noise ratio that is `enough_db`, and so it is without gates
    where `samples` are too few to show so small a share of changed predictions. Time and bytes that the original, of
    so many bytes, has already bound nothing: then, too, the fastest is looked for, not the original again."""
    asked = gates != Gates() and not _has_already(gates, original)
    accuracy = not asked or gates.max_drop is not None or gates.min_agreement is not None
    drop, agreement = gates.max_drop, gates.min_agreement
    if not asked and classes:
        drop, agreement = (DEFAULT_DROP, None) if labelled else (None, DEFAULT_AGREEMENT)
    few = not asked and samples * (100 - DEFAULT_AGREEMENT) < 100
    return Goal(
        drop,
        agreement,
        enough_db if few or (accuracy and not classes) else None,
        gates.min_speedup,
        gates.min_size_ratio,
        gates.max_size,
        lenient=not asked,
    )


def _has_already(gates: Gates, original: int | None) -> bool:
    """Whether the original keeps all that is asked, which is no accuracy."""
    small = gates.max_size is None or (original is not None and gates.max_size >= original)
    fast = (gates.min_speedup or 0.0) <= 1 and (gates.min_size_ratio or 0.0) <= 1
    return gates.max_drop is None and gates.min_agreement is None and small and fast


Point = TypeVar("Point")


def choose(points: Sequence[tuple[Point, Measured]], goal: Goal) -> Point:
    """The one that keeps all budgets and is fastest, or most faithful where only time and bytes are bounded.

    Where none keeps all, the fastest that keeps the accuracy; where that is not bounded or none does, the fastest. Of
    equal speed the smallest.
    """
    kept = [entry for entry in points if goal.keeps(entry[1])]
    if kept and not goal.bounds_accuracy:
        return min(kept, key=lambda entry: loss(entry[1].closeness))[0]
    among = kept or [entry for entry in points if goal.accurate(entry[1].closeness)] or list(points)
    fastest = max(found.speedup for _, found in among)
    near = [entry for entry in among if entry[1].speedup >= fastest * (1 - TIE)]
    smallest = min(found.bytes for _, found in near)
    near = [entry for entry in near if entry[1].bytes * (1 - SAME_SIZE) <= smallest]
    return min(near, key=lambda entry: loss(entry[1].closeness))[0]


def loss(found: Closeness) -> tuple[float, float]:
    """What candidates are ordered by: predictions that changed, then noise."""
    return (100 - found.agreement if found.agreement is not None else 0.0, found.noise)


def _lost(found: Closeness) -> float:
    """Points, with one standard error to spare."""
    lost = found.drop or 0.0
    return lost + found.drop_error if found.drop_error is not None else _at_worst(lost, found.samples)


def _changed(found: Closeness) -> float:
    """Percent of the predictions, with one standard error to spare."""
    return _at_worst(100 - found.agreement, found.samples) if found.agreement is not None else 0.0


def _at_worst(percent: float, samples: int) -> float:
    """One standard error above a share of `samples`, in percent."""
    share = min(max(percent / 100, 0.0), 1.0)
    return percent + 100 * math.sqrt(share * (1 - share) / max(samples, 1))
