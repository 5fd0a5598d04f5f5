"""Convolutions: plain, grouped, depthwise, transposed."""

from __future__ import annotations

from typing import ClassVar

from onnxqp.ops.operator import Operator


class Conv(Operator):
    """Input channels tie to weight axis 1 (group by group), output channels to weight axis 0 and the bias."""

    op_types: ClassVar[tuple[str, ...]] = ("Conv",)


class ConvTranspose(Operator):
    """Input channels tie to weight axis 0, output channels to weight axis 1 (group by group) and the bias."""

    op_types: ClassVar[tuple[str, ...]] = ("ConvTranspose",)
