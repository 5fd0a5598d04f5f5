"""Integer operators of models that are quantized already: cut like the float ones, scales and zero points along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import onnx_ir as ir

from onnxqp.axes import AxisLabels, CannotCouple, Cut, Name, Scale, Zero
from onnxqp.graph import attribute_int
from onnxqp.ops.attention import FusedAttention
from onnxqp.ops.concat import couple_joined
from onnxqp.ops.conv import image_names, resize_groups
from onnxqp.ops.cost import dimension, element_count, recurrent_macs
from onnxqp.ops.elementwise import Elementwise
from onnxqp.ops.grouped import Layer, couple_grouped
from onnxqp.ops.join import dims_of, join, rank_of, same_shape, tie_axis
from onnxqp.ops.linear import product_names
from onnxqp.ops.operator import Alike
from onnxqp.ops.pool import couple_window
from onnxqp.ops.qdq import Quantized, present
from onnxqp.ops.reduce import reduced_axes
from onnxqp.specs import AtRun, Float, Role


class IntegerConv(Quantized):
    """As Conv; scales and zero points of the output channels tie too."""

    op_types: ClassVar[tuple[str, ...]] = ("QLinearConv", "com.microsoft.QLinearConv", "ConvInteger")
    channels_first: ClassVar[bool] = True

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        linear = node.op_type == "QLinearConv"
        weight, along = (3, (4, 5, 8)) if linear else (1, (3,))
        zero, group = (5 if linear else 3), attribute_int(node, "group", 1)
        if attribute_int(node, "channels_last", 0):
            raise CannotCouple("channels last")
        scale = _scale(node, 4, 5, 0) if linear else None
        if group != 1:
            has_zero = Zero(zero, 0 if _many(node, zero) else None) if present(node, zero) else None
            couple_grouped(Layer(node, labels, group, weight, along, scale, has_zero), transposed=False)
            return
        names: dict[int, Sequence[Name | None]] = {0: image_names(node, "in")}
        names[weight] = ["out", "in", *image_names(node, "in")[2:]]
        names |= _vectors(node, along, "out")
        join(labels, node, names, {0: image_names(node, "out")}, zeros={weight: zero})
        labels.weigh(node, weight, produced=0, consumed=1, scale=scale)

    def resize(self, node: ir.Node, cut: Cut) -> None:
        resize_groups(node, cut, 3 if node.op_type == "QLinearConv" else 1)

    def macs(self, node: ir.Node) -> int:
        weight = node.inputs[3 if node.op_type == "QLinearConv" else 1]
        return element_count(node.outputs[0]) * element_count(weight) // dimension(weight, 0)


class IntegerProduct(Quantized):
    """As MatMul; scales and zero points of rows and columns tie too."""

    op_types: ClassVar[tuple[str, ...]] = (
        *("QLinearMatMul", "MatMulInteger", "com.microsoft.MatMulInteger16", "com.microsoft.DynamicQuantizeMatMul"),
    )
    # the second operand; what goes along rows of the first, and along columns of the second; zero points of both
    _PLACES: ClassVar[Mapping[str, tuple[int, Sequence[int], Sequence[int], Mapping[int, int]]]] = {
        "QLinearMatMul": (3, (1, 2), (4, 5), {0: 2, 3: 5}),
        "MatMulInteger": (1, (2,), (3,), {0: 2, 1: 3}),
        "MatMulInteger16": (1, (2,), (3,), {0: 2, 1: 3}),
        "MatMulIntegerToFloat": (1, (2, 4), (3, 5, 6), {0: 4, 1: 5}),
        "DynamicQuantizeMatMul": (1, (), (2, 3, 4), {1: 3}),
    }
    _SCALES: ClassVar[Mapping[str, int]] = {
        "QLinearMatMul": 4,
        "MatMulIntegerToFloat": 3,
        "DynamicQuantizeMatMul": 2,
    }

    def alike(self, node: ir.Node) -> Alike | None:
        return Alike("MatMul", (0, self._PLACES[node.op_type][0]))

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        second, rows, columns, zeros = self._PLACES[node.op_type]
        ranks = rank_of(node.inputs[0]), rank_of(node.inputs[second])
        left, right, output = product_names(*ranks)
        names = {0: left, second: right, **_vectors(node, rows, "m"), **_vectors(node, columns, "n")}
        dynamic = left if node.op_type == "DynamicQuantizeMatMul" else ()
        join(labels, node, names, {0: output}, zeros=zeros, statistic=[name for name in dynamic if name is not None])
        at = self._SCALES.get(node.op_type)
        scale = None if at is None else _scale(node, at, zeros[second], ranks[1] - 1)
        if ranks[1] > 1:
            labels.weigh(node, second, produced=ranks[1] - 1, consumed=ranks[1] - 2, scale=scale)

    def macs(self, node: ir.Node) -> int:
        return element_count(node.outputs[0]) * dimension(node.inputs[0], -1)


class ScaledProduct(IntegerProduct):
    """As MatMul of integers, and the result is float."""

    op_types: ClassVar[tuple[str, ...]] = ("com.microsoft.MatMulIntegerToFloat",)
    type_from: ClassVar[int] = 2


class IntegerGemm(Quantized):
    """As Gemm; scales and zero points of the columns tie too."""

    op_types: ClassVar[tuple[str, ...]] = ("com.microsoft.QGemm",)

    def alike(self, node: ir.Node) -> Alike | None:
        return Alike("Gemm", (0, 3), ("transA", "transB"))

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        left = ("k", "m") if attribute_int(node, "transA", 0) else ("m", "k")
        right = ("n", "k") if attribute_int(node, "transB", 0) else ("k", "n")
        names: dict[int, Sequence[Name | None]] = {0: left, 3: right, **_vectors(node, (4, 5), "n")}
        if present(node, 6):
            names[6] = ("m", "n")[2 - rank_of(node.inputs[6]) :]
        join(labels, node, names, {0: ("m", "n")}, zeros={0: 2, 3: 5})
        place = right.index("n")
        labels.weigh(node, 3, produced=place, consumed=1 - place, scale=_scale(node, 4, 5, place))

    def macs(self, node: ir.Node) -> int:
        return element_count(node.outputs[0]) * dimension(node.inputs[3], 1 if attribute_int(node, "transB", 0) else 0)


class IntegerElementwise(Elementwise):
    """As the float operator: the operands and the output tie."""

    quantized: ClassVar[bool] = True
    pointwise: ClassVar[bool] = False
    op_types: ClassVar[tuple[str, ...]] = (
        *("com.microsoft.QLinearAdd", "com.microsoft.QLinearMul", "com.microsoft.QLinearWhere"),
        *("com.microsoft.QLinearSigmoid", "com.microsoft.QLinearLeakyRelu"),
    )
    _CARRIERS: ClassVar[Mapping[str, Sequence[int]]] = {
        "QLinearAdd": (0, 3),
        "QLinearMul": (0, 3),
        "QLinearWhere": (0, 1, 4),
    }

    def alike(self, node: ir.Node) -> Alike | None:
        places = self.carriers(node)
        return Alike({1: "Relu", 2: "Add", 3: "Where"}[len(places)], places)

    def carriers(self, node: ir.Node) -> Sequence[int]:
        return self._CARRIERS.get(node.op_type, (0,))

    def quantization(self, node: ir.Node) -> Role:
        return Float("quantized already")


class IntegerConcat(Quantized):
    """Labels are concatenated on the axis and tie on all others."""

    op_types: ClassVar[tuple[str, ...]] = ("com.microsoft.QLinearConcat",)
    type_from: ClassVar[int] = 2

    def alike(self, node: ir.Node) -> Alike | None:
        return Alike("Concat", range(2, len(node.inputs), 3), ("axis",))

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        couple_joined(node, labels, range(2, len(node.inputs), 3))


class IntegerSoftmax(Quantized):
    """The normalised axis is pinned, the others pass."""

    op_types: ClassVar[tuple[str, ...]] = ("com.microsoft.QLinearSoftmax",)

    def infer(self, node: ir.Node) -> Sequence[int | str | None] | None:
        return same_shape(node)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        rank = rank_of(node.inputs[0])
        axis = attribute_int(node, "axis", -1) % rank
        flat = attribute_int(node, "opset", 13) < 13  # it then ran over all axes from this one on
        names = [None if i == axis or (flat and i > axis) else i for i in range(rank)]
        join(labels, node, {0: names}, {0: names})


class IntegerPool(Quantized):
    """Channels pass; the axes of space are pinned."""

    op_types: ClassVar[tuple[str, ...]] = (
        "com.microsoft.QLinearAveragePool",
        "com.microsoft.QLinearGlobalAveragePool",
    )
    channels_first: ClassVar[bool] = True

    def alike(self, node: ir.Node) -> Alike | None:
        if attribute_int(node, "channels_last", 0):
            return None
        whole = "Global" in node.op_type
        window = () if whole else ("kernel_shape", "strides", "pads", "auto_pad", "ceil_mode")
        return Alike("GlobalAveragePool" if whole else "AveragePool", (0,), window)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        couple_window(node, labels, channels_last=attribute_int(node, "channels_last", 0) == 1)


class IntegerMean(Quantized):
    """Kept axes pass; the reduced ones are pinned."""

    op_types: ClassVar[tuple[str, ...]] = ("com.microsoft.QLinearReduceMean",)

    def alike(self, node: ir.Node) -> Alike | None:
        return Alike("ReduceMean", (0,), ("axes", "keepdims"))

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        reduced = reduced_axes(node)
        names = [None if axis in reduced else axis for axis in range(rank_of(node.inputs[0]))]
        keep = attribute_int(node, "keepdims", 1) == 1
        join(labels, node, {0: names}, {0: names if keep else [name for name in names if name is not None]})


class IntegerAttention(FusedAttention):
    """As Attention; queries, keys and values lose the same channels, for they are of one size."""

    op_types: ClassVar[tuple[str, ...]] = ("com.microsoft.QAttention",)
    quantized: ClassVar[bool] = True
    type_from: ClassVar[int] = 2
    past: ClassVar[tuple[int, ...]] = (8,)
    equal: ClassVar[bool] = True

    def scale(self, node: ir.Node) -> Scale | None:
        return _scale(node, 4, 7, 1)

    def zero(self, node: ir.Node) -> Zero | None:
        return Zero(7, 1 if _many(node, 7) else None) if present(node, 7) else None

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        super().couple(node, labels)
        weight = node.inputs[1]
        columns = None if weight is None else labels.family(weight, 1)
        for index in present(node, 4, 7):
            if columns is not None and _many(node, index):
                tie_axis(labels, node, index, 0, columns.labels)

    def quantization(self, node: ir.Node) -> Role:
        return Float("quantized already")


class Packed(Quantized):
    """Pinned: its weights are packed in blocks with a scale each, or shared among fused layers."""

    op_types: ClassVar[tuple[str, ...]] = tuple(
        f"com.microsoft.{name}"
        for name in (
            "QEmbedLayerNormalization",
            "MatMulNBits",
            "GatherBlockQuantized",
        )
    )

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        labels.pin_node(node, f"the integer weights of {node.op_type} are packed for the whole layer")


class PackedLSTM(Packed):
    """An LSTM that quantizes what it reads at every inference; pinned like the other packed ones."""

    op_types: ClassVar[tuple[str, ...]] = ("com.microsoft.DynamicQuantizeLSTM",)

    def macs(self, node: ir.Node) -> int:
        return recurrent_macs(node)

    def quantization(self, node: ir.Node) -> Role:
        return AtRun("quantized already")


def _many(node: ir.Node, index: int) -> bool:
    return dims_of(node.inputs[index]) not in ((), (1,))


def _vectors(node: ir.Node, indices: Sequence[int], name: str) -> dict[int, Sequence[Name | None]]:
    """Names for those operands that have a number for each row, column or channel."""
    found: dict[int, Sequence[Name | None]] = {}
    for index in present(node, *indices):
        if rank_of(node.inputs[index]) > 1:
            raise CannotCouple("scales of several axes")
        if _many(node, index):
            found[index] = [name]
    return found


def _scale(node: ir.Node, scale: int, zero: int, axis: int) -> Scale | None:
    """What the integers of a weight stand for."""
    values = [node.inputs[index] if present(node, index) else None for index in (scale, zero)]
    name = None if values[0] is None else values[0].name
    return None if name is None else Scale(name, None if values[1] is None else values[1].name, axis)
