"""Padding and repeating."""

from __future__ import annotations

from typing import ClassVar

from onnxqp.ops.operator import Operator


class Pad(Operator):
    """Padded positions get labels of their own; the amounts are rewritten to what is kept of them."""

    op_types: ClassVar[tuple[str, ...]] = ("Pad",)


class Expand(Operator):
    """Labels pass where the axis is not repeated; the shape is rewritten."""

    op_types: ClassVar[tuple[str, ...]] = ("Expand",)


class Tile(Operator):
    """Labels are repeated with the elements."""

    op_types: ClassVar[tuple[str, ...]] = ("Tile",)
