"""A model as a proto without the data of its big weights: what onnx's converter and inference need, for any size."""

from __future__ import annotations

import onnx
import onnx_ir as ir

LOWEST_IR = 8  # the lowest that goes with opset 17
_BIG = 4096  # bytes; nobody looks into larger constants for a shape


def light_proto(model: ir.Model) -> onnx.ModelProto:
    """`model`, which has no functions, with every weight above 4 kB listed as an input of its shape and type."""
    proto = onnx.ModelProto(ir_version=max(model.ir_version, LOWEST_IR))
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    graph = proto.graph
    graph.name = model.graph.name or "graph"
    for value in model.graph.inputs:
        ir.serde.serialize_value_into(graph.input.add(), value)
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None:
            continue
        if tensor.nbytes > _BIG:
            shape = onnx.helper.make_tensor_type_proto(tensor.dtype.value, tensor.shape.numpy())
            graph.input.add(name=value.name or "").type.CopyFrom(shape)
        else:
            ir.serde.serialize_tensor_into(graph.initializer.add(name=value.name or ""), tensor)
            graph.initializer[-1].name = value.name or ""
    for node in model.graph:
        ir.serde.serialize_node_into(graph.node.add(), node)
        for output in node.outputs:
            if output.type is not None and output.name and not output.is_graph_output():
                ir.serde.serialize_value_into(graph.value_info.add(), output)
    for value in model.graph.outputs:
        ir.serde.serialize_value_into(graph.output.add(), value)
    return proto
