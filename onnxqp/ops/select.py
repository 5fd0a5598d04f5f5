"""Selecting elements along an axis."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from onnxqp.graph import attribute_int, dims
from onnxqp.ops import folding
from onnxqp.ops.operator import Elements, Operator


class Slice(Operator):
    """Labels are sliced, the bounds rewritten; replaced by Gather when what is kept is no range."""

    op_types: ClassVar[tuple[str, ...]] = ("Slice",)

    def elements(self, node: ir.Node, known: folding.Known) -> Elements | None:
        return folding.slice_elements(node, known)


class Gather(Operator):
    """With constant indices labels are taken and the indices renumbered; with dynamic ones the axis is pinned."""

    op_types: ClassVar[tuple[str, ...]] = ("Gather",)

    def elements(self, node: ir.Node, known: folding.Known) -> Elements | None:
        return folding.gather_elements(node, known)

    def index_limit(self, node: ir.Node, index: int) -> int | None:
        table = dims(node.inputs[0])
        axis = attribute_int(node, "axis", 0)
        return table[axis] if index == 1 and table is not None and table else None
