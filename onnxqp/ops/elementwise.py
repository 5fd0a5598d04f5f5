"""Operators that work element by element, with numpy broadcasting."""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.axes import AxisLabels, Name
from onnxqp.graph import attribute_int, constant, is_constant
from onnxqp.ops import folding, quantizing
from onnxqp.ops.join import dims_of, join, rank_of, same_shape
from onnxqp.ops.operator import Affine, Elements, Operator
from onnxqp.specs import Activation, Compute, Float, Movement, Role


class Elementwise(Operator):
    """Every axis ties over all operands and the output, aligned from the right; axes of size 1 stay out."""

    keeps_axes: ClassVar[bool] = True
    pointwise: ClassVar[bool] = True
    operands: ClassVar[int | None] = None  # how many inputs carry elements; None: all of them

    def infer(self, node: ir.Node) -> Sequence[int | str | None] | None:
        """Functions of one input keep its shape; onnx does not know those outside its own domain."""
        return same_shape(node) if self.operands == 1 else None

    def carriers(self, node: ir.Node) -> Sequence[int]:
        """The inputs that carry elements."""
        return range(len(node.inputs[: self.operands]))

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        carriers = [index for index in self.carriers(node) if node.inputs[index] is not None]
        rank = max(rank_of(node.inputs[index]) for index in carriers)
        names = {index: range(rank - rank_of(node.inputs[index]), rank) for index in carriers}
        join(labels, node, names, dict.fromkeys(range(len(node.outputs)), range(rank)))

    def settle(self, node: ir.Node, labels: AxisLabels) -> None:
        for value in node.inputs[: self.operands]:
            if value is not None:
                hand_down(labels, node, value)


class Arithmetic(Elementwise):
    """A function of two operands that numpy has too."""

    rebuilds: ClassVar[bool] = True
    function: ClassVar[np.ufunc]

    def rebuild(self, node: ir.Node, operands: Sequence[npt.NDArray[Any] | None]) -> npt.NDArray[Any]:
        return np.asarray(self.function(*operands))


def hand_down(labels: AxisLabels, node: ir.Node, value: ir.Value, but: Collection[int] = ()) -> None:
    """The labels of output 0, on those axes that an operand, aligned from the right, has too; `but` not on these."""
    shape, output = dims_of(value), node.outputs[0]
    shift = rank_of(output) - len(shape)
    axis_of: dict[Name, Name] = {axis + shift: axis for axis, size in enumerate(shape) if size != 1 and axis not in but}
    for family in labels.families(output):
        if family.inner in axis_of:
            labels.adopt(value, labels.coarsen(family, axis_of).renamed(axis_of))


class Relu(Elementwise):
    """Channels pass."""

    op_types: ClassVar[tuple[str, ...]] = ("Relu",)

    operands: ClassVar[int | None] = 1

    def quantization(self, node: ir.Node) -> Role:
        return Activation(0.0, None)


class Clip(Elementwise):
    """Channels pass; the bounds are scalars."""

    op_types: ClassVar[tuple[str, ...]] = ("Clip",)

    operands: ClassVar[int | None] = 1

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.clip_role(node)


class LeakyRelu(Elementwise):
    """Channels pass."""

    op_types: ClassVar[tuple[str, ...]] = ("LeakyRelu",)
    homogeneous: ClassVar[bool] = True

    operands: ClassVar[int | None] = 1

    def quantization(self, node: ir.Node) -> Role:
        return Compute("LeakyRelu", (0,))


class Sigmoid(Elementwise):
    """Channels pass."""

    op_types: ClassVar[tuple[str, ...]] = ("Sigmoid",)

    operands: ClassVar[int | None] = 1

    def quantization(self, node: ir.Node) -> Role:
        return Compute("Sigmoid", (0,), low=0.0, high=1.0)


class HardSigmoid(Elementwise):
    """Channels pass."""

    op_types: ClassVar[tuple[str, ...]] = ("HardSigmoid",)

    operands: ClassVar[int | None] = 1

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class HardSwish(Elementwise):
    """Channels pass."""

    op_types: ClassVar[tuple[str, ...]] = ("HardSwish",)

    operands: ClassVar[int | None] = 1

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class Tanh(Elementwise):
    """Channels pass."""

    op_types: ClassVar[tuple[str, ...]] = ("Tanh",)

    operands: ClassVar[int | None] = 1

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class Gelu(Elementwise):
    """Channels pass."""

    op_types: ClassVar[tuple[str, ...]] = ("Gelu", "Erf", "com.microsoft.Gelu", "com.microsoft.QuickGelu")

    operands: ClassVar[int | None] = 1

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class Unary(Elementwise):
    """A function of one element: channels pass."""

    op_types: ClassVar[tuple[str, ...]] = (
        *("Elu", "Selu", "Celu", "ThresholdedRelu", "Shrink", "Swish", "Mish", "Softplus", "Softsign"),
        *("Exp", "Log", "Sqrt", "Reciprocal", "Abs", "Neg", "Sign", "Floor", "Ceil", "Round"),
        *("Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"),
        *("IsNaN", "IsInf", "Not", "BitwiseNot"),
    )

    operands: ClassVar[int | None] = 1

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class Identity(Elementwise):
    """Channels pass, elements unchanged."""

    op_types: ClassVar[tuple[str, ...]] = ("Identity", "Dropout")
    moves: ClassVar[bool] = True

    operands: ClassVar[int | None] = 1

    def passes_through(self, node: ir.Node) -> bool:
        training = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        return len(node.inputs) < 3 or node.inputs[2] is None or (training is not None and not training.any())

    def quantization(self, node: ir.Node) -> Role:
        return Movement("Reshape")


