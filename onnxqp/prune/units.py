"""Which units a graph is cut in: single channels, or whole blocks: heads, and groups of convolutions.

An operator that splits an axis into blocks lets every block lose as many channels. Where none can go (halves of a head
that rotate by angles from outside, positions that a later operator reads), the block itself may: one head, one group of
a grouped convolution or normalisation. Its channels are then tied, and the number of blocks shrinks.

Heads may go as a whole where their channels can go, too. Which of the two costs less depends on the model: at equal
multiply-accumulates, the attention of MiniLM (12 heads) without a quarter keeps 12.9 dB with whole heads and 8.0 dB
with fewer channels in each, that of a small ViT (3 heads) without two thirds 17.3 dB and 30.5 dB. So both are tried.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.axes import AxisLabels, Labels
from onnxqp.graph import dims
from onnxqp.options import Selection
from onnxqp.prune.coupling import label_axes
from onnxqp.prune.groups import Grouping, find_groups
from onnxqp.prune.slots import weight_values

_ROUNDS = 3  # of adding blocks that meet those which go as a whole


@dataclass(frozen=True)
class Units:
    """The labels and groups of a graph."""

    labels: AxisLabels
    grouping: Grouping

    @property
    def free(self) -> npt.NDArray[np.bool_]:
        """Which labels can go."""
        free = np.zeros(self.labels.count, np.bool_)
        for group in self.grouping.groups:
            free[group.classes] = True
        return free[self.grouping.roots]

    def reach(self, graph: ir.Graph) -> float:
        """How much of the weights could go: the elements of each, times the share of its slices that are in groups."""
        free, reach = self.free, 0.0
        values = weight_values(graph)
        for name in {weight.value for weight in self.labels.weights}:
            elements = math.prod(size or 1 for size in dims(values.get(name)) or (0,))
            for family in self.labels.families(name):
                reach += float(free[family.labels].mean()) * elements if family.labels.size else 0.0
        return reach

    @property
    def stuck(self) -> set[str]:
        """Nodes with blocks none of whose channels can go."""
        free = self.free if self.labels.blocks else np.zeros(0, np.bool_)
        return {name for name, found in self.labels.blocks.items() if any(not free[blocks].any() for blocks in found)}

    def among(self, chosen: list[Labels]) -> set[str]:
        """Nodes that split axes into blocks of which some hold these labels."""
        if not chosen:
            return set()
        marked = np.zeros(self.labels.count, np.bool_)
        for labels in chosen:
            marked[self.grouping.roots[labels]] = True
        return {
            name
            for name, found in self.labels.blocks.items()
            if any(marked[self.grouping.roots[blocks]].any() for blocks in found)
        }


def label_units(graph: ir.Graph, selection: Selection, order: Literal[1, 2] = 1) -> Units:
    """Labels and groups of a normalised graph: single channels, and whole blocks where more can be cut so."""
    labels = label_axes(graph)
    single = Units(labels, find_groups(graph, labels, selection, order))
    stuck = single.stuck
    return _widest([single, *_whole(graph, selection, order, stuck)], graph) if stuck else single


def label_heads(graph: ir.Graph, selection: Selection, order: Literal[1, 2], single: Units) -> Units | None:
    """The same with whole heads, where single channels of heads can go; None where there are no heads, or none could.

    `single`: what `label_units` found.
    """
    heads = single.among(single.labels.heads)
    if not heads:
        return None
    found = _widest(list(_whole(graph, selection, order, heads | single.labels.whole)), graph)
    return found if found.reach(graph) > _NEARLY * single.reach(graph) else None


_NEARLY = 0.9  # as much as with single channels could go


def _whole(graph: ir.Graph, selection: Selection, order: Literal[1, 2], whole: set[str]) -> Iterator[Units]:
    """With blocks of these nodes as a whole; then with blocks that meet those, such as the values of the heads."""
    for _ in range(_ROUNDS):
        labels = label_axes(graph, whole)
        found = Units(labels, find_groups(graph, labels, selection, order))
        yield found
        more = found.among(labels.clashes)
        if not more:
            return
        whole = whole | more


def _widest(found: list[Units], graph: ir.Graph) -> Units:
    """Of which the most can go; the first of equals."""
    return max(found, key=lambda units: units.reach(graph))
