"""Channels that come in blocks, of which every block must lose the same number.

Grouped convolutions, heads and split axes each ask that their blocks stay equally long. Classes that meet the same
demands in the same blocks form a *cell*; removing one class from every cell of a component keeps all blocks equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxqp.axes import Labels, components


@dataclass(frozen=True)
class Blocks:
    """One demand, over classes: `counts[i, b]` is how often class `classes[i]` stands in block b."""

    classes: Labels
    counts: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Component:
    """Classes bound together by such demands: the removable ones by cell, or none that can be removed together."""

    classes: Labels
    cells: tuple[Labels, ...]

    @property
    def removable(self) -> int:
        """How many classes can go from every cell: one at least stays."""
        return min((len(cell) for cell in self.cells), default=1) - 1


def demands(balances: Sequence[Labels], roots: Labels) -> list[Blocks]:
    """The demands that bind something: a class that stands equally often in every block is free."""
    found: dict[bytes, Blocks] = {}
    for blocks in balances:
        rows = roots[blocks]
        if (rows == rows[0]).all():
            continue
        classes, places = np.unique(rows, return_inverse=True)
        counts = np.zeros((len(classes), len(rows)), np.int64)
        np.add.at(counts, (places.reshape(rows.shape), np.arange(len(rows))[:, None]), 1)
        bound = (counts != counts[:, :1]).any(axis=1)
        if bound.any():
            made = Blocks(classes[bound], counts[bound])
            found.setdefault(made.classes.tobytes() + made.counts.tobytes(), made)
    return list(found.values())


def bound_components(balances: Sequence[Labels], roots: Labels, removable: npt.NDArray[np.bool_]) -> list[Component]:
    """Components of classes bound by `balances`, given which classes (by label) may be removed at all."""
    wanted = demands(balances, roots)
    if not wanted:
        return []
    generator = np.random.default_rng(0)
    signature = np.zeros(len(roots), np.uint64)
    for demand in wanted:
        _, kind = np.unique(demand.counts, axis=0, return_inverse=True)
        marks = generator.integers(0, 2**64, size=int(kind.max()) + 1, dtype=np.uint64)
        signature[demand.classes] += marks[kind.reshape(-1)]
    left = np.concatenate([np.full(len(demand.classes), demand.classes[0]) for demand in wanted])
    right = np.concatenate([demand.classes for demand in wanted])
    home = components(len(roots), left, right)
    by_home: dict[int, list[Blocks]] = {}
    for demand in wanted:
        by_home.setdefault(int(home[demand.classes[0]]), []).append(demand)
    members = np.unique(right)
    members = members[np.argsort(home[members], kind="stable")]
    names, starts = np.unique(home[members], return_index=True)
    found = []
    for name, classes in zip(names.tolist(), np.split(members, starts[1:]), strict=True):
        found.append(Component(classes, _cells(classes[removable[classes]], signature, by_home[name])))
    return found


def _cells(classes: Labels, signature: npt.NDArray[np.uint64], wanted: Sequence[Blocks]) -> tuple[Labels, ...]:
    """The cells of a component; none when removing one class of every cell would leave blocks unequal."""
    kinds, place = np.unique(signature[classes], return_inverse=True)
    cells = tuple(classes[place == n] for n in range(len(kinds)))
    chosen = np.array([cell[0] for cell in cells], np.int64)
    for demand in wanted:
        lost = demand.counts[np.isin(demand.classes, chosen)].sum(axis=0)
        if (lost != lost[0]).any():
            return ()
    return cells
