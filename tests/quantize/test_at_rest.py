"""Weights stored as integers and computed in float: which form they get, and that the runtime rebuilds them."""

import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantize_graphs import Graph, kernels, sqnr_db

from onnxqp.model import clone, save, to_bytes
from onnxqp.quantize.at_rest import store_at_rest
from onnxqp.quantize.forms import smallest_form, wide_form
from onnxqp.quantize.share import share_equal


def product(weight):
    """A product that no integer kernel takes, so that its weight can only rest."""
    graph = Graph((4, weight.shape[0]))
    return graph, graph.model(graph.op("Einsum", graph.name, graph.constant(weight), equation="ij,jk->ik"))


def stored(model, count=1):
    done = clone(model)
    assert store_at_rest(done, (), {}).weights == count
    return done


def types(model):
    return [value.dtype for value in model.graph.initializers.values() if len(value.shape) > 1]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


@pytest.mark.parametrize("axis", [0, 1])
def test_scales_follow_the_axis_whose_sizes_differ(axis):
    sizes = np.exp(normal(64, seed=1)).reshape([-1 if axis == i else 1 for i in range(2)])
    graph, model = product(normal(64, 64) * sizes)
    done = stored(model)
    scale = next(value for value in done.graph.initializers.values() if value.name.startswith("_s"))
    assert list(scale.shape) == [64 if axis == i else 1 for i in range(2)]
    assert kernels(done) == kernels(model)
    assert sqnr_db(model, done, graph.samples()) > 38
    assert len(to_bytes(done)) < 0.32 * len(to_bytes(model))


def test_rows_and_columns_of_unlike_size_share_two_scales():
    spread = np.exp(normal(2, 96, seed=3)).astype(np.float32)
    graph, model = product(normal(96, 96) * spread[0][:, None] * spread[1])
    done = stored(model)
    assert sorted(tuple(v.shape) for v in done.graph.initializers.values()) == [(1, 96), (96, 1), (96, 96)]
    assert types(done)[0] == ir.DataType.INT8
    assert kernels(done) == kernels(model)
    assert sqnr_db(model, done, graph.samples()) > 34
    assert len(to_bytes(done)) < 0.32 * len(to_bytes(model))


def test_what_meets_values_one_by_one_gets_sixteen_bits():
    """As the anchors of a detector, whose errors are errors of a box."""
    graph = Graph((1, 400, 4))
    model = graph.model(graph.op("Mul", graph.op("Tanh", graph.name), graph.constant(normal(1, 400, 4))))
    done = stored(model)
    assert types(done)[0] == ir.DataType.INT16
    assert kernels(done) == kernels(model)
    assert sqnr_db(model, done, graph.samples()) > 80


def test_a_form_is_found_once_however_many_candidates_ask(monkeypatch):
    calls = []
    _, model = product(normal(64, 64))
    at_rest = sys.modules["onnxqp.quantize.at_rest"]
    monkeypatch.setattr(at_rest, "smallest_form", lambda array: calls.append(1) or smallest_form(array))
    first, second = to_bytes(stored(model)), to_bytes(stored(model))
    assert len(calls) == 1
    assert first == second


def test_weights_inside_a_branch_are_stored_too():
    inner = onnx.helper.make_graph(
        [onnx.helper.make_node("Einsum", ["x", "w"], ["y"], equation="ij,jk->ik", name="e")],
        "body",
        [],
        [onnx.helper.make_tensor_value_info("y", 1, None)],
        [onnx.numpy_helper.from_array(normal(64, 64), "w")],
    )
    other = onnx.GraphProto()
    other.CopyFrom(inner)
    other.node[0].output[0] = other.output[0].name = "z"
    other.node[0].name, other.node[0].input[1], other.initializer[0].name = "f", "v", "v"
    graph = Graph((4, 64))
    flag = graph.op("Greater", graph.op("ReduceMax", graph.name, keepdims=0), graph.constant(np.float32(0)))
    model = graph.model(graph.op("If", flag, then_branch=inner, else_branch=other))
    done = stored(model, count=2)
    assert sqnr_db(model, done, graph.samples()) > 38
    assert len(to_bytes(done)) < 0.36 * len(to_bytes(model))


def test_equal_initializers_become_one():
    graph = Graph((2, 8))
    y = graph.name
    for _ in range(5):
        y = graph.op("Add", y, graph.constant(np.full(8, 0.5, np.float32)))
    model = graph.model(graph.op("Mul", y, graph.constant(np.full(8, 0.25, np.float32))))
    done = clone(model)
    assert share_equal(done) == 4
    assert len(done.graph.initializers) == 2
    assert sqnr_db(model, done, graph.samples()) > 120


def test_a_file_holds_no_inner_shapes(tmp_path):
    graph = Graph((2, 8))
    model = graph.model(graph.op("Tanh", graph.op("Relu", graph.op("Neg", graph.name))))
    proto = graph.proto(graph.nodes[-1].output[0])
    proto.graph.node[1].name = ""
    from onnxqp.model import from_proto
    from onnxqp.normalize import normalize

    model = from_proto(proto)
    normalize(model)
    assert all(node.name for node in model.graph)
    path = tmp_path / "lean.onnx"
    save(model, path)
    written = onnx.load(str(path))
    assert not written.graph.value_info
    assert [node.name for node in written.graph.node] == [node.name for node in model.graph]
    assert [node.output[0] for node in written.graph.node] == ["v0", "v1", "v2"]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([(64, 32), (40, 1, 3, 3), (16, 8, 3, 3), (1, 64, 16), (2, 24, 8)]))
def test_a_form_stands_for_its_weight(seed, shape):
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, 1, shape).astype(np.float32)
    for axis, size in enumerate(shape):
        along = [-1 if other == axis else 1 for other in range(len(shape))]
        weight *= np.exp(rng.normal(0, 1.5, size)).astype(np.float32).reshape(along)
    for form, most in ((smallest_form(weight), 0.03), (wide_form(weight), 1e-3)):
        assert form is not None
        assert form.integers.shape == weight.shape
        error = np.linalg.norm(form.integers * form.scale - weight)
        assert error <= most * np.linalg.norm(weight)
        assert all(scale.size < 64 or (scale == scale.astype(np.float16)).all() for scale in form.scales)


def test_what_no_integers_can_say_stays():
    assert smallest_form(np.zeros((64, 64), np.float32)) is None
    assert wide_form(np.full((4, 4), np.inf, np.float32)) is None


def test_an_attention_mask_of_the_largest_floats_stays_in_silence():
    """Warnings are errors here: rounded up, the largest of all floats is infinite."""
    mask = np.triu(np.full((16, 16), np.finfo(np.float32).min), 1)
    assert smallest_form(mask) is None
    assert wide_form(mask) is None
