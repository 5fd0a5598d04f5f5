"""Pooling."""

from __future__ import annotations

from typing import ClassVar

from onnxqp.ops.operator import Operator


class MaxPool(Operator):
    """Channels pass; pinned when the Indices output, which counts across channels, is used."""

    op_types: ClassVar[tuple[str, ...]] = ("MaxPool",)


class AveragePool(Operator):
    """Channels pass."""

    op_types: ClassVar[tuple[str, ...]] = ("AveragePool", "LpPool")


class GlobalAveragePool(Operator):
    """Channels pass, spatial axes become 1."""

    op_types: ClassVar[tuple[str, ...]] = ("GlobalAveragePool", "GlobalLpPool")


class GlobalMaxPool(Operator):
    """Channels pass, spatial axes become 1."""

    op_types: ClassVar[tuple[str, ...]] = ("GlobalMaxPool",)
