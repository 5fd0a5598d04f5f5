"""Convolutions: plain, grouped, depthwise, transposed."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from onnxqp.graph import attribute_int
from onnxqp.ops import folding
from onnxqp.ops.operator import Affine, Operator


class Conv(Operator):
    """Input channels tie to weight axis 1 (group by group), output channels to weight axis 0 and the bias."""

    op_types: ClassVar[tuple[str, ...]] = ("Conv",)

    def absorb(self, node: ir.Node, affine: Affine) -> bool:
        return folding.absorb(node, affine, output_axis=1, weight_axis=0)


class ConvTranspose(Operator):
    """Input channels tie to weight axis 0, output channels to weight axis 1 (group by group) and the bias."""

    op_types: ClassVar[tuple[str, ...]] = ("ConvTranspose",)

    def absorb(self, node: ir.Node, affine: Affine) -> bool:
        return folding.absorb(node, affine, output_axis=1, weight_axis=1, groups=attribute_int(node, "group", 1))
