"""Operators that change the shape and keep every element in its row-major place, and Transpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import onnx_ir as ir

from onnxqp.axes import AxisLabels, CannotCouple, Cut
from onnxqp.graph import attribute_ints, constant
from onnxqp.ops import folding
from onnxqp.ops.join import dims_of, movable, rank_of
from onnxqp.ops.operator import Elements, Operator
from onnxqp.ops.reshaping import renumber, reshape_families, restore_order, solve_dimension
from onnxqp.ops.rewrite import set_sizes
from onnxqp.specs import Movement, Role


class Reshape(Operator):
    """Labels are reshaped; a split axis must keep the same number in every block; the shape is rewritten."""

    op_types: ClassVar[tuple[str, ...]] = ("Reshape",)
    moves: ClassVar[bool] = True
    open_shape: ClassVar[bool] = True

    def infer(self, node: ir.Node) -> Sequence[int | str | None] | None:
        return solve_dimension(node.inputs[0], node.outputs[0])

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        value = node.inputs[0]
        if value is not None:
            labels.give(node.outputs[0], reshape_families(node, labels, value, node.outputs[0]))

    def resize(self, node: ir.Node, cut: Cut) -> None:
        """The new sizes; a -1 stays, and a 0 where it still copies the right dimension of the input."""
        sizes = cut.sizes(node.outputs[0])
        literal = constant(node.inputs[1])
        if literal is None:
            set_sizes(node, 1, sizes)
            restore_order(node, cut)
            return
        entering, before, after = cut.sizes(node.inputs[0]), dims_of(node.inputs[0]), dims_of(node.outputs[0])
        for axis, size in enumerate(literal):
            if size == 0:
                copied, wanted = entering.get(axis, before[axis]), sizes.pop(axis, after[axis])
                if copied is not None and wanted is not None and copied != wanted:
                    sizes[axis] = wanted
        set_sizes(node, 1, sizes, keep=(-1,))
        restore_order(node, cut)

    def elements(self, node: ir.Node, known: folding.Known) -> Elements | None:
        return folding.same_elements(node, known)

    def quantization(self, node: ir.Node) -> Role:
        return Movement("Reshape")


class Flatten(Operator):
    """Labels are reshaped, as Reshape."""

    op_types: ClassVar[tuple[str, ...]] = ("Flatten",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        value = node.inputs[0]
        if value is not None:
            labels.give(node.outputs[0], reshape_families(node, labels, value, node.outputs[0]))

    def resize(self, node: ir.Node, cut: Cut) -> None:
        restore_order(node, cut)

    def quantization(self, node: ir.Node) -> Role:
        return Movement("Flatten")


class Squeeze(Operator):
    """Axes are renumbered."""

    op_types: ClassVar[tuple[str, ...]] = ("Squeeze",)
    moves: ClassVar[bool] = True

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        shape = dims_of(node.inputs[0])
        operand = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        removed = attribute_ints(node, "axes") if operand is None else operand
        if removed is None:
            if len(node.inputs) > 1 and node.inputs[1] is not None:
                raise CannotCouple("a Squeeze of axes that are computed")
            removed = [axis for axis, size in enumerate(shape) if size == 1]
        gone = {int(axis) % len(shape) for axis in removed}
        _renumber(node, labels, [axis for axis in range(len(shape)) if axis not in gone])

    def elements(self, node: ir.Node, known: folding.Known) -> Elements | None:
        return folding.same_elements(node, known)

    def quantization(self, node: ir.Node) -> Role:
        return Movement("Squeeze")


class Unsqueeze(Operator):
    """Axes are renumbered."""

    op_types: ClassVar[tuple[str, ...]] = ("Unsqueeze",)
    moves: ClassVar[bool] = True

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        value = node.inputs[0]
        operand = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        added = attribute_ints(node, "axes") if operand is None else operand
        if added is None:
            raise CannotCouple("an Unsqueeze of axes that are computed")
        rank = rank_of(value) + len(added)
        old = [axis for axis in range(rank) if axis not in [int(axis) % rank for axis in added]]
        labels.give(node.outputs[0], renumber(movable(labels, value), dict(enumerate(old))))

    def elements(self, node: ir.Node, known: folding.Known) -> Elements | None:
        return folding.same_elements(node, known)

    def quantization(self, node: ir.Node) -> Role:
        return Movement("Unsqueeze")


class Transpose(Operator):
    """Axes are permuted."""

    op_types: ClassVar[tuple[str, ...]] = ("Transpose",)
    moves: ClassVar[bool] = True

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        order = attribute_ints(node, "perm") or list(reversed(range(rank_of(node.inputs[0]))))
        _renumber(node, labels, order)

    def quantization(self, node: ir.Node) -> Role:
        return Movement("Transpose")


def _renumber(node: ir.Node, labels: AxisLabels, order: list[int]) -> None:
    """Give the output the families of the input, whose axes `order` become its axes."""
    new = {old: axis for axis, old in enumerate(order)}
    labels.give(node.outputs[0], renumber(movable(labels, node.inputs[0]), new))
