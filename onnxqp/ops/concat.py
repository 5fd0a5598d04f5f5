"""Joining and splitting along an axis."""

from __future__ import annotations

from typing import ClassVar

from onnxqp.ops.operator import Operator


class Concat(Operator):
    """Labels are concatenated on the axis and tie on all others."""

    op_types: ClassVar[tuple[str, ...]] = ("Concat",)


class Split(Operator):
    """Labels are split on the axis, the sizes rewritten; other axes pass."""

    op_types: ClassVar[tuple[str, ...]] = ("Split",)
