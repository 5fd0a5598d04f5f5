"""Which units a graph is cut in: single channels wherever they can go, else whole heads and groups.

An operator that splits an axis into blocks lets every block lose as many channels. Where none can go (halves of a head
that rotate together, positions that a later operator reads), the block itself may: one head, one group of a grouped
convolution or normalisation. Its channels are then tied, and the number of blocks shrinks.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.axes import AxisLabels
from onnxqp.graph import dims
from onnxqp.options import Selection
from onnxqp.prune.coupling import label_axes
from onnxqp.prune.groups import Grouping, find_groups
from onnxqp.prune.slots import weight_values

_ROUNDS = 3  # of adding blocks that meet those which go as a whole


def label_units(graph: ir.Graph, selection: Selection, order: Literal[1, 2] = 1) -> tuple[AxisLabels, Grouping]:
    """Labels and groups of a normalised graph, with whole blocks where more can be cut so."""
    labels = label_axes(graph)
    grouping = find_groups(graph, labels, selection, order)
    whole = _stuck(labels, grouping)
    best, found = (labels, grouping), _reach(graph, labels, grouping) if whole else 0.0
    for _ in range(_ROUNDS if whole else 0):
        labels = label_axes(graph, whole)
        grouping = find_groups(graph, labels, selection, order)
        reach = _reach(graph, labels, grouping)
        if reach > found:
            best, found = (labels, grouping), reach
        more = _clashing(labels, grouping)
        if not more:
            break
        whole |= more
    return best


def _free(labels: AxisLabels, grouping: Grouping) -> npt.NDArray[np.bool_]:
    free = np.zeros(labels.count, np.bool_)
    for group in grouping.groups:
        free[group.classes] = True
    return free[grouping.roots]


def _stuck(labels: AxisLabels, grouping: Grouping) -> set[str]:
    """Nodes with blocks none of whose channels can go."""
    free = _free(labels, grouping) if labels.blocks else np.zeros(0, np.bool_)
    return {name for name, found in labels.blocks.items() if any(not free[blocks].any() for blocks in found)}


def _clashing(labels: AxisLabels, grouping: Grouping) -> set[str]:
    """Nodes that split axes into blocks which meet whole ones: the values of heads whose queries go as a whole."""
    met = np.zeros(labels.count, np.bool_)
    for clash in labels.clashes:
        met[grouping.roots[clash]] = True
    return {
        name for name, found in labels.blocks.items() if any(met[grouping.roots[blocks]].any() for blocks in found)
    }


def _reach(graph: ir.Graph, labels: AxisLabels, grouping: Grouping) -> float:
    """How much of the weights could go: the elements of each, times the share of its slices that are in groups."""
    free, reach = _free(labels, grouping), 0.0
    values = weight_values(graph)
    for name in {weight.value for weight in labels.weights}:
        elements = math.prod(size or 1 for size in dims(values.get(name)) or (0,))
        reach += sum(float(free[family.labels].mean()) * elements for family in labels.families(name))
    return reach
