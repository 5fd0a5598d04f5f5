"""Scores of channels that need no samples: geometric median, scales of batch normalisation, chance.

Norms (l1, l2) are in `importance`; what needs samples is in the room of recovery. All scores average 1 in each group,
so that groups can be held against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.axes import AxisLabels
from onnxqp.errors import UnsupportedError
from onnxqp.graph import SCALES, constant
from onnxqp.ops import rule_for
from onnxqp.options import Criterion
from onnxqp.prune.groups import Grouping
from onnxqp.prune.importance import FloatArray, scores
from onnxqp.prune.slots import find_slots

# What each channel of a labelled model is worth, by class; NaN where that is not known.
Scorer: TypeAlias = Callable[[ir.Model, AxisLabels, Grouping], npt.NDArray[np.float64]]

LARGEST = 8192  # slices of which all distances are taken; beyond, distances to their mean


def criterion_scorer(criterion: Criterion, seed: int = 0) -> Scorer | None:
    """The scorer of a criterion that needs no samples; None for norms, and for those that do."""
    if criterion == "geometric-median":
        return geometric_median
    if criterion == "bn-scale":
        return normalisation_scale
    if criterion == "random":
        return lambda model, labels, grouping: np.random.default_rng(seed).random(len(grouping.roots))
    return None


def geometric_median(model: ir.Model, labels: AxisLabels, grouping: Grouping) -> FloatArray:
    """The sum of distances of a channel's slices to those of the others of its weight: what lies in the middle of the
    others can be told by them (He et al. 2019, Filter Pruning via Geometric Median)."""
    slots = find_slots(model.graph, labels, grouping.roots)
    found = np.zeros(len(slots.place))
    start = 0
    for slot in slots.slots:
        stop = start + slot.family.labels.size
        array = constant(model.graph.initializers[slot.weight.value])
        if array is not None:
            axes = [axis for axis in slot.family.axes if isinstance(axis, int)]
            slices = np.moveaxis(array, axes, range(len(axes))).reshape(stop - start, -1)
            found[start:stop] = _distances(slices.astype(np.float64))
        start = stop
    votes = np.bincount(slots.place, weights=found, minlength=len(slots.slot)).astype(np.float64)
    return _in_groups(grouping, slots.slot, slots.channel, votes)


def _distances(slices: FloatArray) -> FloatArray:
    if len(slices) > LARGEST:
        return np.asarray(np.linalg.norm(slices - slices.mean(axis=0), axis=1) * len(slices))
    squares = np.square(slices).sum(axis=1)
    product = squares[:, None] + squares[None, :] - 2 * slices @ slices.T
    return np.asarray(np.sqrt(np.maximum(product, 0.0)).sum(axis=1))


def normalisation_scale(model: ir.Model, labels: AxisLabels, grouping: Grouping) -> FloatArray:
    """The magnitudes of the scales of batch normalisation, also of those that are folded (Liu et al. 2017, Network
    Slimming); NaN for channels without one. Raises UnsupportedError where there are none at all."""
    found = dict(recorded(model))
    for node in model.graph:
        scale = rule_for(node).learned_scale(node)
        if scale is not None:
            found[node.outputs[0].name or ""] = np.abs(np.asarray(scale, np.float64))
    slots, channels, votes = list[npt.NDArray[np.int64]](), list[npt.NDArray[np.int64]](), list[FloatArray]()
    for number, (name, scale) in enumerate(found.items()):
        family = labels.family(name, 1)
        if family is not None and len(family.axes) == 1 and family.labels.size == scale.size:
            slots.append(np.full(scale.size, number))
            channels.append(grouping.roots[family.labels].reshape(-1))
            votes.append(scale.reshape(-1))
    if not votes:
        raise UnsupportedError(
            "--criterion bn-scale: no channel has a batch normalisation",
            hint="many exporters fold it away; take another criterion",
        )
    channel = np.concatenate(channels)
    score = _in_groups(grouping, np.concatenate(slots), channel, np.concatenate(votes))
    unseen = np.ones(len(score), np.bool_)
    unseen[channel] = False
    score[unseen] = np.nan
    return score


def _in_groups(
    grouping: Grouping, weight: npt.NDArray[np.int64], channel: npt.NDArray[np.int64], votes: FloatArray
) -> FloatArray:
    group = np.full(len(grouping.roots), -1, np.int64)
    for number, each in enumerate(grouping.groups):
        group[each.classes] = number
    return scores(len(group), weight, channel, group[channel], votes)


def recorded(model: ir.Model) -> Mapping[str, npt.NDArray[Any]]:
    """What normalisation has folded away, by the name of the value that has the scaled channels on axis 1."""
    found: Mapping[str, npt.NDArray[Any]] = model.meta.get(SCALES, {})
    return found
