"""Which channels are missed least once the rest is refitted: Optimal Brain Surgeon, in blocks. Only numpy is needed.

A reader `y = x W` with input covariance C loses, when inputs P go and the others are refitted in the best way,
tr(W_P' [(C^-1)_PP]^-1 W_P) of its output's variance (Hassibi and Stork 1993; for blocks, Frantar and Alistarh 2022).
Channels go one after the other, the cheapest first; after each the inverse and the weight are updated, so that two
channels that stand in for each other do not both seem dispensable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_EPSILON = 1e-9
WORK = 2.5e8  # inverted elements that are written for a group; where one refit for each channel takes more, fewer do
WORK_OF_ALL = 4e9  # for all groups of a model together: ten seconds
LEAST = 16  # refits
POOL = 2  # times as many as go between two refits are considered for it
_SHRINK = 16  # when this part of the inputs has gone, the inverse is rewritten without them


@dataclass
class Reader:
    """A layer that reads the channels. `places[c]`: which of its inputs carry channel c, all channels as many or none.

    `inverse` is the inverse of the damped covariance of the inputs, `matrix` the weight `[inputs, outputs]`; both are
    overwritten. `weight` says how much an error counts here: 1 / the variance of what the output goes into.
    """

    inverse: FloatArray
    matrix: FloatArray
    places: Mapping[int, IntArray]
    weight: float
    _left: IntArray | None = None  # the inputs that `inverse` still has, ascending; None: all
    _gone: list[int] = field(default_factory=list)  # removed, but not from `inverse` yet
    _buffer: FloatArray | None = None  # of the size of `inverse`

    def costs(self, channels: Sequence[int]) -> FloatArray:
        """What the removal of each channel costs, each by itself, given what has gone already."""
        found = np.zeros(len(channels))
        by_width: dict[int, list[int]] = {}
        for place, channel in enumerate(channels):
            if channel in self.places:
                by_width.setdefault(len(self.places[channel]), []).append(place)
        for chosen in by_width.values():
            rows = np.stack([self.places[channels[place]] for place in chosen])
            at = self._at(rows)
            blocks = self.inverse[at[:, :, None], at[:, None, :]]
            weights = self.matrix[rows]
            solved = weights / blocks if rows.shape[1] == 1 else np.linalg.solve(blocks, weights)
            found[chosen] = np.einsum("cko,cko->c", weights, solved)
        return np.maximum(found, 0.0) * self.weight

    def remove(self, channels: Sequence[int]) -> None:
        """Take channels out, all at once, and refit the rest."""
        found = [self.places[channel] for channel in channels if channel in self.places]
        if not found:
            return
        rows = np.concatenate(found)
        at = self._at(rows)
        columns = self.inverse[:, at]
        factor = np.linalg.solve(self.inverse[np.ix_(at, at)], np.eye(len(rows)))
        self.matrix[slice(None) if self._left is None else self._left] -= columns @ (factor @ self.matrix[rows])
        if self._buffer is None or len(self._buffer) != len(self.inverse):
            self._buffer = np.empty_like(self.inverse)
        self.inverse -= np.matmul(columns @ factor, columns.T, out=self._buffer)
        self.inverse[at], self.inverse[:, at] = 0.0, 0.0
        self.inverse[at, at] = 1.0  # never read again, but never singular
        self.matrix[rows] = 0.0
        self._gone += rows.tolist()
        if len(self._gone) * _SHRINK > len(self.inverse):
            self._shrink()

    def only(self, channels: Sequence[int]) -> Reader:
        """A copy that knows of these channels alone: what becomes of them when some of them go is the same."""
        found = [(channel, self.places[channel]) for channel in channels if channel in self.places]
        rows = np.concatenate([places for _, places in found]) if found else np.zeros(0, np.int64)
        at, ends = self._at(rows), np.cumsum([len(places) for _, places in found])
        places = {
            channel: np.arange(end - len(old), end) for (channel, old), end in zip(found, ends.tolist(), strict=True)
        }
        return Reader(self.inverse[np.ix_(at, at)], self.matrix[rows], places, self.weight)

    def _at(self, rows: IntArray) -> IntArray:
        """Where inputs stand in `inverse`."""
        return rows if self._left is None else np.searchsorted(self._left, rows)

    def _shrink(self) -> None:
        """Forget what has gone: each removal takes the time of the square of what is there."""
        old = np.arange(len(self.inverse)) if self._left is None else self._left
        self._left = np.setdiff1d(old, self._gone)
        keep = np.searchsorted(old, self._left)
        self.inverse, self._gone = self.inverse[np.ix_(keep, keep)], []


def reader_of(
    covariance: FloatArray, matrix: FloatArray, places: Mapping[int, IntArray], weight: float, damping: float = 1e-2
) -> Reader:
    """A reader from the covariance of its inputs; the damping is relative to the mean variance."""
    inputs = len(covariance)
    strength = damping * float(np.trace(covariance)) / max(inputs, 1) or 1.0
    inverse = np.linalg.inv(covariance + strength * np.eye(inputs))
    return Reader((inverse + inverse.T) / 2, np.array(matrix, np.float64), places, weight)


def eliminate(
    readers: Sequence[Reader],
    channels: Sequence[int],
    *,
    stop: int = 1,
    work: float = WORK,
    watch: Callable[[int, float], None] | None = None,
) -> FloatArray:
    """The cost of each channel when it goes, in the order in which they go; never falling along that order.

    All but `stop` of them are taken out one by one; the last get the cost of the last one and their own on top. Of
    many channels some go before the readers are refitted, each the cheapest of those that were cheap after the last
    refit: about `work` elements are written. After each refit `watch` is told how many are gone and what they cost
    together.
    """
    refit = sum(len(reader.inverse) ** 2 for reader in readers)
    at_once = max(min(int(refit * len(channels) / work), len(channels) // LEAST), 1)
    left = list(channels)
    score = dict.fromkeys(channels, 0.0)
    reached = total = 0.0
    while left:
        costs = np.sum([reader.costs(left) for reader in readers], axis=0)
        if len(left) <= stop:
            for channel, cost in zip(left, costs.tolist(), strict=True):
                score[channel] = reached + cost
            break
        going = _cheapest(readers, left, costs, min(at_once, len(left) - stop))
        for channel, cost in going:
            total += cost
            reached = max(reached, cost)
            score[channel] = reached
        gone = {channel for channel, _ in going}
        left = [channel for channel in left if channel not in gone]
        for reader in readers:
            reader.remove([channel for channel, _ in going])
        if watch is not None:
            watch(len(channels) - len(left), total)
    return np.array([score[channel] for channel in channels])


def _cheapest(readers: Sequence[Reader], left: Sequence[int], costs: FloatArray, count: int) -> list[tuple[int, float]]:
    """The next `count` channels to go, in order, and what each costs."""
    if count == 1:
        place = int(np.argmin(costs))
        return [(left[place], float(costs[place]))]
    pool = [left[place] for place in np.argsort(costs, kind="stable")[: count * POOL]]
    parts, found = [reader.only(pool) for reader in readers], list[tuple[int, float]]()
    for _ in range(count):
        own = np.sum([part.costs(pool) for part in parts], axis=0)
        place = int(np.argmin(own))
        channel = pool.pop(place)
        found.append((channel, float(own[place])))
        for part in parts:
            part.remove([channel])
    return found


def rising(costs: FloatArray) -> FloatArray:
    """The nearest costs that rise from one to the next: where they fall, neighbours share theirs (isotonic regression).

    Sums over what is shared stay, so that a group costs what was measured; an epsilon keeps the order.
    """
    blocks: list[tuple[float, int]] = []  # sum, count
    for cost in costs.tolist():
        blocks.append((cost, 1))
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            (one, many), (other, more) = blocks[-2:]
            blocks[-2:] = [(one + other, many + more)]
    level = np.repeat([total / count for total, count in blocks], [count for _, count in blocks])
    return np.asarray(level * (1 + _EPSILON * np.arange(len(level))))
