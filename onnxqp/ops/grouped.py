"""Axis labels of grouped and depthwise convolutions.

A grouped weight holds only one group's channels on one of its axes, so that axis is *local*: for each group other
positions of it go. Its family runs over both channel axes, the other one numbering the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxqp.axes import AxisLabels, CannotCouple, Family, Labels, Pin, Reduction, Scale, Zero
from onnxqp.ops.join import channel_labels, dims_of, is_weight, tie_axis


@dataclass(frozen=True)
class Layer:
    """A grouped convolution: where its operands stand. `along`: operands with one number for each output channel."""

    node: ir.Node
    labels: AxisLabels
    group: int
    weight_index: int = 1
    along: Sequence[int] = (2,)
    scale: Scale | None = None  # of a weight that is read as integers
    zero: Zero | None = None

    @property
    def weight(self) -> ir.Value:
        weight = self.node.inputs[self.weight_index]
        if weight is None or not is_weight(self.labels, weight):
            raise CannotCouple("a grouped convolution with a computed weight")
        return weight

    def consume(self, axis: int) -> None:
        self.labels.consume(self.node, self.weight_index, axis, Reduction.SUM, self.zero)

    def weigh(self, produced: int | None, consumed: int | None) -> None:
        self.labels.weigh(self.node, self.weight_index, produced=produced, consumed=consumed, scale=self.scale)


def couple_grouped(layer: Layer, *, transposed: bool) -> None:
    """Group convolution: weight (out, in / group, ...), or (in, out / group, ...) when `transposed`.

    Input and output channels come in `group` blocks that must keep the same number, or go as a whole. With one input
    channel per group (depthwise) an output channel goes with its input channel.
    """
    node, labels, group = layer.node, layer.labels, layer.group
    data, shape = node.inputs[0], dims_of(layer.weight)
    rows, local = shape[0], shape[1]
    if data is None or rows is None or local is None or rows % group:
        raise CannotCouple("a grouped convolution of unknown shape")
    pin = Pin(node.op_type, node.name or "", f"{node.op_type} mixes the positions of this axis")
    for axis in (0, *range(2, len(shape))):
        labels.freeze(data, axis, pin)
    entering = channel_labels(labels, data, 1)
    whole = node.name in labels.whole and entering is not None and labels.family(layer.weight, 1) is None
    if local == 1 and (not transposed or rows == group):
        leaving = _depthwise(layer, entering, rows // group)
    elif whole and entering is not None:
        leaving = _whole(layer, entering, transposed=transposed)
    elif transposed:
        leaving = _transposed(layer, entering)
    else:
        leaving = _plain(layer, entering)
    if leaving is not None:
        for index in layer.along:
            if (
                index < len(node.inputs)
                and node.inputs[index] is not None
                and dims_of(node.inputs[index]) not in ((), (1,))
            ):
                tie_axis(labels, node, index, 0, leaving)
        labels.give(node.outputs[0], [Family((1,), leaving)])


def _depthwise(layer: Layer, entering: Labels | None, multiplier: int) -> Labels | None:
    """Each input channel has `multiplier` output channels of its own, which follow each other."""
    layer.weigh(None, 0)
    if entering is None:
        _freeze(layer, 0)
        return None
    leaving = np.repeat(entering, multiplier)
    tie_axis(layer.labels, layer.node, layer.weight_index, 0, leaving)
    return leaving


def _plain(layer: Layer, entering: Labels | None) -> Labels:
    """Rows of the weight make output channels; its axis 1 is local."""
    layer.weigh(0, 1)
    leaving = _rows(layer)
    _even(layer, leaving)
    if entering is not None:
        _even(layer, entering)
    _local(layer, entering)
    return leaving


def _whole(layer: Layer, entering: Labels, *, transposed: bool) -> Labels:
    """All channels of a group go, in and out: nothing that stays has met them."""
    labels, group, weight = layer.labels, layer.group, layer.weight
    there = _rows(layer)
    labels.split(layer.node, np.concatenate([entering.reshape(group, -1), there.reshape(group, -1)], axis=1))
    labels.freeze(weight, 1, Pin(layer.node.op_type, layer.node.name or "", "groups go as a whole"))
    layer.weigh(0, None)
    local = dims_of(weight)[1] or 1
    return np.repeat(there.reshape(group, -1)[:, 0], local) if transposed else there


def _transposed(layer: Layer, entering: Labels | None) -> Labels | None:
    """Rows of the weight meet input channels; its axis 1, local, makes output channels."""
    labels, group, weight = layer.labels, layer.group, layer.weight
    layer.weigh(1, 0)
    if entering is None:
        _freeze(layer, 0)
    else:
        labels.tie(_rows(layer), entering)
        _even(layer, entering)
        layer.consume(0)
    local = dims_of(weight)[1] or 1
    if local == 1 or labels.family(weight, 1) is not None:
        _freeze(layer, 1)
        labels.offer(layer.node, np.zeros((group, 0), np.int64))
        return None
    leaving = labels.fresh(group * local)
    _even(layer, leaving)
    _local(layer, leaving, consumed=False)
    return leaving


def _even(layer: Layer, channels: Labels) -> None:
    """Every group keeps as many of its channels."""
    blocks = channels.reshape(layer.group, -1)
    layer.labels.balance(blocks)
    layer.labels.offer(layer.node, blocks)


def _rows(layer: Layer) -> Labels:
    there = channel_labels(layer.labels, layer.weight, 0)
    return layer.labels.own(layer.weight, (0,)).labels if there is None else there


def _local(layer: Layer, channels: Labels | None, *, consumed: bool = True) -> None:
    """Give axis 1 of the weight the labels of the channels of each row's group."""
    labels, group, weight = layer.labels, layer.group, layer.weight
    rows, local = dims_of(weight)[:2]
    if channels is None or local == 1:
        _freeze(layer, 1)
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
        layer.consume(1)


def _freeze(layer: Layer, axis: int) -> None:
    pin = Pin(layer.node.op_type, layer.node.name or "", "meets channels that are not cut")
    layer.labels.freeze(layer.weight, axis, pin)
