"""Operators that work element by element, with numpy broadcasting."""

from __future__ import annotations

import operator
from typing import ClassVar

import onnx_ir as ir

from onnxqp.graph import constant
from onnxqp.ops import folding
from onnxqp.ops.operator import Affine, Elements, Operator


class Elementwise(Operator):
    """Every axis ties over all operands and the output, aligned from the right; axes of size 1 stay out."""


class Relu(Elementwise):
    """Channels pass."""

    op_types: ClassVar[tuple[str, ...]] = ("Relu",)


class Clip(Elementwise):
    """Channels pass; the bounds are scalars."""

    op_types: ClassVar[tuple[str, ...]] = ("Clip",)


class LeakyRelu(Elementwise):
    """Channels pass."""

    op_types: ClassVar[tuple[str, ...]] = ("LeakyRelu",)


class Sigmoid(Elementwise):
    """Channels pass."""

    op_types: ClassVar[tuple[str, ...]] = ("Sigmoid",)


class HardSigmoid(Elementwise):
    """Channels pass."""

    op_types: ClassVar[tuple[str, ...]] = ("HardSigmoid",)


class HardSwish(Elementwise):
    """Channels pass."""

    op_types: ClassVar[tuple[str, ...]] = ("HardSwish",)


class Tanh(Elementwise):
    """Channels pass."""

    op_types: ClassVar[tuple[str, ...]] = ("Tanh",)


class Gelu(Elementwise):
    """Channels pass."""

    op_types: ClassVar[tuple[str, ...]] = ("Gelu", "Erf", "com.microsoft.Gelu", "com.microsoft.QuickGelu")


class Unary(Elementwise):
    """A function of one element: channels pass."""

    op_types: ClassVar[tuple[str, ...]] = (
        *("Elu", "Selu", "Celu", "ThresholdedRelu", "Shrink", "Swish", "Mish", "Softplus", "Softsign"),
        *("Exp", "Log", "Sqrt", "Reciprocal", "Abs", "Neg", "Sign", "Floor", "Ceil", "Round"),
        *("Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"),
        *("IsNaN", "IsInf", "Not", "BitwiseNot"),
    )


class Identity(Elementwise):
    """Channels pass, elements unchanged."""

    op_types: ClassVar[tuple[str, ...]] = ("Identity", "Dropout")

    def passes_through(self, node: ir.Node) -> bool:
        training = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        return len(node.inputs) < 3 or node.inputs[2] is None or (training is not None and not training.any())


class Cast(Elementwise):
    """Channels pass, the element type changes."""

    op_types: ClassVar[tuple[str, ...]] = ("Cast", "CastLike")

    def folds(self, node: ir.Node) -> bool:
        """Not from small integers: that is a weight kept in int8, which the runtime rebuilds when it loads."""
        source = node.inputs[0]
        return source is None or source.dtype is None or source.dtype.bitwidth > 8 or source.dtype == ir.DataType.BOOL

    def elements(self, node: ir.Node, known: folding.Known) -> Elements | None:
        return folding.same_elements(node, known)


class Add(Elementwise):
    """Both operands and the output tie."""

    op_types: ClassVar[tuple[str, ...]] = ("Add",)

    def affine(self, node: ir.Node) -> Affine | None:
        return folding.binary_affine(node, scales=False)

    def elements(self, node: ir.Node, known: folding.Known) -> Elements | None:
        return folding.arithmetic_elements(node, known, operator.add)


class Mul(Elementwise):
    """Both operands and the output tie."""

    op_types: ClassVar[tuple[str, ...]] = ("Mul",)

    def affine(self, node: ir.Node) -> Affine | None:
        return folding.binary_affine(node, scales=True)

    def elements(self, node: ir.Node, known: folding.Known) -> Elements | None:
        return folding.arithmetic_elements(node, known, operator.mul)


class Binary(Elementwise):
    """Both operands and the output tie."""

    op_types: ClassVar[tuple[str, ...]] = (
        "Sub",
        "Div",
        "Pow",
        "Mod",
        "BitShift",
        "BitwiseAnd",
        "BitwiseOr",
        "BitwiseXor",
    )


class Comparison(Elementwise):
    """Both operands and the output, which is boolean, tie."""

    op_types: ClassVar[tuple[str, ...]] = (
        *("And", "Or", "Xor"),
        *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
    )


class Variadic(Elementwise):
    """All operands and the output tie."""

    op_types: ClassVar[tuple[str, ...]] = ("Max", "Min", "Sum", "Mean")


class Where(Elementwise):
    """Condition, both branches and the output tie."""

    op_types: ClassVar[tuple[str, ...]] = ("Where",)


class PRelu(Elementwise):
    """The slope ties to the input; a slope of size 1 is shared by all channels and stays."""

    op_types: ClassVar[tuple[str, ...]] = ("PRelu",)
