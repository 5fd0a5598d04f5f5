"""Models as messages of the ONNX format: whole, with their weights elsewhere, or light.

onnx_ir writes every shape that it knows and copies every weight; what is written, run and inferred here needs less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy.typing as npt
import onnx
import onnx_ir as ir

from onnxqp import integrity
from onnxqp.errors import UnsupportedError
from onnxqp.graph import DEFAULT_DOMAINS, subgraphs, tensor_bytes

# Above this many bytes of weights a message would come near protobuf's limit of 2 GB.
EMBED_LIMIT = 1_500_000_000
LARGE_TENSOR = 1 << 16  # bytes; smaller weights are copied rather than kept apart
ARRAY_DTYPES = {  # what numpy and the format lay out alike
    kind.value: kind.numpy().newbyteorder("<")
    for kind in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.INT8, ir.DataType.UINT8)
}
_MAPS = "onnxqp.maps"  # among the notes of a model: types of outputs
LOWEST_IR = 8  # the lowest that goes with opset 17
_BIG = 4096  # bytes; nobody looks into larger constants for a shape

_Weight: TypeAlias = Callable[[onnx.GraphProto, str, ir.TensorProtocol], None]


def from_proto(proto: onnx.ModelProto) -> ir.Model:
    """A model of onnx_ir, which knows no maps: outputs that hold some have no type there, until they are written."""
    infos = [info for info in (*proto.graph.output, *proto.graph.value_info) if holds_map(info.type)]
    kinds = [onnx.TypeProto.FromString(info.type.SerializeToString()) for info in infos]
    for info in infos:
        info.ClearField("type")
    try:
        model = ir.from_proto(proto)
    finally:
        for info, kind in zip(infos, kinds, strict=True):
            info.type.CopyFrom(kind)
    outputs = {output.name for output in proto.graph.output}
    if infos:
        model.meta[_MAPS] = {i.name: k for i, k in zip(infos, kinds, strict=True) if i.name in outputs}
    return model


def holds_map(kind: onnx.TypeProto) -> bool:
    """Whether a type is a map, or a sequence of maps, as scikit-learn's classifiers return."""
    return bool(kind.HasField("map_type") or kind.sequence_type.elem_type.HasField("map_type"))


