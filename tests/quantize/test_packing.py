"""Weights in four bits: the runtime looks them up when it opens the model, and runs the same kernels."""

import numpy as np
import onnx_ir as ir
import pytest
from quantize_graphs import Graph, kernels, sqnr_db

from onnxqp.graph import add_initializer
from onnxqp.model import clone, parameters, to_bytes
from onnxqp.normalize import normalize
from onnxqp.normalize.cleanup import remove_dead
from onnxqp.options import QuantizeOptions
from onnxqp.quantize import quantize_model
from onnxqp.quantize.at_rest import store_at_rest
from onnxqp.quantize.packing import Packing
from onnxqp.quantize.weights import worst_pair
from onnxqp.runtime import Session


def network():
    graph = Graph((1, 16, 16, 16))
    x = graph.name
    for _ in range(3):
        x = graph.conv_relu(x, 16, 16)
    x = graph.op("Add", x, graph.conv(x, 16, 16, group=16))
    flat = graph.op("Flatten", graph.op("GlobalAveragePool", x), axis=1)
    return graph, graph.model(graph.op("MatMul", flat, graph.matrix(16, 10)))


def quantized(target="x64-vnni", model=None, feeds=None):
    graph, plain = network()
    feeds = graph.samples(16)
    return plain, quantize_model(plain, feeds, QuantizeOptions(target=target)).model, feeds


def packed(model, feeds):
    packing = Packing(model, feeds)
    return packing, packing.build(packing.weights)


@pytest.fixture(scope="module", params=["x64-vnni", "x64-avx2"])
def made(request):
    plain, model, feeds = quantized(request.param)
    return plain, model, feeds, *packed(model, feeds)


def test_kernels_are_the_same_and_files_smaller(made):
    plain, model, feeds, packing, small = made
    assert len(packing.weights) == 3
    assert kernels(small) == kernels(model)
    weights = sum(weight.values.size for weight in packing.weights.values())
    assert len(to_bytes(small)) < len(to_bytes(model)) - 0.5 * weights + 3 * 260 + 600
    assert sqnr_db(plain, small, feeds) > 15


def test_what_the_runtime_looks_up_are_the_integers(made):
    """As if they stood in the file in eight bits; with optimisations and without."""
    _, _, feeds, packing, small = made
    assert sum(name.endswith("_p") for name in small.graph.initializers) == 3  # biases take the mean error back
    plain = clone(small)
    for name in packing.weights:
        dequantize = next(node for node in plain.graph if node.name == f"{name.removesuffix('_q')}_dq")
        dequantize.replace_input_with(0, add_initializer(plain.graph, f"{name}_8", packing.packed(name).values))
    remove_dead(plain)
    assert len(to_bytes(plain)) > len(to_bytes(small)) + 1000
    for optimize in (True, False):
        ours, theirs = (next(iter(Session(each, optimize=optimize).run(feeds[0]).values())) for each in (small, plain))
        assert np.array_equal(ours, theirs)


def test_sums_that_do_not_saturate_stay_so():
    _, model, feeds = quantized("x64-avx2")
    packing = Packing(model, feeds)
    for name, weight in packing.weights.items():
        assert worst_pair(weight.values, (2, 3, 1)) <= 128
        assert worst_pair(packing.packed(name).values, (2, 3, 1)) <= 128
        assert len(np.unique(packing.packed(name).values)) <= 16


def test_rounding_looks_at_the_output():
    """Errors cancel under inputs that go together: better than the nearest of the same sixteen integers."""
    rng = np.random.default_rng(3)
    graph = Graph((1, 64))
    model = graph.model(graph.op("Gemm", graph.name, graph.matrix(64, 64), graph.constant(np.zeros(64, np.float32))))
    mix = rng.normal(size=(8, 64))
    feeds = [{graph.name: (rng.normal(size=(1, 8)) @ mix).astype(np.float32)} for _ in range(200)]
    store_at_rest(model, (), {})
    by_output = Packing(model, feeds)
    to_nearest = Packing(model, [])
    found = [sqnr_db(model, each.build(each.weights), feeds) for each in (by_output, to_nearest)]
    assert found[0] > found[1] + 3


def test_weights_at_rest_are_rebuilt():
    weight = np.random.default_rng(0).normal(0, 1, (64, 128)).astype(np.float32)
    graph = Graph((4, 64))
    plain = graph.model(graph.op("Einsum", graph.name, graph.constant(weight), equation="ij,jk->ik"))
    model = clone(plain)
    store_at_rest(model, (), {})
    feeds = [{graph.name: np.random.default_rng(1).normal(size=(4, 64)).astype(np.float32)}]
    packing, small = packed(model, feeds)
    assert list(packing.weights) == list(small.graph.initializers)[:1]
    assert len(to_bytes(small)) < 0.65 * len(to_bytes(model))
    assert sqnr_db(plain, small, feeds) > 17
    assert kernels(small) == kernels(plain)


def test_what_is_small_odd_or_shared_stays():
    graph = Graph((1, 512))
    first, second = graph.matrix(512, 3), graph.matrix(512, 3)
    graph.weights[second] = graph.weights[first]
    x = graph.op("MatMul", graph.name, first)
    model = graph.model(graph.op("Add", x, graph.op("MatMul", graph.name, second)))
    result = quantize_model(model, graph.samples(8), QuantizeOptions(target="x64-vnni")).model
    assert not Packing(result, graph.samples(8)).weights or all(
        weight.values.size % 2 == 0 for weight in Packing(result, graph.samples(8)).weights.values()
    )


def test_clean_up_makes_plain_integers_of_it(made):
    """So that whatever reads a model, as prune and inspect do, sees the weights."""
    _, model, _, packing, small = made
    opened = clone(small)
    normalize(opened)
    shapes = [tuple(value.shape) for value in opened.graph.initializers.values() if value.dtype == ir.DataType.INT8]
    assert shapes.count((16, 16, 3, 3)) == len(packing.weights)
    assert parameters(model) <= parameters(small) <= parameters(model) + 3 * 16 + 512
