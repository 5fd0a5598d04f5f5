"""Joining and splitting along an axis."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from onnxqp.ops import folding
from onnxqp.ops.operator import Elements, Operator


class Concat(Operator):
    """Labels are concatenated on the axis and tie on all others."""

    op_types: ClassVar[tuple[str, ...]] = ("Concat",)

    def elements(self, node: ir.Node, known: folding.Known) -> Elements | None:
        return folding.concat_elements(node, known)


class Split(Operator):
    """Labels are split on the axis, the sizes rewritten; other axes pass."""

    op_types: ClassVar[tuple[str, ...]] = ("Split",)
