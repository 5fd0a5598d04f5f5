"""Static int8 quantization: annotate, calibrate, decide, insert, verify."""

from __future__ import annotations

from onnxqp.quantize.passes import QuantizeResult, observe_model, plan_quantization, quantize_model
from onnxqp.quantize.preparation import FEW

__all__ = ["FEW", "QuantizeResult", "observe_model", "plan_quantization", "quantize_model"]
