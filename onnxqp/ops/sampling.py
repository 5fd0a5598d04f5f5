"""Operators that take pixels of an image from elsewhere: its channels pass."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from onnxqp.axes import AxisLabels, CannotCouple, Family, Name, Pin
from onnxqp.graph import attribute_int
from onnxqp.ops.conv import image_names
from onnxqp.ops.cost import dimension, element_count
from onnxqp.ops.join import channel_labels, dims_of, join, rank_of
from onnxqp.ops.operator import Operator


class Regions(Operator):
    """Channels pass; where pixels are taken from is never cut."""

    op_types: ClassVar[tuple[str, ...]] = ("RoiAlign", "MaxRoiPool", "GridSample")
    channels_first: ClassVar[bool] = True

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        names: list[Name | None] = [None, "channels", *[None] * (rank_of(node.inputs[0]) - 2)]
        places: dict[int, list[Name | None]] = {
            index: [None] * rank_of(value) for index, value in enumerate(node.inputs) if index and value is not None
        }
        join(labels, node, {0: names, **places}, {0: names})


class DeformConv(Operator):
    """As Conv; the offsets of the taps, and their masks, are never cut."""

    op_types: ClassVar[tuple[str, ...]] = ("DeformConv",)
    channels_first: ClassVar[bool] = True

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        if attribute_int(node, "group", 1) != 1:
            raise CannotCouple("a DeformConv in groups")
        mixed = [None] * (rank_of(node.inputs[0]) - 1)
        names: dict[int, list[Name | None]] = {
            0: image_names(node, "in"),
            1: ["out", "in", *mixed[1:]],
            2: ["batch", *mixed],
        }
        if len(node.inputs) > 3 and node.inputs[3] is not None:
            names[3] = ["out"]
        if len(node.inputs) > 4 and node.inputs[4] is not None:
            names[4] = ["batch", *mixed]
        join(labels, node, names, {0: image_names(node, "out")})
        labels.weigh(node, 1, produced=0, consumed=1)
        data, groups = node.inputs[0], attribute_int(node, "offset_group", 1)
        channels = channel_labels(labels, data, 1) if data is not None and groups > 1 else None
        if channels is not None:
            labels.balance(channels.reshape(groups, -1))

    def macs(self, node: ir.Node) -> int:
        weight = node.inputs[1]
        return element_count(node.outputs[0]) * element_count(weight) // dimension(weight, 0)


class Col2Im(Operator):
    """The elements of a block that become one channel tie; positions are pinned."""

    op_types: ClassVar[tuple[str, ...]] = ("Col2Im",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        data, channels = node.inputs[0], dims_of(node.outputs[0])[1]
        entering = None if data is None else channel_labels(labels, data, 1)
        if data is not None:
            for axis in (0, 2):
                labels.freeze(data, axis, Pin(node.op_type, node.name or "", "Col2Im mixes the positions of this axis"))
        if entering is not None and channels:
            rows = entering.reshape(channels, -1)
            labels.tie(rows[:, :1], rows)
            labels.give(node.outputs[0], [Family((1,), rows[:, 0])])


class MaxUnpool(Operator):
    """Pinned: its indices count across channels."""

    op_types: ClassVar[tuple[str, ...]] = ("MaxUnpool",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        labels.pin_node(node, "the indices of MaxUnpool count across channels")
