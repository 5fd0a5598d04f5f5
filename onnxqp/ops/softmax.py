"""Softmax and its like."""

from __future__ import annotations

from typing import ClassVar

from onnxqp.ops.operator import Operator


class Softmax(Operator):
    """The normalised axis is pinned, the others pass."""

    op_types: ClassVar[tuple[str, ...]] = ("Softmax", "LogSoftmax", "Hardmax")
