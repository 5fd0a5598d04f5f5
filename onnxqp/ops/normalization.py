"""Normalisation layers."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from onnxqp.ops import folding
from onnxqp.ops.operator import Affine, Operator


class BatchNormalization(Operator):
    """Channels tie to scale, bias, mean and variance."""

    op_types: ClassVar[tuple[str, ...]] = ("BatchNormalization",)

    def affine(self, node: ir.Node) -> Affine | None:
        return folding.batch_norm_affine(node)


class InstanceNormalization(Operator):
    """Channels tie to scale and bias; a cut spatial axis has its statistics over the kept elements."""

    op_types: ClassVar[tuple[str, ...]] = ("InstanceNormalization",)


class LayerNormalization(Operator):
    """Normalised axes tie to scale and bias; the statistics are those of the kept channels."""

    op_types: ClassVar[tuple[str, ...]] = (
        "LayerNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
    )


class GroupNormalization(Operator):
    """Channels tie to scale and bias, every group keeps as many; the statistics are those of the kept channels."""

    op_types: ClassVar[tuple[str, ...]] = ("GroupNormalization",)


class LpNormalization(Operator):
    """Channels pass; the norm is that of the kept channels."""

    op_types: ClassVar[tuple[str, ...]] = ("LpNormalization", "MeanVarianceNormalization")


class LRN(Operator):
    """The channel axis is pinned: each output looks at neighbouring channels."""

    op_types: ClassVar[tuple[str, ...]] = ("LRN",)
