"""Graphs with one fault each, made from one small network: what exporters, editors and bad luck leave behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHAPE = (3, 8, 8)
CLASSES = 4
# AttributeProto.type = GRAPH on the wire: field 20, a varint, 5.
_GRAPH_TYPE = b"\xa0\x01\x05"


def weight(name: str, *shape: int, dtype: Any = np.float32) -> onnx.TensorProto:
    """A random tensor; the name is its seed, so that every build gives the same."""
    draw = np.random.default_rng(sum(name.encode()))
    return numpy_helper.from_array((draw.standard_normal(shape) / 4).astype(dtype), name)


def info(name: str, shape: Sequence[int | str] | None, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto] = (),
    *,
    opset: int = 17,
    ir_version: int = 10,
    domains: Sequence[str] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "net", inputs, outputs, weights)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, ir_version=ir_version, opset_imports=imports, functions=functions)


def network(*, opset: int = 17, ir_version: int = 10, dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """Two convolutions and a classifier: x[N,3,8,8] -> scores[N,4]."""
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["scores"], "classifier", transB=1),
    ]
    shapes = {
        "w1": (16, 3, 3, 3),
        "b1": (16,),
        "w2": (16, 16, 3, 3),
        "b2": (16,),
        "w3": (CLASSES, 16),
        "b3": (CLASSES,),
    }
    weights = [weight(name, *shape, dtype=kind) for name, shape in shapes.items()]
    return model(
        nodes,
        [info("x", ["N", *SHAPE], dtype)],
        [info("scores", ["N", CLASSES], dtype)],
        weights,
        opset=opset,
        ir_version=ir_version,
    )


def tensor(proto: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(found for found in proto.graph.initializer if found.name == name)


def node(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(found for found in proto.graph.node if found.name == name)


def changed(change: Callable[[onnx.ModelProto], None], **options: Any) -> onnx.ModelProto:
    """The network after `change`."""
    proto = network(**options)
    change(proto)
    return proto


def poisoned(name: str, value: float) -> onnx.ModelProto:
    """The network with one element of a weight replaced."""
    proto = network()
    found = tensor(proto, name)
    array = numpy_helper.to_array(found).copy()
    array.flat[5] = value
    found.CopyFrom(numpy_helper.from_array(array, name))
    return proto


def with_attribute(name: str, **attributes: Any) -> onnx.ModelProto:
    proto = network()
    found = node(proto, name)
    for key, value in attributes.items():
        for old in [attribute for attribute in found.attribute if attribute.name == key]:
            found.attribute.remove(old)
        found.attribute.append(helper.make_attribute(key, value))
    return proto


# ---- graphs of their own ---------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    """If inside If inside If …, as the bytes of a file: protobuf itself refuses to build more than some thirty."""

    def leaf(op: str, output: str) -> onnx.GraphProto:
        return helper.make_graph([helper.make_node(op, ["x"], [output])], output, [], [info(output, None)])

    def field(number: int, content: bytes) -> bytes:
        """A length-delimited field on the wire."""
        head, length = bytes([number << 3 | 2]), len(content)
        while length >= 0x80:
            head, length = head + bytes([length & 0x7F | 0x80]), length >> 7
        return head + bytes([length]) + content

    graph = leaf("Relu", "y").SerializeToString()
    for level in range(depth):
        other = helper.make_attribute("else_branch", leaf("Neg", f"n{level}")).SerializeToString()
        then = field(1, b"then_branch") + field(6, graph) + _GRAPH_TYPE
        wired = field(1, b"flag") + field(2, b"y") + field(4, b"If")
        outer = field(1, wired + field(5, then) + field(5, other))
        graph = outer + field(2, b"t") + field(12, info("y", None).SerializeToString())
    for value in (info("x", ["N", 4]), info("flag", [], TensorProto.BOOL)):
        graph += field(11, value.SerializeToString())
    shell = model([], [], [])
    shell.ClearField("graph")
    return shell.SerializeToString() + field(7, graph)


def long_chain(length: int) -> onnx.ModelProto:
    nodes = [helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"], f"relu{i}") for i in range(length)]
    nodes.append(helper.make_node("MatMul", [f"v{length}", "w"], ["y"], "product"))
    return model(nodes, [info("v0", ["N", 8])], [info("y", ["N", 4])], [weight("w", 8, 4)])


def huge_constant() -> onnx.ModelProto:
    """Two nodes that ask for 128 GB at run time."""
    nodes = [
        helper.make_node("ConstantOfShape", ["dims"], ["big"], "huge"),
        helper.make_node("ReduceSum", ["big"], ["total"], "sum", keepdims=0),
        helper.make_node("MatMul", ["x", "w"], ["m"], "product"),
        helper.make_node("Add", ["m", "total"], ["y"], "add"),
    ]
    dims = numpy_helper.from_array(np.array([32, 1_000_000_000], np.int64), "dims")
    return model(nodes, [info("x", ["N", 4])], [info("y", None)], [dims, weight("w", 4, 4)])


def huge_tile() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Tile", ["x", "times"], ["big"], "huge"),
        helper.make_node("MatMul", ["big", "w"], ["y"], "product"),
    ]
    times = numpy_helper.from_array(np.array([2**40, 1], np.int64), "times")
    return model(nodes, [info("x", ["N", 4])], [info("y", None)], [times, weight("w", 4, 4)])


def conditional(domain_branch: bool = False) -> onnx.ModelProto:
    """A convolution in a branch, which reads a value and a weight of the graph around it."""
    then = helper.make_graph(
        [
            helper.make_node("Conv", ["r1", "w2"], ["t1"], "inner_conv", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["t1"], ["t2"], "inner_relu"),
        ],
        "then",
        [],
        [info("t2", None)],
    )
    other = helper.make_graph([helper.make_node("Neg", ["r1"], ["e1"], "inner_neg")], "else", [], [info("e1", None)])
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("If", ["flag"], ["s"], "choose", then_branch=then, else_branch=other),
        helper.make_node("Conv", ["s", "w4"], ["y"], "conv4", pads=[1, 1, 1, 1]),
    ]
    weights = [weight("w1", 16, 3, 3, 3), weight("b1", 16), weight("w2", 16, 16, 3, 3), weight("w4", 8, 16, 3, 3)]
    inputs = [info("x", ["N", *SHAPE]), info("flag", [], TensorProto.BOOL)]
    return model(nodes, inputs, [info("y", None)], weights)


def with_function(recursive: bool = False) -> onnx.ModelProto:
    body = [helper.make_node("Relu" if not recursive else "Block", ["a"], ["b"], domain="" if not recursive else "own")]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    function = helper.make_function("own", "Block", ["a"], ["b"], body, imports)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], "product"),
        helper.make_node("Block", ["m"], ["h"], "block", domain="own"),
        helper.make_node("MatMul", ["h", "v"], ["y"], "last"),
    ]
    weights = [weight("w", 8, 16), weight("v", 16, 4)]
    return model(nodes, [info("x", ["N", 8])], [info("y", None)], weights, domains=["own"], functions=[function])


def sparse() -> onnx.ModelProto:
    values = numpy_helper.from_array(np.array([1.0, -2.0, 3.0], np.float32), "w")
    places = numpy_helper.from_array(np.array([0, 9, 30], np.int64), "places")
    proto = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")], [info("x", ["N", 8])], [info("y", ["N", 4])]
    )
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [8, 4]))
    return proto


def one_operator(op: str, domain: str = "", opset: int = 17, **attributes: Any) -> onnx.ModelProto:
    """The network's classifier behind one operator that is not everybody's."""
    nodes = [
        helper.make_node(op, ["x"], ["h"], "special", domain=domain, **attributes),
        helper.make_node("MatMul", ["h", "w"], ["y"], "product"),
    ]
    domains = [domain] if domain else []
    return model(nodes, [info("x", ["N", 8])], [info("y", ["N", 4])], [weight("w", 8, 4)], domains=domains, opset=opset)


def typed_input(dtype: int) -> onnx.ModelProto:
    """An input of this element type, cast to float and multiplied."""
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], "cast", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["h", "w"], ["y"], "product"),
    ]
    return model(nodes, [info("x", ["N", 8], dtype)], [info("y", ["N", 4])], [weight("w", 8, 4)])


def sequence_input() -> onnx.ModelProto:
    kind = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, ["N", 8])
    nodes = [
        helper.make_node("ConcatFromSequence", ["x"], ["h"], "join", axis=0),
        helper.make_node("MatMul", ["h", "w"], ["y"], "product"),
    ]
    return model(nodes, [kind], [info("y", None)], [weight("w", 8, 4)])


def optional_input() -> onnx.ModelProto:
    inner = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", 8])
    kind = helper.make_value_info("x", helper.make_optional_type_proto(inner))
    nodes = [
        helper.make_node("OptionalGetElement", ["x"], ["h"], "get"),
        helper.make_node("MatMul", ["h", "w"], ["y"], "product"),
    ]
    return model(nodes, [kind], [info("y", None)], [weight("w", 8, 4)], opset=18)


def tied() -> onnx.ModelProto:
    """One weight in two layers."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("MatMul", ["b", "w"], ["c"], "second"),
        helper.make_node("MatMul", ["c", "v"], ["y"], "last"),
    ]
    return model(nodes, [info("x", ["N", 8])], [info("y", None)], [weight("w", 8, 8), weight("v", 8, 4)])


