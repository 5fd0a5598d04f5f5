"""Operators of models that are quantized already."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from onnxqp.ops.operator import Operator


class Dequantize(Operator):
    """Rebuilds floats from integers: folding it would undo the quantization of a weight."""

    op_types: ClassVar[tuple[str, ...]] = ("QuantizeLinear", "DequantizeLinear")

    def folds(self, node: ir.Node) -> bool:
        return False
