"""Resampling, and moving elements between space and channels."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxqp.axes import AxisLabels, Cut, Family
from onnxqp.graph import attribute_ints, attribute_string
from onnxqp.ops import quantizing
from onnxqp.ops.join import dims_of, rank_of, without
from onnxqp.ops.operator import Operator
from onnxqp.ops.rewrite import set_sizes
from onnxqp.specs import Movement, Role


class Resize(Operator):
    """Axes of unchanged size pass, `sizes` are rewritten; resampled axes are pinned."""

    op_types: ClassVar[tuple[str, ...]] = ("Resize", "Upsample")
    channels_first: ClassVar[bool] = True

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        before, after = dims_of(node.inputs[0]), dims_of(node.outputs[0])
        axes = attribute_ints(node, "axes")
        sampled = {axis % len(before) for axis in axes} if axes else set(range(len(before)))
        same = {axis for axis, size in enumerate(before) if axis not in sampled or (size and size == after[axis])}
        resampled = [axis for axis in range(len(before)) if axis not in same]
        labels.give(node.outputs[0], without(labels, node, node.inputs[0], resampled))

    def resize(self, node: ir.Node, cut: Cut) -> None:
        if len(node.inputs) > 3 and node.inputs[3] is not None:
            axes = attribute_ints(node, "axes")
            rank = rank_of(node.inputs[0])
            places = {axis % rank: place for place, axis in enumerate(axes or range(rank))}
            sizes = cut.sizes(node.outputs[0])
            set_sizes(node, 3, {places[axis]: size for axis, size in sizes.items() if axis in places})

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.resize_role(node)


class DepthToSpace(Operator):
    """The input channels that become one output channel tie."""

    op_types: ClassVar[tuple[str, ...]] = ("DepthToSpace",)
    channels_first: ClassVar[bool] = True

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        block = node.attributes["blocksize"].as_int()
        depth_first = attribute_string(node, "mode", "DCR") == "DCR"
        made = []
        for family in without(labels, node, node.inputs[0], (2, 3)):
            if family.inner == 1:
                channels = labels.coarsen(family, (1,)).labels
                copies = channels.reshape(block * block, -1) if depth_first else channels.reshape(-1, block * block).T
                labels.tie(copies[:1], copies[1:])
                family = Family((1,), copies[0])
            made.append(family)
        labels.give(node.outputs[0], made)

    def quantization(self, node: ir.Node) -> Role:
        return Movement("DepthToSpace")


class SpaceToDepth(Operator):
    """The output channels that come from one input channel tie."""

    op_types: ClassVar[tuple[str, ...]] = ("SpaceToDepth",)
    channels_first: ClassVar[bool] = True

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        block = node.attributes["blocksize"].as_int()
        made = []
        for family in without(labels, node, node.inputs[0], (2, 3)):
            if family.inner == 1:
                family = Family((1,), np.tile(labels.coarsen(family, (1,)).labels, block * block))
            made.append(family)
        labels.give(node.outputs[0], made)

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)
