"""Operators that onnxruntime fuses out of several, as optimised model files hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import onnx_ir as ir

from onnxqp.axes import AxisLabels, CannotCouple, Name
from onnxqp.graph import attribute_int
from onnxqp.ops import quantizing
from onnxqp.ops.conv import Conv, couple_conv
from onnxqp.ops.cost import dimension, element_count
from onnxqp.ops.elementwise import Elementwise
from onnxqp.ops.join import join, rank_of, same_shape, tie_axis
from onnxqp.ops.linear import Gemm, product_names
from onnxqp.ops.normalization import Normalization
from onnxqp.ops.operator import Alike, Operator
from onnxqp.specs import Role

_WINDOW = ("kernel_shape", "strides", "pads", "dilations", "auto_pad", "group")


class _Finished(Operator):
    """What onnxruntime has fused already: nothing can be folded into it, refitted behind it or put on integers."""

    def absorb(self, node: ir.Node, affine: object) -> bool:
        return False

    def contraction(self, node: ir.Node) -> None:
        return None

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)

    def plain(self, node: ir.Node) -> bool:
        return False


class FusedConv(_Finished, Conv):
    """As Conv, an activation behind it; what it adds ties with the output channels."""

    op_types: ClassVar[tuple[str, ...]] = ("com.microsoft.FusedConv",)

    def alike(self, node: ir.Node) -> Alike | None:
        return Alike("Conv", (0, 1), _WINDOW)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        couple_conv(node, labels)
        family = labels.family(node.outputs[0], 1)
        if len(node.inputs) > 3 and node.inputs[3] is not None and family is not None:
            tie_axis(labels, node, 3, 1, family.labels)


class FusedGemm(_Finished, Gemm):
    """As Gemm, an activation behind it."""

    op_types: ClassVar[tuple[str, ...]] = ("com.microsoft.FusedGemm",)

    def alike(self, node: ir.Node) -> Alike | None:
        return Alike("Gemm", (0, 1), ("transA", "transB"))


class FusedMatMul(Operator):
    """As MatMul, after transA and transB."""

    op_types: ClassVar[tuple[str, ...]] = ("com.microsoft.FusedMatMul", "com.microsoft.TransposeMatMul")

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        if attribute_int(node, "transBatchA", 0) or attribute_int(node, "transBatchB", 0):
            raise CannotCouple("a product that transposes its batches")
        left, right, output = product_names(*map(rank_of, node.inputs[:2]))
        left, right = _transposed(node, "transA", left), _transposed(node, "transB", right)
        join(labels, node, {0: left, 1: right}, {0: output})
        for index, (names, made) in enumerate(((left, "m"), (right, "n"))):
            if made in names:
                labels.weigh(node, index, produced=names.index(made), consumed=names.index("k"))

    def infer(self, node: ir.Node) -> Sequence[int | str | None] | None:
        first, second = node.inputs[0], node.inputs[1]
        if node.outputs[0].shape is not None or not first or not second or not first.shape or not second.shape:
            return None
        left, right, output = product_names(len(first.shape), len(second.shape))
        left, right = _transposed(node, "transA", left), _transposed(node, "transB", right)
        sizes: dict[Name | None, int | str | None] = {}
        for names, value in ((left, first), (right, second)):
            for name, size in zip(names, value.shape or (), strict=True):
                if sizes.get(name, 1) == 1:
                    sizes[name] = size if isinstance(size, int) else size.value
        return [sizes[name] for name in output]

    def macs(self, node: ir.Node) -> int:
        contracted = -2 if attribute_int(node, "transA", 0) and rank_of(node.inputs[0]) > 1 else -1
        return element_count(node.outputs[0]) * dimension(node.inputs[0], contracted)


class BiasGelu(Elementwise):
    """Channels pass; the bias ties to the last axis."""

    op_types: ClassVar[tuple[str, ...]] = ("com.microsoft.BiasGelu", "com.microsoft.FastGelu")

    def infer(self, node: ir.Node) -> Sequence[int | str | None] | None:
        return same_shape(node)

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class SkipLayerNormalization(Normalization):
    """Both summands, scale and bias tie along the normalised axis; the statistics are those of the kept channels."""

    op_types: ClassVar[tuple[str, ...]] = (
        "com.microsoft.SkipLayerNormalization",
        "com.microsoft.SkipSimplifiedLayerNormalization",
    )
    twins: ClassVar[tuple[int, ...]] = (3,)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        rank = rank_of(node.inputs[0])
        present = [index for index, value in enumerate(node.inputs) if value is not None]
        names = {index: range(rank - rank_of(node.inputs[index]), rank) for index in present}
        moments = [axis if axis < rank - 1 else None for axis in range(rank)]
        outputs: dict[int, Sequence[Name | None]] = {0: range(rank), 1: moments, 2: moments, 3: range(rank)}
        join(labels, node, names, outputs, statistic=[rank - 1])

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class EmbedLayerNormalization(Operator):
    """Columns of all tables tie with scale and bias; rows are looked up at run time and stay."""

    op_types: ClassVar[tuple[str, ...]] = ("com.microsoft.EmbedLayerNormalization",)
    type_from: ClassVar[int] = 2
    twins: ClassVar[tuple[int, ...]] = (2,)

    def alike(self, node: ir.Node) -> Alike | None:
        return Alike("Gather", (2, 0))

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        tables = [index for index in (2, 3, 4) if node.inputs[index] is not None]
        names: dict[int, Sequence[Name | None]] = dict.fromkeys(tables, (None, "hidden"))
        output = (None, None, "hidden")
        join(labels, node, names | {5: ("hidden",), 6: ("hidden",)}, {0: output, 2: output}, statistic=["hidden"])
        for index in tables:
            labels.weigh(node, index, produced=1)

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class OtherProvider(Operator):
    """Pinned: it has no kernel on the CPU, so nothing could be proven, nor gained there."""

    op_types: ClassVar[tuple[str, ...]] = tuple(
        f"com.microsoft.{name}"
        for name in ("NhwcConv", "NhwcFusedConv", "BiasAdd", "BiasSplitGelu", "GroupNorm", "SkipGroupNorm")
    )

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        labels.pin_node(node, f"{node.op_type} has no kernel on the CPU: a cut could not be proven")

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


def _transposed(node: ir.Node, flag: str, names: list[Name | None]) -> list[Name | None]:
    """The names of an operand whose last two axes the node swaps."""
    swaps = attribute_int(node, flag, 0) and len(names) > 1
    return [*names[:-2], names[-1], names[-2]] if swaps else names