def keep_needed(graph: onnx.GraphProto, values: Iterable[str]) -> set[str]:
    """Remove the nodes that these values do not follow from, which onnxruntime would run, and their weights; what is
    still read, among other names."""
    wanted = set(values)
    for place in reversed(range(len(graph.node))):
        node = graph.node[place]
        if wanted.isdisjoint(node.output):
            del graph.node[place]
        else:
            wanted.update(_read(node))
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name not in wanted:
            del graph.initializer[place]
    return wanted


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """The values that a node or its subgraphs read, and some that only exist within these."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from (output.name for output in graph.output)
            for inner in graph.node:
                yield from _read(inner)


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """The whole model as one proto, weights inside."""
    total = sum(tensor_bytes(value) for value in model.graph.initializers.values())
    if total >= EMBED_LIMIT:
        raise UnsupportedError(
            f"{total} bytes of weights do not fit into one protobuf message",
            hint="keep the weights in external data",
        )
    proto = ir.to_proto(model)
    maps = model.meta.get(_MAPS, {})
    for output in proto.graph.output:
        if output.name in maps:
            output.type.CopyFrom(maps[output.name])
    external = {
        value.name: value.const_value
        for graph in model.graphs()
        for value in graph.initializers.values()
        if isinstance(value.const_value, ir.ExternalTensor)
    }
    for tensor in integrity.tensors(proto) if external else ():
        if tensor.data_location == onnx.TensorProto.EXTERNAL and tensor.name in external:
            tensor.raw_data = external[tensor.name].tobytes()
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
    return proto


def proto_and_weights(model: ir.Model) -> tuple[onnx.ModelProto, dict[str, npt.NDArray[Any]]]:
    """The model as a proto whose large weights are said to be elsewhere, and these by name, not copied.

    They are those of the graph itself whose types numpy knows; what lies in files and is none of them is left there.
    """
    large: dict[str, npt.NDArray[Any]] = {}
    kept: list[tuple[ir.Value, ir.TensorProtocol]] = []
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.nbytes >= LARGE_TENSOR and tensor.dtype.value in ARRAY_DTYPES:
            array = tensor.numpy()
            if array.flags.c_contiguous and array.dtype.isnative:
                large[value.name or ""] = array
                kept.append((value, tensor))
    try:
        for value, tensor in kept:
            shape = ir.Shape(tensor.shape.numpy())
            value.const_value = ir.ExternalTensor(
                "elsewhere", 0, tensor.nbytes, tensor.dtype, shape=shape, name=value.name or ""
            )
        return ir.to_proto(model) if model.functions else _bare(model), large
    finally:
        for value, tensor in kept:
            value.const_value = tensor


def _bare(model: ir.Model) -> onnx.ModelProto:
    """What runs of a model without functions: no shapes of inner values but those that only their maker knows."""
    return _message(model, _weight, lambda node: node.domain not in DEFAULT_DOMAINS)


def light_proto(model: ir.Model) -> onnx.ModelProto:
    """`model`, which has no functions, with every weight above 4 kB listed as an input of its shape and type.

    As much as shape inference and onnx's version converter need, for any size.
    """

    def describe(graph: onnx.GraphProto, name: str, tensor: ir.TensorProtocol) -> None:
        if tensor.nbytes > _BIG:
            shape = onnx.helper.make_tensor_type_proto(tensor.dtype.value, tensor.shape.numpy())
            graph.input.add(name=name).type.CopyFrom(shape)
        else:
            _weight(graph, name, tensor)

    proto = _message(model, describe, lambda node: True)
    proto.ir_version = max(model.ir_version, LOWEST_IR)
    return proto


def _message(model: ir.Model, put: _Weight, told: Callable[[ir.Node], bool]) -> onnx.ModelProto:
    """A model without functions: its weights as `put` writes them, and the types and shapes that `told` nodes give."""
    proto = onnx.ModelProto(ir_version=model.ir_version)
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    graph = proto.graph
    graph.name = model.graph.name or "graph"
    for value in model.graph.inputs:
        ir.serde.serialize_value_into(graph.input.add(), value)
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            put(graph, value.name or "", value.const_value)
    for node in model.graph:
        ir.serde.serialize_node_into(graph.node.add(), node)
        for output in node.outputs if told(node) else ():
            if output.name and output.type is not None and not output.is_graph_output():
                ir.serde.serialize_value_into(graph.value_info.add(), output)
    for value in model.graph.outputs:
        ir.serde.serialize_value_into(graph.output.add(), value)
    return proto


def _weight(graph: onnx.GraphProto, name: str, tensor: ir.TensorProtocol) -> None:
    written = graph.initializer.add()
    ir.serde.serialize_tensor_into(written, tensor)
    written.name = name


def lean(proto: onnx.ModelProto, model: ir.Model) -> onnx.ModelProto:
    """Leave out of a proto of `model` what every reader finds out by itself.

    Those are the shapes of inner values, which follow from those of the inputs except behind operators that only their
    maker knows, and where a size that is open gets a name: onnxruntime, which gives none, compares such names when it
    looks for a Reshape to what its input came from (reshape_fusion.cc).
    """
    _lean_graph(proto.graph, model.graph)
    return proto


def _names_samples(node: ir.Node, output: ir.Value) -> bool:
    """Whether the first axis of an output, how many samples there are as a rule, has a name that no input brings."""
    name = _first_name(output)
    return name is not None and all(_first_name(value) != name for value in node.inputs)


def _first_name(value: ir.Value | None) -> str | None:
    size = value.shape[0] if value is not None and value.shape is not None and len(value.shape) else None
    return size.value if isinstance(size, ir.SymbolicDim) else None


def _lean_graph(written: onnx.GraphProto, graph: ir.Graph) -> None:
    inferred = {
        value.name
        for node in graph
        if node.domain in DEFAULT_DOMAINS
        for value in node.outputs
        if not _names_samples(node, value)
    }
    inferred |= set(graph.initializers)
    kept = [info for info in written.value_info if info.name not in inferred]
    del written.value_info[:]
    written.value_info.extend(kept)
    for node, found in zip(graph, written.node, strict=True):
        for inner, body in zip(integrity.bodies(found), subgraphs(node), strict=True):
            _lean_graph(inner, body)