def weight_is_output() -> onnx.ModelProto:
    proto = network()
    proto.graph.output.append(info("w2", [16, 16, 3, 3]))
    return proto


def weight_is_input() -> onnx.ModelProto:
    """As IR 3 had it: every weight is an input that a caller may override."""
    proto = network(opset=9, ir_version=3)
    for found in proto.graph.initializer:
        proto.graph.input.append(info(found.name, list(found.dims)))
    return proto


def shape_initializer() -> onnx.ModelProto:
    """The shape of a Reshape is an initializer that pruning must rewrite."""
    proto = network()
    found = node(proto, "flatten")
    found.CopyFrom(helper.make_node("Reshape", ["p", "target"], ["f"], "flatten"))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([-1, 16], np.int64), "target"))
    return proto


def renamed(name: str) -> onnx.ModelProto:
    """The network with every node and inner value called by variations of `name`."""
    proto = network()
    keep = {"x", "scores", ""}
    names = {value for found in proto.graph.node for value in (*found.input, *found.output)} - keep
    new = {old: f"{name}{old}" for old in names}
    for found in proto.graph.node:
        found.name = f"{name}{found.name}"
        found.input[:] = [new.get(value, value) for value in found.input]
        found.output[:] = [new.get(value, value) for value in found.output]
    for found in proto.graph.initializer:
        found.name = new[found.name]
    return proto
