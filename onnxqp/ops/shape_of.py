"""Operators whose output depends on shapes alone, or on nothing."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from onnxqp.axes import AxisLabels, Cut, Family
from onnxqp.graph import attribute_int, dims
from onnxqp.ops import folding
from onnxqp.ops.operator import Elements, Operator
from onnxqp.ops.rewrite import restore_elements, set_sizes


class Shape(Operator):
    """Reads a shape: arithmetic that follows keeps the original numbers, shape operands are rewritten where used."""

    op_types: ClassVar[tuple[str, ...]] = ("Shape",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        """Ties nothing: what reads the shape goes on seeing the original numbers."""

    def resize(self, node: ir.Node, cut: Cut) -> None:
        """Arithmetic on a shape (1 / sqrt(d), C * H * W) must not change; users of sizes are rewritten themselves."""
        shape = dims(node.inputs[0]) or ()
        window = range(len(shape))[attribute_int(node, "start", 0) : attribute_int(node, "end", len(shape))]
        changed = cut.sizes(node.inputs[0])
        restore_elements(node, {axis - window.start: shape[axis] or 0 for axis in changed if axis in window})

    def elements(self, node: ir.Node, known: folding.Known) -> Elements | None:
        return folding.shape_elements(node)


class Size(Operator):
    """Counts elements: its operand is pinned."""

    op_types: ClassVar[tuple[str, ...]] = ("Size",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        labels.pin_node(node, "its elements are counted")


class ConstantOfShape(Operator):
    """A filled tensor: labels of its own on every axis, the shape is rewritten."""

    op_types: ClassVar[tuple[str, ...]] = ("ConstantOfShape",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        output = node.outputs[0]
        if output.dtype is not ir.DataType.INT64:
            wide = [(axis, size) for axis, size in enumerate(dims(output) or ()) if size is not None and size > 1]
            labels.give(output, [Family((axis,), labels.fresh(size)) for axis, size in wide])

    def resize(self, node: ir.Node, cut: Cut) -> None:
        set_sizes(node, 0, cut.sizes(node.outputs[0]))


class Range(Operator):
    """A sequence of numbers, never cut."""

    op_types: ClassVar[tuple[str, ...]] = ("Range",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        labels.pin_node(node, "numbers are counted")
