"""Reductions, and operators that order or accumulate along an axis."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from onnxqp.axes import AxisLabels, CannotCouple, Reduction
from onnxqp.graph import attribute_int, attribute_ints, constant
from onnxqp.ops import pooling, quantizing
from onnxqp.ops.join import join, rank_of
from onnxqp.ops.operator import Operator
from onnxqp.specs import Movement, Role


class ReduceMean(Operator):
    """Kept axes pass; over a cut axis the mean is that of the kept channels."""

    op_types: ClassVar[tuple[str, ...]] = ("ReduceMean",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        _couple_reduction(node, labels, Reduction.MEAN)

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)

    def averages(self, node: ir.Node) -> bool:
        return pooling.is_mean_of_space(node, _constant_axes(node))

    def plain(self, node: ir.Node) -> bool:
        return pooling.global_from_mean(node, _constant_axes(node))


class ReduceSum(Operator):
    """Kept axes pass; over a cut axis the removed channels add nothing."""

    op_types: ClassVar[tuple[str, ...]] = (*("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum"),)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        _couple_reduction(node, labels, Reduction.SUM)

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class ReduceMax(Operator):
    """Kept axes pass; over a cut axis the removed channels never win."""

    op_types: ClassVar[tuple[str, ...]] = ("ReduceMax", "ReduceLogSumExp")

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        _couple_reduction(node, labels, Reduction.MAX)

    def quantization(self, node: ir.Node) -> Role:
        return Movement("ReduceMax") if node.op_type == "ReduceMax" else quantizing.no_kernel(node)


class ReduceMin(Operator):
    """Kept axes pass; over a cut axis the removed channels never win."""

    op_types: ClassVar[tuple[str, ...]] = ("ReduceMin",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        _couple_reduction(node, labels, Reduction.MIN)

    def quantization(self, node: ir.Node) -> Role:
        return Movement("ReduceMin")


class ReduceProd(Operator):
    """Kept axes pass; over a cut axis the removed channels count as 1."""

    op_types: ClassVar[tuple[str, ...]] = ("ReduceProd",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        _couple_reduction(node, labels, Reduction.PRODUCT)

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class ArgMax(Operator):
    """The axis whose positions are counted is pinned, the others pass."""

    op_types: ClassVar[tuple[str, ...]] = ("ArgMax", "ArgMin")

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        axis = attribute_int(node, "axis", 0) % rank_of(node.inputs[0])
        _couple_opaque(node, labels, axis, keep=attribute_int(node, "keepdims", 1) == 1)


class CumSum(Operator):
    """The accumulated axis is pinned, the others pass."""

    op_types: ClassVar[tuple[str, ...]] = ("CumSum",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        axis = constant(node.inputs[1])
        if axis is None:
            raise CannotCouple("a CumSum along an axis that is computed")
        _couple_opaque(node, labels, int(axis.reshape(-1)[0]) % rank_of(node.inputs[0]))

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class TopK(Operator):
    """The ordered axis is pinned, the others pass."""

    op_types: ClassVar[tuple[str, ...]] = ("TopK",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        _couple_opaque(node, labels, attribute_int(node, "axis", -1) % rank_of(node.inputs[0]))


def reduced_axes(node: ir.Node) -> list[int]:
    """The axes that a reduction reduces, from its attribute or its second input."""
    rank = rank_of(node.inputs[0])
    axes = attribute_ints(node, "axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        operand = constant(node.inputs[1])
        if operand is None:
            raise CannotCouple("a reduction over axes that are computed")
        axes = [int(axis) for axis in operand]
    if not axes:
        return [] if attribute_int(node, "noop_with_empty_axes", 0) else list(range(rank))
    return [axis % rank for axis in axes]


def _constant_axes(node: ir.Node) -> list[int]:
    """Those of `reduced_axes`, or none where they or the rank are not known."""
    try:
        return reduced_axes(node)
    except CannotCouple:
        return []


def _couple_reduction(node: ir.Node, labels: AxisLabels, reduction: Reduction) -> None:
    names, axes = range(rank_of(node.inputs[0])), reduced_axes(node)
    keep = attribute_int(node, "keepdims", 1) == 1
    output = [None if axis in axes else axis for axis in names if keep or axis not in axes]
    join(labels, node, {0: names}, {0: output}, reduction=reduction)


def _couple_opaque(node: ir.Node, labels: AxisLabels, axis: int, *, keep: bool = True) -> None:
    """All axes pass but one, whose positions matter."""
    names = [None if i == axis else i for i in range(rank_of(node.inputs[0]))]
    output = names if keep else [name for i, name in enumerate(names) if i != axis]
    join(labels, node, {0: names}, dict.fromkeys(range(len(node.outputs)), output))
