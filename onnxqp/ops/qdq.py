"""Quantizing and dequantizing: channels pass to scales and zero points, and weights are cut as they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.axes import AxisLabels, CannotCouple, Family, Name
from onnxqp.graph import attribute_int, constant
from onnxqp.ops.elementwise import hand_down
from onnxqp.ops.join import channel_labels, dims_of, join, rank_of, same_shape
from onnxqp.ops.operator import Operator
from onnxqp.specs import Float, Role


class Quantized(Operator):
    """Of a model that is quantized already."""

    quantized: ClassVar[bool] = True

    def quantization(self, node: ir.Node) -> Role:
        return Float("quantized already")


class Quantize(Quantized):
    """Channels pass to scales and zero points."""

    op_types: ClassVar[tuple[str, ...]] = ("QuantizeLinear", "com.microsoft.QuantizeLinear")
    type_from: ClassVar[int] = 2
    keeps_axes: ClassVar[bool] = True
    rebuilds: ClassVar[bool] = True

    def infer(self, node: ir.Node) -> Sequence[int | str | None] | None:
        return same_shape(node)

    def folds(self, node: ir.Node) -> bool:
        """Folding it would undo the quantization of a weight."""
        return False

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        rank = rank_of(node.inputs[0])
        names: dict[int, Sequence[Name | None]] = {0: range(rank)}
        for index in present(node, 1, 2):
            if rank_of(node.inputs[index]) > 1:
                raise CannotCouple("a scale for each block of an activation")
            names[index] = [_axis(node)] * rank_of(node.inputs[index])
        join(labels, node, names, {0: range(rank)})

    def settle(self, node: ir.Node, labels: AxisLabels) -> None:
        for index in present(node, 0, 1, 2):
            value = node.inputs[index]
            assert value is not None
            if rank_of(value) == rank_of(node.outputs[0]):
                hand_down(labels, node, value, self._tie_blocks(node, labels, value) if index else ())
            elif rank_of(value) == 1 and (family := labels.family(node.outputs[0], _axis(node))) is not None:
                labels.adopt(value, Family((0,), labels.coarsen(family, (_axis(node),)).labels))

    def _tie_blocks(self, node: ir.Node, labels: AxisLabels, scale: ir.Value) -> list[int]:
        """Blocks of one scale each go as a whole, with their scale: left ones would not fill up again.

        Returns the axes that are cut in blocks.
        """
        found = []
        for axis, (few, many) in enumerate(zip(dims_of(scale), dims_of(node.outputs[0]), strict=True)):
            if few is None or many is None or few in (1, many):
                continue
            found.append(axis)
            channels = channel_labels(labels, node.outputs[0], axis)
            if channels is not None:
                first = channels[:: -(-many // few)]
                labels.tie(channels, np.repeat(first, -(-many // few))[:many])
                labels.adopt(scale, Family((axis,), first))
        return found

    def rebuild(self, node: ir.Node, operands: Sequence[npt.NDArray[Any] | None]) -> npt.NDArray[Any]:
        array, scale, zero = _operands(operands, node)
        return np.asarray(np.rint(array / scale) + zero)


class Dequantize(Quantize):
    """Channels pass to scales and zero points; a weight is cut as it is stored, in integers."""

    op_types: ClassVar[tuple[str, ...]] = ("DequantizeLinear", "com.microsoft.DequantizeLinear")
    type_from: ClassVar[int] = 1

    def rebuild(self, node: ir.Node, operands: Sequence[npt.NDArray[Any] | None]) -> npt.NDArray[Any]:
        array, scale, zero = _operands(operands, node)
        return np.asarray((array.astype(np.float32) - zero) * scale)

    def blank(self, node: ir.Node) -> npt.NDArray[Any] | None:
        array, zero = constant(node.inputs[0]), constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(())
        if array is None or zero is None:
            return None
        return _shown(zero, array, node).astype(array.dtype)


class DynamicQuantize(Quantized):
    """Channels pass; the range is that of the kept channels."""

    op_types: ClassVar[tuple[str, ...]] = ("DynamicQuantizeLinear",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        names = range(rank_of(node.inputs[0]))
        join(labels, node, {0: names}, {0: names}, statistic=names)


def present(node: ir.Node, *indices: int) -> list[int]:
    """Those of the inputs that are there."""
    return [index for index in indices if index < len(node.inputs) and node.inputs[index] is not None]


def _axis(node: ir.Node) -> int:
    rank = rank_of(node.inputs[0])
    return attribute_int(node, "axis", 1) % rank if rank else 0


def _operands(operands: Sequence[npt.NDArray[Any] | None], node: ir.Node) -> list[npt.NDArray[Any]]:
    """Elements, scale and zero point, which broadcast."""
    array, scale, zero = (*operands, None)[:3]
    if array is None or scale is None:
        raise ValueError(f"{node.name} has no scale")
    return [array, *(_shown(each, array, node) for each in (scale, np.zeros(()) if zero is None else zero))]


def _shown(each: npt.NDArray[Any], array: npt.NDArray[Any], node: ir.Node) -> npt.NDArray[Any]:
    """A scale or zero point, for all, for each channel or for each block, as it broadcasts against the elements."""
    plain = each.astype(np.float32)
    if plain.ndim == array.ndim:
        for axis, (few, many) in enumerate(zip(plain.shape, array.shape, strict=True)):
            if few not in (1, many):
                plain = np.repeat(plain, -(-many // few), axis=axis).take(range(many), axis=axis)
        return plain
    if plain.size == 1:
        return plain.reshape(-1)[:1].reshape(())
    axis = attribute_int(node, "axis", 1) % array.ndim
    return plain.reshape([-1 if n == axis else 1 for n in range(array.ndim)])
