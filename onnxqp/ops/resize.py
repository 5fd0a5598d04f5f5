"""Resampling, and moving elements between space and channels."""

from __future__ import annotations

from typing import ClassVar

from onnxqp.ops.operator import Operator


class Resize(Operator):
    """Axes of unchanged size pass, `sizes` are rewritten; resampled axes are pinned."""

    op_types: ClassVar[tuple[str, ...]] = ("Resize", "Upsample")


class DepthToSpace(Operator):
    """The input channels that become one output channel tie."""

    op_types: ClassVar[tuple[str, ...]] = ("DepthToSpace",)


class SpaceToDepth(Operator):
    """The output channels that come from one input channel tie."""

    op_types: ClassVar[tuple[str, ...]] = ("SpaceToDepth",)
