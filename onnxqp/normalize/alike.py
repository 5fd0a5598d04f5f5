"""Shapes of operators that onnx does not know, by its inference for one that it knows."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx.shape_inference
import onnx_ir as ir
from onnx import helper

from onnxqp.ops.operator import Alike

_OPSET = 17


def infer_alike(node: ir.Node, alike: Alike) -> Sequence[int | str | None] | None:
    """The shape of output 0, as that of a standard operator; None where it is known already, or cannot be known."""
    given = [node.inputs[index] for index in alike.inputs if index < len(node.inputs)]
    if node.outputs[0].shape is not None or any(value is None or value.shape is None for value in given):
        return None
    types = {f"i{n}": _type(value) for n, value in enumerate(given) if value is not None}
    proto = helper.make_node(alike.op_type, list(types), ["y"])
    kept = (node.attributes[name] for name in alike.attributes if name in node.attributes)
    proto.attribute.extend(ir.serde.serialize_attribute(attribute) for attribute in kept)
    try:
        schema = onnx.defs.get_schema(alike.op_type, _OPSET)
        opsets = [helper.make_opsetid("", _OPSET)]
        found = onnx.shape_inference.infer_node_outputs(schema, proto, types, opset_imports=opsets)
    except Exception:  # it knows no error tree; whoever needs the shape says so where it is missing
        return None
    if "y" not in found or not found["y"].tensor_type.HasField("shape"):
        return None
    shape = ir.serde.deserialize_type_proto_for_shape(found["y"])
    return None if shape is None else [size if isinstance(size, int) else size.value for size in shape]


def _type(value: ir.Value) -> onnx.TypeProto:
    sizes = [size if isinstance(size, int) else size.value for size in value.shape or ()]
    indices = value.dtype in (ir.DataType.INT32, ir.DataType.INT64)
    return helper.make_tensor_type_proto(onnx.TensorProto.INT64 if indices else onnx.TensorProto.FLOAT, sizes)
