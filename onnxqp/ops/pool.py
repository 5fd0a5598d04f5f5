"""Pooling."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from onnxqp.axes import AxisLabels, Reduction
from onnxqp.graph import attribute_ints
from onnxqp.ops import pooling, quantizing
from onnxqp.ops.join import join, rank_of
from onnxqp.ops.operator import Operator
from onnxqp.ops.windows import Window, free_window, window_fault
from onnxqp.specs import Compute, Role


class MaxPool(Operator):
    """Channels pass; pinned when the Indices output, which counts across channels, is used."""

    op_types: ClassVar[tuple[str, ...]] = ("MaxPool",)
    channels_first: ClassVar[bool] = True
    homogeneous: ClassVar[bool] = True

    def fault(self, node: ir.Node) -> str | None:
        return window_fault(node)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
            labels.pin_node(node, "the indices of MaxPool count across channels")
        couple_window(node, labels)

    def window(self, node: ir.Node) -> Window | None:
        return free_window(node, attribute_ints(node, "kernel_shape"))

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.max_pool_role(node)


class AveragePool(Operator):
    """Channels pass."""

    op_types: ClassVar[tuple[str, ...]] = ("AveragePool", "LpPool")
    channels_first: ClassVar[bool] = True
    homogeneous: ClassVar[bool] = True

    def fault(self, node: ir.Node) -> str | None:
        return window_fault(node)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        couple_window(node, labels)

    def window(self, node: ir.Node) -> Window | None:
        return free_window(node, attribute_ints(node, "kernel_shape"))

    def quantization(self, node: ir.Node) -> Role:
        return pooling.average_role(node) if node.op_type == "AveragePool" else quantizing.no_kernel(node)

    def averages(self, node: ir.Node) -> bool:
        return node.op_type == "AveragePool" and pooling.is_whole_window(node)

    def plain(self, node: ir.Node) -> bool:
        return node.op_type == "AveragePool" and pooling.global_from_window(node)

    def lower(self, node: ir.Node) -> None:
        pooling.convolution_from_average(node)


class GlobalAveragePool(Operator):
    """Channels pass, spatial axes become 1."""

    op_types: ClassVar[tuple[str, ...]] = ("GlobalAveragePool",)
    channels_first: ClassVar[bool] = True
    homogeneous: ClassVar[bool] = True

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        _couple_global(node, labels, Reduction.MEAN)

    def averages(self, node: ir.Node) -> bool:
        return True

    def quantization(self, node: ir.Node) -> Role:
        return Compute("GlobalAveragePool", (0,)) if node.op_type == "GlobalAveragePool" else quantizing.no_kernel(node)


class GlobalMaxPool(Operator):
    """Channels pass, spatial axes become 1."""

    op_types: ClassVar[tuple[str, ...]] = ("GlobalMaxPool",)
    channels_first: ClassVar[bool] = True
    homogeneous: ClassVar[bool] = True

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        _couple_global(node, labels, Reduction.MAX)

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class GlobalLpPool(Operator):
    """Channels pass, spatial axes become 1."""

    op_types: ClassVar[tuple[str, ...]] = ("GlobalLpPool",)
    channels_first: ClassVar[bool] = True

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        _couple_global(node, labels, Reduction.SUM)


def couple_window(node: ir.Node, labels: AxisLabels, *, channels_last: bool = False) -> None:
    """Batch and channels pass, windows mix the positions of space."""
    space = [None] * (rank_of(node.inputs[0]) - 2)
    names = ["batch", *space, "channels"] if channels_last else ["batch", "channels", *space]
    join(labels, node, {0: names}, {0: names})


def _couple_global(node: ir.Node, labels: AxisLabels, reduction: Reduction) -> None:
    space = [f"space{axis}" for axis in range(rank_of(node.inputs[0]) - 2)]
    output = ["batch", "channels", *[None] * len(space)]
    join(labels, node, {0: ["batch", "channels", *space]}, {0: output}, reduction=reduction)
