"""Operators of models that are quantized already."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from onnxqp.ops.operator import Operator
from onnxqp.specs import Float, Role


class _Quantized(Operator):
    quantized: ClassVar[bool] = True

    def quantization(self, node: ir.Node) -> Role:
        return Float("quantized already")


class Dequantize(_Quantized):
    """Rebuilds floats from integers: folding it would undo the quantization of a weight."""

    op_types: ClassVar[tuple[str, ...]] = ("QuantizeLinear", "DequantizeLinear")

    def folds(self, node: ir.Node) -> bool:
        return False


class IntegerKernel(_Quantized):
    """Computes on integers: pinned, as nothing is known of the scales on the way."""

    op_types: ClassVar[tuple[str, ...]] = (
        *("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"),
        *(
            f"com.microsoft.{name}"
            for name in (
                *("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearAdd", "QLinearMul", "QLinearConcat"),
                *("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "QLinearWhere", "QLinearReduceMean"),
                *("QLinearAveragePool", "QLinearGlobalAveragePool", "QGemm", "QAttention", "QEmbedLayerNormalization"),
                *("MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulInteger16"),
                *("MatMulNBits", "GatherBlockQuantized"),
            )
        ),
    )
