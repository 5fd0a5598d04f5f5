"""Raise old opsets to one that quantization can use."""

from __future__ import annotations

import onnx.version_converter
import onnx_ir as ir

from onnxqp.normalize.light import LOWEST_IR, light_proto
from onnxqp.specs import Note

PER_CHANNEL_OPSET = 13  # DequantizeLinear got its `axis` there
RAISED_OPSET = 17


def raise_opset(model: ir.Model) -> list[Note]:
    """Convert a model below opset 13 to opset 17 in place; what is newer stays as it is."""
    old = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
    if old >= PER_CHANNEL_OPSET:
        model.ir_version = max(model.ir_version, LOWEST_IR)
        return []
    subject = model.graph.name or "graph"
    try:
        converted = ir.from_proto(onnx.version_converter.convert_version(light_proto(model), RAISED_OPSET))
    except Exception as err:  # the converter raises RuntimeError and its own kinds for any operator it does not know
        return [Note("normalize", subject, "", f"opset {old} could not be raised: {str(err).splitlines()[0][:160]}")]
    weights = {name: value.const_value for name, value in model.graph.initializers.items()}
    for name, value in list(converted.graph.initializers.items()):
        if name in weights:
            value.const_value = weights[name]
    kept = [value for value in converted.graph.inputs if value.name not in weights]
    for value in [value for value in converted.graph.inputs if value.name in weights]:
        value.const_value = weights[value.name or ""]
    lifted = [value for value in converted.graph.inputs if value.name in weights]
    converted.graph.inputs.clear()
    converted.graph.inputs.extend(kept)
    for value in lifted:
        converted.graph.register_initializer(value)
    model.graph = converted.graph
    model.ir_version = max(model.ir_version, LOWEST_IR)
    return [Note("normalize", subject, "", f"opset raised from {old} to {RAISED_OPSET}")]
