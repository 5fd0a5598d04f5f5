"""Names that outweigh weights become numbers; what users speak of keeps its own, and `debug` still finds all values."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from quantize_graphs import Graph

from onnxqp.debugging import with_shapes
from onnxqp.debugging.matching import match
from onnxqp.model import clone
from onnxqp.normalize import normalize
from onnxqp.options import QuantizeOptions
from onnxqp.quantize import quantize_model
from onnxqp.quantize.naming import shorten_names
from onnxqp.runtime import Session

LONG = "/backbone/stage2/block1/convolution/and_what_follows_it/output_0/"


def network(prefix=LONG, channels=16):
    graph = Graph((1, channels, 8, 8))
    x = graph.conv_relu(graph.conv_relu(graph.name, channels, channels), channels, channels)
    graph.op("Tanh", graph.conv(x, channels, channels))
    for node in graph.nodes:
        node.input[:] = [f"{prefix}{name}" if name.startswith("v") else name for name in node.input]
        node.output[:] = [f"{prefix}{name}" for name in node.output]
    return graph, graph.model(graph.nodes[-1].output[0])


def named(model):
    return {value.name for node in model.graph for value in node.outputs}


def test_values_inside_are_numbered_and_found_again():
    graph, model = network()
    done = quantize_model(model, graph.samples(), QuantizeOptions(target="x64-vnni")).model
    before = {pair.name: pair.node for pair in match(with_shapes(model), with_shapes(done))}
    expected, nodes = Session(done).run(graph.samples()[0]), [node.name for node in done.graph]
    assert shorten_names(done, model) == 5
    assert all(len(name) < 6 or name.endswith(("q", "dq")) for name in named(done) - {model.graph.outputs[0].name})
    assert [node.name for node in done.graph] == nodes
    assert [value.name for value in done.graph.outputs] == [value.name for value in model.graph.outputs]
    found = Session(done).run(graph.samples()[0])
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert len(before) > 3
    assert {pair.name: pair.node for pair in match(with_shapes(model), with_shapes(done))} == before


@pytest.mark.parametrize(("prefix", "channels"), [("", 16), (LONG, 128)])
def test_names_that_weigh_nothing_stay(prefix, channels):
    _, model = network(prefix, channels)
    other = clone(model)
    assert shorten_names(other, model) == 0
    assert named(other) == named(model)


def test_a_value_that_the_original_has_no_node_for_keeps_its_name():
    _, model = network()
    other = clone(model)
    for node in other.graph:
        node.name = f"{node.name}_rewritten"
    assert shorten_names(other, model) == 0


def test_values_of_bodies_are_numbered_too():
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "weight_of_the_branch")
    one, two = f"{LONG}one", f"{LONG}two"
    info = helper.make_tensor_value_info
    then = helper.make_graph(
        [
            helper.make_node("MatMul", [f"{LONG}x", "weight_of_the_branch"], [one], name="product"),
            helper.make_node("Relu", [one], [two], name="relu"),
        ],
        "then",
        [],
        [info(two, TensorProto.FLOAT, None)],
        [weight],
    )
    other = helper.make_graph(
        [helper.make_node("Neg", [f"{LONG}x"], [f"{LONG}no"], name="neg")],
        "else",
        [],
        [info(f"{LONG}no", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Abs", ["x"], [f"{LONG}x"], name="abs"),
        helper.make_node("If", ["c"], ["y"], name="if", then_branch=then, else_branch=other),
    ]
    sides = [info("x", TensorProto.FLOAT, [1, 4]), info("c", TensorProto.BOOL, [])]
    graph = helper.make_graph(nodes, "g", sides, [info("y", TensorProto.FLOAT, None)])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    model = ir.from_proto(proto)
    normalize(model)
    done = clone(model)
    assert shorten_names(done, model) == 4
    assert not any(LONG in (value.name or "") for part in done.graphs() for node in part for value in node.outputs)
    for chosen in (True, False):
        feed = {"x": np.float32([[1, -2, 3, 4]]), "c": np.array(chosen)}
        assert np.array_equal(Session(done).run(feed)["y"], Session(model).run(feed)["y"])
