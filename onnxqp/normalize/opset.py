"""Raise old opsets to one that quantization can use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import onnx
import onnx.version_converter
import onnx_ir as ir

from onnxqp.specs import Note

PER_CHANNEL_OPSET = 13  # DequantizeLinear got its `axis` there
RAISED_OPSET = 17
LOWEST_IR = 8  # the lowest that goes with opset 17
_BIG = 4096  # bytes; the converter looks at shapes and small constants only


def raise_opset(model: ir.Model) -> list[Note]:
    """Convert a model below opset 13 to opset 17 in place; what is newer stays as it is."""
    old = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
    if old >= PER_CHANNEL_OPSET:
        model.ir_version = max(model.ir_version, LOWEST_IR)
        return []
    subject = model.graph.name or "graph"
    try:
        with _light(model) as proto:
            converted = ir.from_proto(onnx.version_converter.convert_version(proto, RAISED_OPSET))
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


@contextlib.contextmanager
def _light(model: ir.Model) -> Iterator[onnx.ModelProto]:
    """The proto without the data of big weights, which appear as inputs: any size of model converts in no memory."""
    proto_model = model.clone()
    graph = proto_model.graph
    for value in list(graph.initializers.values()):
        if value.const_value is not None and value.const_value.nbytes > _BIG:
            value.shape = ir.Shape(value.const_value.shape.numpy())
            value.type = ir.TensorType(value.const_value.dtype)
            graph.initializers.pop(value.name or "")
            graph.inputs.append(value)
            value.const_value = None
    proto = ir.to_proto(proto_model)
    proto.ir_version = max(proto.ir_version, LOWEST_IR)
    yield proto
