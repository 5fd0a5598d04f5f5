"""Channels that come in blocks, of which every block must lose the same number.

Grouped convolutions, heads and split axes each demand that their blocks stay equally long. Demands overlap: the blocks
of one may lie across those of another (shuffled groups), inside them (rotated halves of a head), or share a part with
them (the half of a ShuffleNet unit that is passed on). Classes that stand in the same blocks form a *cell*. A *bundle*
is a set of classes that leaves all blocks equal when it goes. Bundles are built one by one: the weakest class of the
cell that lost the smallest share, then, cell by cell, those that even out what it unbalanced. Any choice of bundles
meets every demand, and the first so many of them take about the same share from every cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxqp.axes import Labels, components

_LARGEST = 1 << 20  # cells times blocks; beyond that one class of every cell makes a bundle
_STEPS = 4  # classes that a bundle may take for every block, before its start is given up


@dataclass(frozen=True)
class Demand:
    """Blocks that stay equal: `counts[i, b]` is how often class `classes[i]` stands in block b, of `size[b]` places."""

    classes: Labels
    counts: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Component:
    """Classes bound together by demands. `cells` hold those that may go; `counts[c, b]` and `size[b]` run over the
    blocks of all demands, which start at `starts`."""

    classes: Labels
    cells: tuple[Labels, ...]
    counts: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    def missing(self, lost: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many classes each demand misses to even out its blocks, for rows of losses per block."""
        widths = np.diff([*self.starts, len(self.size)])
        most = np.maximum.reduceat(lost, self.starts, axis=1)
        return np.asarray(most * widths - np.add.reduceat(lost, self.starts, axis=1), np.int64)


def find_demands(balances: Sequence[Labels], roots: Labels) -> list[Demand]:
    """The demands that bind something: a class that stands equally often in every block is free."""
    found: dict[bytes, Demand] = {}
    for blocks in balances:
        rows = roots[blocks]
        if (rows == rows[0]).all():
            continue
        classes, places = np.unique(rows, return_inverse=True)
        counts = np.zeros((len(classes), len(rows)), np.int64)
        np.add.at(counts, (places.reshape(rows.shape), np.arange(len(rows))[:, None]), 1)
        bound = (counts != counts[:, :1]).any(axis=1)
        if bound.any():
            made = Demand(classes[bound], counts[bound], np.full(len(rows), rows.shape[1]))
            found.setdefault(made.classes.tobytes() + made.counts.tobytes(), made)
    return list(found.values())


def bound_components(balances: Sequence[Labels], roots: Labels, removable: npt.NDArray[np.bool_]) -> list[Component]:
    """Components of classes bound by `balances`, given which classes (by label) may be removed at all."""
    wanted = find_demands(balances, roots)
    if not wanted:
        return []
    left = np.concatenate([np.full(len(demand.classes), demand.classes[0]) for demand in wanted])
    right = np.concatenate([demand.classes for demand in wanted])
    home = components(len(roots), left, right)
    by_home: dict[int, list[Demand]] = {}
    for demand in wanted:
        by_home.setdefault(int(home[demand.classes[0]]), []).append(demand)
    members = np.unique(right)
    members = members[np.argsort(home[members], kind="stable")]
    names, starts = np.unique(home[members], return_index=True)
    return [
        _component(classes, by_home[name], removable)
        for name, classes in zip(names.tolist(), np.split(members, starts[1:]), strict=True)
    ]


def _component(classes: Labels, demands: Sequence[Demand], removable: npt.NDArray[np.bool_]) -> Component:
    blocks = [len(demand.size) for demand in demands]
    starts = np.cumsum([0, *blocks[:-1]])
    ordered = np.sort(classes)
    profile = np.zeros((len(ordered), sum(blocks)), np.int64)
    for start, width, demand in zip(starts, blocks, demands, strict=True):
        profile[np.searchsorted(ordered, demand.classes), start : start + width] = demand.counts
    free = removable[ordered]
    if not free.any():
        return Component(classes, (), profile[:0], np.concatenate([d.size for d in demands]), starts)
    kinds, place = np.unique(profile[free], axis=0, return_inverse=True)
    cells = tuple(ordered[free][place.reshape(-1) == n] for n in range(len(kinds)))
    return Component(classes, cells, kinds, np.concatenate([d.size for d in demands]), starts)


def bundles(component: Component, scores: npt.NDArray[np.float64]) -> list[Labels]:
    """Sets of classes that can go without unbalancing any block, in the order of building; `scores` is by class.

    Whatever is removed, every block keeps at least one place. Classes that fit in no bundle stay.
    """
    ranked = [cell[np.argsort(scores[cell], kind="stable")] for cell in component.cells]
    if not ranked:
        return []
    together = component.counts.sum(axis=0)
    if len(component.starts) == 1 or component.counts.size > _LARGEST:
        if component.missing(together[None, :]).any():
            return []
        count = min(*(len(cell) for cell in ranked), int(((component.size - 1) // np.maximum(together, 1)).min()))
        return list(np.stack([cell[:count] for cell in ranked], axis=1)) if count else []
    return _Builder(component, ranked).build()


class _Builder:
    """Builds bundles; the classes of every cell in ascending order of score."""

    def __init__(self, component: Component, ranked: Sequence[Labels]) -> None:
        self.component = component
        self.ranked = ranked
        self.length = np.array([len(cell) for cell in ranked], np.int64)
        self.taken = np.zeros(len(ranked), np.int64)
        self.lost = np.zeros(len(component.size), np.int64)
        self.most = _STEPS * len(component.size)

    def build(self) -> list[Labels]:
        made: list[Labels] = []
        dead = np.zeros(len(self.ranked), np.bool_)
        while True:
            following = np.where(dead, np.inf, self.following())
            start = int(np.argmin(following))
            if not np.isfinite(following[start]):
                return made
            bundle = self.bundle(start)
            if bundle is None:
                dead[start] = True
            else:
                made.append(bundle)

    def following(self) -> npt.NDArray[np.float64]:
        """The share of every cell up to its next class; infinite where none is left, or a block would be emptied."""
        fits = (self.lost + self.component.counts < self.component.size).all(axis=1)
        return np.where(fits & (self.taken < self.length), (self.taken + 0.5) / self.length, np.inf)

    def bundle(self, start: int) -> Labels | None:
        taken, lost = self.taken.copy(), self.lost.copy()
        cells = [start]
        self.take(start)
        while (missing := self.component.missing(self.lost[None, :])[0]).any():
            worst = int(np.argmax(missing))
            after = self.component.missing(self.lost + self.component.counts)
            shares = self.following()
            helps = np.isfinite(shares) & (after[:, worst] < missing[worst])
            if not helps.any() or len(cells) > self.most:
                self.taken, self.lost = taken, lost
                return None
            best = int(np.lexsort((shares, after.sum(axis=1), ~helps))[0])
            self.take(best)
            cells.append(best)
        return np.array([self.ranked[cell][place] for cell, place in self.places(cells, taken)], np.int64)

    def take(self, cell: int) -> None:
        self.taken[cell] += 1
        self.lost = self.lost + self.component.counts[cell]

    @staticmethod
    def places(cells: Sequence[int], taken: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
        """Which of its classes each cell gave, counting on from what it had given before."""
        at = taken.copy()
        found = []
        for cell in cells:
            found.append((cell, int(at[cell])))
            at[cell] += 1
        return found