class Cast(Elementwise):
    """Channels pass, the element type changes."""

    op_types: ClassVar[tuple[str, ...]] = ("Cast", "CastLike")

    operands: ClassVar[int | None] = 1
    rebuilds: ClassVar[bool] = True
    pointwise: ClassVar[bool] = False  # what rounding to another type makes of an element is no smooth function

    def passes_through(self, node: ir.Node) -> bool:
        source = node.inputs[0]
        return source is not None and source.dtype is not None and source.dtype == node.outputs[0].dtype

    def quantization(self, node: ir.Node) -> Role:
        return Float("a change of type is no arithmetic")

    def folds(self, node: ir.Node) -> bool:
        """Not from stored small integers: a weight in int8 or int16, which the runtime rebuilds when it loads.

        Indices are no weights: what four bits look up is folded to the integers that it stands for.
        """
        source = node.inputs[0]
        return (
            source is None
            or not is_constant(source)
            or source.dtype not in (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16)
            or attribute_int(node, "to", ir.DataType.FLOAT) in (ir.DataType.INT32, ir.DataType.INT64)
        )

    def elements(self, node: ir.Node, known: folding.Known) -> Elements | None:
        return folding.same_elements(node, known)

    def rebuild(self, node: ir.Node, operands: Sequence[npt.NDArray[Any] | None]) -> npt.NDArray[Any]:
        like = operands[1] if len(operands) > 1 else None
        to = ir.DataType(attribute_int(node, "to", ir.DataType.FLOAT)).numpy() if like is None else like.dtype
        return np.asarray(operands[0]).astype(to)


class Add(Arithmetic):
    """Both operands and the output tie."""

    op_types: ClassVar[tuple[str, ...]] = ("Add",)
    function: ClassVar[np.ufunc] = np.add

    def affine(self, node: ir.Node) -> Affine | None:
        return folding.binary_affine(node, scales=False)

    def summands(self, node: ir.Node) -> tuple[int, ...]:
        return (0, 1)

    def elements(self, node: ir.Node, known: folding.Known) -> Elements | None:
        return folding.arithmetic_elements(node, known, operator.add)

    def quantization(self, node: ir.Node) -> Role:
        return Compute("Add", (0, 1))


class Mul(Arithmetic):
    """Both operands and the output tie."""

    op_types: ClassVar[tuple[str, ...]] = ("Mul",)
    function: ClassVar[np.ufunc] = np.multiply

    def affine(self, node: ir.Node) -> Affine | None:
        return folding.binary_affine(node, scales=True)

    def elements(self, node: ir.Node, known: folding.Known) -> Elements | None:
        return folding.arithmetic_elements(node, known, operator.mul)

    def quantization(self, node: ir.Node) -> Role:
        return Compute("Mul", (0, 1))


class Binary(Elementwise):
    """Both operands and the output tie."""

    op_types: ClassVar[tuple[str, ...]] = ("Pow", "Mod", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor")

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class Sub(Arithmetic):
    """Both operands and the output tie."""

    op_types: ClassVar[tuple[str, ...]] = ("Sub",)
    function: ClassVar[np.ufunc] = np.subtract

    def affine(self, node: ir.Node) -> Affine | None:
        return folding.inverse_affine(node, scales=False)

    def quantization(self, node: ir.Node) -> Role:
        """x - c is x + (-c), for which there is an integer kernel."""
        return quantizing.inverse_role(node, "Add")

    def lower(self, node: ir.Node) -> None:
        quantizing.invert(node, "Add", np.negative)


class Div(Arithmetic):
    """Both operands and the output tie."""

    op_types: ClassVar[tuple[str, ...]] = ("Div",)
    function: ClassVar[np.ufunc] = np.divide

    def affine(self, node: ir.Node) -> Affine | None:
        return folding.inverse_affine(node, scales=True)

    def quantization(self, node: ir.Node) -> Role:
        """x / c is x * (1 / c), for which there is an integer kernel."""
        return quantizing.inverse_role(node, "Mul")

    def lower(self, node: ir.Node) -> None:
        quantizing.invert(node, "Mul", np.reciprocal)


class Comparison(Elementwise):
    """Both operands and the output, which is boolean, tie."""

    op_types: ClassVar[tuple[str, ...]] = (
        *("And", "Or", "Xor"),
        *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
    )


class Variadic(Elementwise):
    """All operands and the output tie."""

    op_types: ClassVar[tuple[str, ...]] = ("Max", "Min", "Mean")

    def plain(self, node: ir.Node) -> bool:
        """A Sum of two is an Add, for which there is an integer kernel."""
        if node.op_type != "Sum" or len(node.inputs) != 2:
            return False
        node.op_type = "Add"
        return True

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class Sum(Variadic):
    """All operands and the output tie."""

    op_types: ClassVar[tuple[str, ...]] = ("Sum",)

    def summands(self, node: ir.Node) -> tuple[int, ...]:
        return tuple(range(len(node.inputs)))


class Where(Elementwise):
    """Condition, both branches and the output tie."""

    op_types: ClassVar[tuple[str, ...]] = ("Where",)

    def quantization(self, node: ir.Node) -> Role:
        return Compute("Where", (1, 2), copies=True)


class PRelu(Elementwise):
    """The slope ties to the input; a slope of size 1 is shared by all channels and stays."""

    op_types: ClassVar[tuple[str, ...]] = ("PRelu",)
    homogeneous: ClassVar[bool] = True

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)
