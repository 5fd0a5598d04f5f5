"""Streaming statistics of one tensor: update with arrays, merge, and read a range. numpy only.

Memory is a fixed number of counters whatever the number of samples. Observers give the same result for any batching of
the same samples, and merging two is exactly observing both streams.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from onnxqp.errors import InternalError
from onnxqp.specs import Array

BINS = 2048  # on each side of zero; one 8-bit step then spans at least 4 bins of a range that uses one side
COUNTED = 1 << 21  # elements of all samples, at most, that tell how the others lie...
OF_ONE_SAMPLE = (1 << 12, 1 << 17)  # ...and of one, at least and at most
ORDINARY = 8  # times fewer serve where they reach nearly as far as all: of every value, Magika lost 5 dB by them...
FAR = 0.6  # ...that is so much of the way at least
_PIECE = 1 << 15  # elements that are counted at once
LEAST_EXPONENT = -120  # bins are never narrower, so that width and 1 / width stay normal float32 numbers


def counted(samples: int) -> int:
    """Elements of each of so many samples that a histogram may count for all of it."""
    least, most = OF_ONE_SAMPLE
    return min(max(COUNTED // max(samples, 1), least), most)


def _few(most: int) -> int:
    """Of those, what serves where they reach nearly as far as all."""
    return max(most // ORDINARY, min(most, OF_ONE_SAMPLE[0]))


class Observer(Protocol):
    """What the calibration loop needs."""

    def update(self, x: Array, samples: int = 1) -> None:
        """Take in every element of `x`, of any shape and float dtype, which holds so many samples along axis 0."""

    def merge(self, other: Self) -> None:
        """Take in what `other` has seen."""


class Together:
    """Several observers of one value."""

    def __init__(self, *members: Observer) -> None:
        self.members = members

    def update(self, x: Array, samples: int = 1) -> None:
        for member in self.members:
            member.update(x, samples)

    def merge(self, other: Self) -> None:
        for mine, theirs in zip(self.members, other.members, strict=True):
            mine.merge(theirs)


class Kept:
    """The arrays themselves, each of them or fewer: only for few small ones."""

    def __init__(self, every: int = 1) -> None:
        self.every = every
        self.seen = self.samples = 0
        self.arrays: list[Array] = []

    def update(self, x: Array, samples: int = 1) -> None:
        if self.seen % self.every == 0:
            self.arrays.append(x)
        self.seen += 1
        self.samples += samples

    def merge(self, other: Self) -> None:
        self.arrays += other.arrays


def together(observers: Iterable[tuple[str, Observer]]) -> dict[str, Observer]:
    """One observer for each value out of any number of them."""
    members: dict[str, list[Observer]] = {}
    for name, observer in observers:
        members.setdefault(name, []).append(observer)
    return {name: Together(*some) for name, some in members.items()}


class ChannelMean:
    """Mean of the elements at each index of one axis; equal for any batching to the rounding of float64."""

    def __init__(self, axis: int) -> None:
        self.axis = axis
        self.total: npt.NDArray[np.float64] | None = None
        self.count = 0

    def update(self, x: Array, samples: int = 1) -> None:
        axis = self.axis % x.ndim
        channels, after = x.shape[axis], math.prod(x.shape[axis + 1 :])
        with np.errstate(over="ignore", invalid="ignore"):  # a mean that is not finite is of no use to anyone
            rows = x.reshape(-1, channels, after).sum(axis=2) if after > 1 else x.reshape(-1, channels)
            self._add(rows.sum(axis=0, dtype=np.float64), x.size // max(channels, 1))

    def merge(self, other: Self) -> None:
        if other.total is not None:
            self._add(other.total, other.count)

    @property
    def mean(self) -> npt.NDArray[np.float64] | None:
        """Float64, one per channel; None when nothing was seen, or the number of channels differed."""
        return None if self.total is None or not self.count else self.total / self.count

    def _add(self, total: npt.NDArray[np.float64], count: int) -> None:
        if self.total is None and not self.count:
            self.total = total
        else:
            self.total = self.total + total if self.total is not None and self.total.shape == total.shape else None
        self.count += count


class MinMax:
    """Smallest and largest finite element; `invalid` counts NaN and infinities, which are left out.

    Also the sums over all `samples` of the smallest and the largest element of each one. What several samples make
    together is cut into equal parts along axis 0; where its length there is no multiple of their number (an output
    that mixes them) its extremes count for each of them.
    """

    def __init__(self) -> None:
        self.low = math.inf
        self.high = -math.inf
        self.count = 0
        self.invalid = 0
        self.samples = 0  # that held something finite
        self.low_sum = 0.0
        self.high_sum = 0.0

    def update(self, x: Array, samples: int = 1) -> None:
        self._extend(x, samples)

    def merge(self, other: Self) -> None:
        """Take in what another observer of the same value saw in other samples."""
        self._merge(other)
        self.samples += other.samples
        self.low_sum += other.low_sum
        self.high_sum += other.high_sum

    def unite(self, other: Self) -> None:
        """Take in another value of the same samples, which will share its range: the wider mean extremes count."""
        (low, high), (their_low, their_high) = self.mean_range, other.mean_range
        self._merge(other)
        self.samples = max(self.samples, other.samples)
        self.low_sum = min(low, their_low) * self.samples
        self.high_sum = max(high, their_high) * self.samples

    @property
    def range(self) -> tuple[float, float]:
        """(low, high), or (0, 0) when nothing finite was seen."""
        return (self.low, self.high) if self.count else (0.0, 0.0)

    @property
    def mean_range(self) -> tuple[float, float]:
        """The means over all samples of their smallest and their largest element; (0, 0) when nothing was seen."""
        return (self.low_sum / self.samples, self.high_sum / self.samples) if self.samples else (0.0, 0.0)

    def _merge(self, other: Self) -> None:
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)
        self.count += other.count
        self.invalid += other.invalid

    def _extend(self, x: Array, samples: int) -> tuple[npt.NDArray[np.float32], Sequence[float]]:
        """Update the extremes; the finite elements as a flat float32 array, and how far those of each part reach."""
        flat = np.asarray(x, np.float32).reshape(-1)
        if not flat.size:
            return flat, []
        parts = flat.reshape(samples if x.ndim and x.shape[0] % samples == 0 else 1, -1)
        lows, highs = parts.min(axis=1).tolist(), parts.max(axis=1).tolist()  # lists: for most values there is one part
        if not math.isfinite(sum(lows) + sum(highs)):  # NaN wins both
            finite = np.isfinite(parts)
            self.invalid += flat.size - int(np.count_nonzero(finite))
            some = finite.any(axis=1)
            lows = np.where(finite, parts, np.inf).min(axis=1)[some].tolist()
            highs = np.where(finite, parts, -np.inf).max(axis=1)[some].tolist()
            flat = flat[finite.reshape(-1)]
            if not flat.size:
                return flat, []
        self.low = min(self.low, *lows)
        self.high = max(self.high, *highs)
        self.count += flat.size
        for_each = samples if len(parts) < samples else 1
        self.samples += for_each * len(lows)
        self.low_sum += for_each * sum(lows)
        self.high_sum += for_each * sum(highs)
        return flat, list(map(max, highs, (-low for low in lows)))


class Histogram(MinMax):
    """Counts over equal bins around zero whose width is the smallest power of two that holds every element.

    Bin `BINS + k` of `counts` covers k <= x / width < k + 1, and bin `BINS - 1 - k` the same magnitudes below zero.
    When an element falls outside, the width doubles and neighbours add up: exact, since a bin never straddles an edge
    of a wider one. Zeros are counted in `zeros` alone, for quantization represents them without error.

    `most`: of a sample that holds several times as many elements, at most about so many are counted, for the others as
    well, and a part of these where they reach nearly as far as all; the extremes are always those of all.
    """

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        self.most = most
        self.counts = np.zeros(2 * BINS, np.int64)
        self.zeros = 0
        self.exponent: int | None = None  # width = 2 ** exponent; None until a nonzero element was seen

    @property
    def width(self) -> float:
        return 0.0 if self.exponent is None else 2.0**self.exponent

    def update(self, x: Array, samples: int = 1) -> None:
        flat, reaches = self._extend(x, samples)
        if not flat.size:
            return
        self._widen(_exponent_for(max(-self.low, self.high)))
        if self.exponent is None:
            self.zeros += flat.size
            return
        for part, each in self._parts(flat, x.shape, samples, reaches):
            zeros = int(np.count_nonzero(part == 0))
            counts = _binned(part, np.float32(2.0**-self.exponent), signed=self.low < 0)
            counts[BINS] -= zeros
            self.counts += counts if each == 1 else each * counts
            self.zeros += each * zeros

    def _parts(
        self, flat: npt.NDArray[np.float32], shape: Sequence[int], samples: int, reaches: Sequence[float]
    ) -> Iterator[tuple[npt.NDArray[np.float32], int]]:
        """Elements to count, and for how many each of them stands: the same of a sample however it is stacked.

        What is left over at its end, fewer than one of them stands for, counts for nothing.
        """
        size = flat.size // samples
        if self.most is None or size < 4 * _few(self.most) or flat.size != math.prod(shape) or shape[0] % samples:
            yield flat, 1
            return
        for row, reach in zip(flat.reshape(samples, size), reaches, strict=True):
            each = size // _few(self.most)
            part = row[_places(size, each)]
            if max(-part.min(), part.max()) < FAR * reach:
                each = max(size // self.most, 1)
                part = row[_places(size, each)] if each > 1 else row
            yield part, each

    def _merge(self, other: Self) -> None:
        super()._merge(other)
        self.zeros += other.zeros
        if other.exponent is None:
            return
        self._widen(other.exponent)
        if self.exponent is None:
            raise InternalError("a widened histogram has a width")
        self.counts += _halved(other.counts, self.exponent - other.exponent)

    def _widen(self, exponent: int | None) -> None:
        if exponent is None or (self.exponent is not None and self.exponent >= exponent):
            return
        if self.exponent is not None:
            self.counts = _halved(self.counts, exponent - self.exponent)
        self.exponent = exponent

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """Where the bins begin and end, float64 [2 * BINS + 1]."""
        return np.arange(-BINS, BINS + 1, dtype=np.float64) * self.width

    @property
    def centers(self) -> npt.NDArray[np.float64]:
        """The middle of each bin, float64 [2 * BINS]."""
        return np.arange(0.5 - BINS, BINS, dtype=np.float64) * self.width


@functools.lru_cache(64)
def _places(size: int, each: int) -> npt.NDArray[np.intp]:
    """One of every so many of `size` places, anywhere among these: a fixed distance may always meet the same columns of
    an image or the same channels."""
    begins = np.arange(size // each) * each
    return begins + np.random.default_rng([size, each]).integers(each, size=begins.size)


def _binned(flat: npt.NDArray[np.float32], per_width: np.float32, *, signed: bool) -> npt.NDArray[np.int64]:
    """How many elements fall into each bin, zeros into `BINS`, at 1 / width = `per_width`; `signed`: some are negative.

    Piece by piece, so that what is made in between stays in the processor's cache. Truncation joins the two bins beside
    zero; how many negative elements there are at all tells them apart.
    """
    size = min(flat.size, _PIECE)
    scaled, whole, bins = np.empty(size, np.float32), np.empty(size, np.int32), np.empty(size, np.intp)
    counts, negative = np.zeros(0, np.int64), 0
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE]
        here = slice(0, piece.size)
        np.multiply(piece, per_width, out=scaled[here])
        np.copyto(whole[here], scaled[here], casting="unsafe")
        np.add(whole[here], BINS, out=whole[here])
        np.copyto(bins[here], whole[here])
        found = np.bincount(bins[here], minlength=2 * BINS)
        counts = counts + found if start else found
        negative += int(np.count_nonzero(piece < 0)) if signed else 0
    if negative:
        beside = negative - int(counts[:BINS].sum())
        counts[: BINS - 1] = counts[1:BINS]
        counts[BINS - 1] = beside
        counts[BINS] -= beside
    return counts


def _exponent_for(magnitude: float) -> int | None:
    """The smallest allowed e with magnitude < BINS * 2**e; None for zero."""
    if magnitude <= 0:
        return None
    _, exponent = math.frexp(magnitude)  # magnitude = m * 2**exponent with 0.5 <= m < 1
    return max(exponent - BINS.bit_length() + 1, LEAST_EXPONENT)


def _halved(counts: npt.NDArray[np.int64], times: int) -> npt.NDArray[np.int64]:
    """The same counts over bins 2**times wider, around the same zero."""
    factor = 2 ** min(times, BINS.bit_length())  # beyond that all of one side lies in the bin next to zero
    kept = -(-BINS // factor)
    result = np.zeros_like(counts)
    padded = np.zeros(2 * kept * factor, np.int64)
    padded[kept * factor - BINS : kept * factor + BINS] = counts
    result[BINS - kept : BINS + kept] = padded.reshape(2 * kept, factor).sum(axis=1)
    return result
