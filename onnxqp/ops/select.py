"""Selecting elements along an axis."""

from __future__ import annotations

from typing import ClassVar

from onnxqp.ops.operator import Operator


class Slice(Operator):
    """Labels are sliced, the bounds rewritten; replaced by Gather when what is kept is no range."""

    op_types: ClassVar[tuple[str, ...]] = ("Slice",)


class Gather(Operator):
    """With constant indices labels are taken and the indices renumbered; with dynamic ones the axis is pinned."""

    op_types: ClassVar[tuple[str, ...]] = ("Gather",)
