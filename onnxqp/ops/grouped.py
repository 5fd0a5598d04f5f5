"""Axis labels of grouped and depthwise convolutions.

A grouped weight holds only one group's channels on one of its axes, so that axis is *local*: for each group other
positions of it go. Its family runs over both channel axes, the other one numbering the blocks.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxqp.axes import AxisLabels, CannotCouple, Family, Labels, Pin, Reduction
from onnxqp.graph import is_constant
from onnxqp.ops.join import channel_labels, dims_of, tie_axis


def couple_grouped(node: ir.Node, labels: AxisLabels, group: int, *, transposed: bool) -> None:
    """Group convolution: weight (out, in / group, ...), or (in, out / group, ...) when `transposed`.

    Input and output channels come in `group` blocks that must keep the same number. With one input channel per group
    (depthwise) an output channel goes with its input channel.
    """
    data, weight = node.inputs[0], node.inputs[1]
    if data is None or weight is None or not is_constant(weight):
        raise CannotCouple("a grouped convolution with a computed weight")
    shape = dims_of(weight)
    rows, local = shape[0], shape[1]
    if rows is None or local is None or rows % group:
        raise CannotCouple("a grouped convolution of unknown shape")
    pin = Pin(node.op_type, node.name or "", f"{node.op_type} mixes the positions of this axis")
    for axis in (0, *range(2, len(shape))):
        labels.freeze(data, axis, pin)
    entering = channel_labels(labels, data, 1)
    if local == 1 and (not transposed or rows == group):
        leaving = _depthwise(node, labels, entering, rows // group)
    elif transposed:
        leaving = _transposed(node, labels, entering, group)
    else:
        leaving = _plain(node, labels, entering, group)
    if leaving is not None:
        if len(node.inputs) > 2:
            tie_axis(labels, node, 2, 0, leaving)
        labels.give(node.outputs[0], [Family((1,), leaving)])


def _depthwise(node: ir.Node, labels: AxisLabels, entering: Labels | None, multiplier: int) -> Labels | None:
    """Each input channel has `multiplier` output channels of its own, which follow each other."""
    labels.weigh(node, 1, consumed=0)
    if entering is None:
        _freeze(labels, node, 0)
        return None
    leaving = np.repeat(entering, multiplier)
    tie_axis(labels, node, 1, 0, leaving)
    return leaving


def _plain(node: ir.Node, labels: AxisLabels, entering: Labels | None, group: int) -> Labels:
    """Rows of the weight make output channels; its axis 1 is local."""
    weight = node.inputs[1]
    assert weight is not None
    labels.weigh(node, 1, produced=0, consumed=1)
    leaving = _rows(labels, weight)
    labels.balance(leaving.reshape(group, -1))
    if entering is not None:
        labels.balance(entering.reshape(group, -1))
    _local(node, labels, entering, group)
    return leaving


def _transposed(node: ir.Node, labels: AxisLabels, entering: Labels | None, group: int) -> Labels | None:
    """Rows of the weight meet input channels; its axis 1, local, makes output channels."""
    weight = node.inputs[1]
    assert weight is not None
    labels.weigh(node, 1, produced=1, consumed=0)
    if entering is None:
        _freeze(labels, node, 0)
    else:
        labels.tie(_rows(labels, weight), entering)
        labels.balance(entering.reshape(group, -1))
        labels.consume(node, 1, 0, Reduction.SUM)
    local = dims_of(weight)[1] or 1
    if local == 1 or labels.family(weight, 1) is not None:
        _freeze(labels, node, 1)
        return None
    leaving = labels.fresh(group * local)
    labels.balance(leaving.reshape(group, -1))
    _local(node, labels, leaving, group, consumed=False)
    return leaving


def _rows(labels: AxisLabels, weight: ir.Value) -> Labels:
    there = channel_labels(labels, weight, 0)
    return labels.own(weight, (0,)).labels if there is None else there


def _local(node: ir.Node, labels: AxisLabels, channels: Labels | None, group: int, *, consumed: bool = True) -> None:
    """Give axis 1 of the weight the labels of the channels of each row's group."""
    weight = node.inputs[1]
    assert weight is not None
    rows, local = dims_of(weight)[:2]
    if channels is None or local == 1:
        _freeze(labels, node, 1)
        return
    blocks = np.repeat(channels.reshape(group, -1), (rows or 0) // group, axis=0)
    there = labels.family(weight, 1)
    if there is None:
        labels.attach(weight, Family((0, 1), blocks))
        why = labels.why_free(weight, 1)
        if why is not None:
            labels.pin_because(blocks, why)
    else:
        labels.tie(there.labels if len(there.axes) == 2 else there.labels[None, :], blocks)
    if consumed:
        labels.consume(node, 1, 1, Reduction.SUM)


def _freeze(labels: AxisLabels, node: ir.Node, axis: int) -> None:
    weight = node.inputs[1]
    if weight is not None:
        labels.freeze(weight, axis, Pin(node.op_type, node.name or "", "meets channels that are not cut"))
