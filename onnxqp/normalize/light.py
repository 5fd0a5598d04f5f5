"""A model as a proto without the data of its big weights: what onnx's converter and inference need, for any size."""

from __future__ import annotations

import onnx
import onnx_ir as ir

LOWEST_IR = 8  # the lowest that goes with opset 17
_BIG = 4096  # bytes; nobody looks into larger constants for a shape


def light_proto(model: ir.Model) -> onnx.ModelProto:
    """`model` with every weight above 4 kB listed as an input of its shape and type."""
    copy = model.clone()
    graph = copy.graph
    for value in list(graph.initializers.values()):
        if value.const_value is not None and value.const_value.nbytes > _BIG:
            value.shape = ir.Shape(value.const_value.shape.numpy())
            value.type = ir.TensorType(value.const_value.dtype)
            graph.initializers.pop(value.name or "")
            graph.inputs.append(value)
            value.const_value = None
    proto = ir.to_proto(copy)
    proto.ir_version = max(proto.ir_version, LOWEST_IR)
    return proto
