"""Operators whose output depends on shapes alone, or on nothing."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from onnxqp.ops import folding
from onnxqp.ops.operator import Elements, Operator


class Shape(Operator):
    """Reads a shape: arithmetic that follows keeps the original numbers, shape operands are rewritten where used."""

    op_types: ClassVar[tuple[str, ...]] = ("Shape",)

    def elements(self, node: ir.Node, known: folding.Known) -> Elements | None:
        return folding.shape_elements(node)


class Size(Operator):
    """Counts elements: its operand is pinned."""

    op_types: ClassVar[tuple[str, ...]] = ("Size",)


class ConstantOfShape(Operator):
    """A filled tensor: labels of its own on every axis, the shape is rewritten."""

    op_types: ClassVar[tuple[str, ...]] = ("ConstantOfShape",)


class Range(Operator):
    """A sequence of numbers, never cut."""

    op_types: ClassVar[tuple[str, ...]] = ("Range",)
