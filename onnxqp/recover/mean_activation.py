"""How much of a channel arrives at its readers: the mean magnitude of what they read of it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from onnxqp.axes import AxisLabels
from onnxqp.ops import rule_for
from onnxqp.prune.groups import Grouping
from onnxqp.prune.importance import scores
from onnxqp.recover.sampling import affordable
from onnxqp.recover.scoring import BUDGET, FloatArray, IntArray
from onnxqp.recover.walk import Walk
from onnxqp.specs import Feed


def mean_activations(model: ir.Model, labels: AxisLabels, grouping: Grouping, feeds: Iterable[Feed]) -> FloatArray:
    """By class, 1 on the mean in each group; NaN where no layer with a constant weight reads the channel."""
    samples = affordable(feeds, BUDGET)
    walk = Walk(model, samples, budget=BUDGET)
    group = np.full(len(grouping.roots), -1, np.int64)
    for number, each in enumerate(grouping.groups):
        group[each.classes] = number
    seen: set[str] = set()
    slots, channels, votes = list[IntArray](), list[IntArray](), list[FloatArray]()
    for node in walk.order:
        contraction = rule_for(node).contraction(node)
        data = None if contraction is None else node.inputs[contraction.data]
        if contraction is None or data is None or data.shape is None or data.name in seen:
            continue
        axis = contraction.contracted % len(data.shape)
        family = labels.family(data, axis)
        if family is None or len(family.axes) > 1:
            continue
        seen.add(str(data.name))
        classes = grouping.roots[family.labels].reshape(-1)
        if not (group[classes] >= 0).any():
            continue
        total = np.zeros(len(classes))
        for arrays in walk.run(node, [data]):
            array = np.moveaxis(arrays[str(data.name)], axis, 0)
            total += np.abs(array.reshape(len(classes), -1)).mean(axis=1, dtype=np.float64)
        slots.append(np.full(len(classes), len(slots)))
        channels.append(classes)
        votes.append(total / len(samples))
    result = np.full(len(group), np.nan)
    if votes:
        channel = np.concatenate(channels)
        found = scores(len(group), np.concatenate(slots), channel, group[channel], np.concatenate(votes))
        result[channel] = found[channel]
    return result
