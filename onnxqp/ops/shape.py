"""Operators that change the shape and keep every element in its row-major place, and Transpose."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from onnxqp.ops import folding
from onnxqp.ops.operator import Elements, Operator


class Reshape(Operator):
    """Labels are reshaped; a split axis must keep the same number in every block; the shape is rewritten."""

    op_types: ClassVar[tuple[str, ...]] = ("Reshape",)

    def elements(self, node: ir.Node, known: folding.Known) -> Elements | None:
        return folding.same_elements(node, known)


class Flatten(Operator):
    """Labels are reshaped, as Reshape."""

    op_types: ClassVar[tuple[str, ...]] = ("Flatten",)


class Squeeze(Operator):
    """Axes are renumbered."""

    op_types: ClassVar[tuple[str, ...]] = ("Squeeze",)

    def elements(self, node: ir.Node, known: folding.Known) -> Elements | None:
        return folding.same_elements(node, known)


class Unsqueeze(Operator):
    """Axes are renumbered."""

    op_types: ClassVar[tuple[str, ...]] = ("Unsqueeze",)

    def elements(self, node: ir.Node, known: folding.Known) -> Elements | None:
        return folding.same_elements(node, known)


class Transpose(Operator):
    """Axes are permuted."""

    op_types: ClassVar[tuple[str, ...]] = ("Transpose",)
