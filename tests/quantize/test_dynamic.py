"""Dynamic quantization: what it computes, held against numpy, and what onnxruntime makes of it."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from quantize_graphs import Graph, kernels, sqnr_db

from onnxqp.graph import constant
from onnxqp.model import clone, to_bytes
from onnxqp.quantize.dynamic import FUSED, make_dynamic, reason_against_dynamic
from onnxqp.quantize.weights import quantize_weight, worst_pair
from onnxqp.runtime import Session


def dynamic(model, *, per_tensor=False, saturates=True, names=None):
    """A rewritten copy, checked, and how many products it has."""
    work = clone(model)
    names = names or {node.name for node in work.graph}
    count = make_dynamic(work, names, per_tensor=per_tensor, saturates=saturates).products
    onnx.checker.check_model(ir.to_proto(work), full_check=True)
    return work, count


def expected(x, weight, *, axis, saturates):
    """DynamicQuantizeLinear and an integer product, in numpy, by the words of the ONNX operators."""
    low, high = min(x.min(), 0.0), max(x.max(), 0.0)
    scale = np.float32((np.float32(high) - np.float32(low)) / np.float32(255))
    zero = int(np.clip(np.rint((0 - low) / scale), 0, 255))
    q = np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.int64) - zero
    w = quantize_weight(weight, axis, summed=(0,), safe=saturates)
    return (q @ w.values.astype(np.int64)).astype(np.float32) * (scale * w.scale)


@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize("shape", [(4, 32), (2, 5, 32), ("n", 5, 32)])
def test_the_numbers_are_those_of_numpy(shape, per_tensor):
    graph = Graph(shape)
    w = graph.matrix(32, 24)
    model = graph.model(graph.op("MatMul", graph.name, w))
    work, count = dynamic(model, per_tensor=per_tensor)
    assert count == 1
    (feed,) = graph.samples(1)
    (found,) = Session(work).run(feed).values()
    want = expected(feed["x"], graph.weights[w], axis=None if per_tensor else 1, saturates=True)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)
    assert sqnr_db(model, work, graph.samples()) > 30


@pytest.mark.parametrize("bias", [False, True])
def test_one_product_is_one_kernel(bias):
    graph = Graph((2, 5, 32))
    y = graph.op("MatMul", graph.name, graph.matrix(32, 24))
    if bias:
        y = graph.op("Add", y, graph.constant(graph.rng.normal(0, 1, 24).astype(np.float32)))
    work, _ = dynamic(graph.model(graph.op("Softmax", y)))
    assert kernels(work) == ["DynamicQuantizeMatMul", "Softmax"]


def test_products_of_one_activation_quantize_it_once():
    graph = Graph((2, 5, 32))
    outputs = [graph.op("Tanh", graph.op("MatMul", graph.name, graph.matrix(32, 24))) for _ in range(3)]
    work, count = dynamic(graph.model(*outputs))
    found = kernels(work)
    assert count == 3
    assert found.count("MatMulIntegerToFloat") == 3
    assert found.count("DynamicQuantizeLinear") == 1


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", [False, True])
def test_gemm(transposed, bias):
    graph = Graph((4, 32))
    operands = [graph.matrix(24, 32) if transposed else graph.matrix(32, 24)]
    if bias:
        operands.append(graph.constant(graph.rng.normal(0, 1, 24).astype(np.float32)))
    model = graph.model(graph.op("Gemm", graph.name, *operands, transB=transposed))
    work, count = dynamic(model)
    assert count == 1
    assert set(kernels(work)) <= set(FUSED)
    assert [value.name for value in work.graph.outputs] == [value.name for value in model.graph.outputs]
    assert sqnr_db(model, work, graph.samples()) > 30


def test_a_shared_weight_is_stored_once_in_each_orientation():
    graph = Graph((4, 32))
    w = graph.matrix(32, 32)
    x = graph.op("Tanh", graph.op("MatMul", graph.name, w))
    x = graph.op("Tanh", graph.op("MatMul", x, w))
    model = graph.model(graph.op("Gemm", x, w, transB=1))
    work, count = dynamic(model)
    assert count == 3
    stored = [v for v in work.graph.initializers.values() if v.dtype == ir.DataType.INT8]
    assert len(stored) == 2
    assert w not in work.graph.initializers
    assert sqnr_db(model, work, graph.samples()) > 28


def test_only_what_is_named_and_can_be():
    graph = Graph((4, 32))
    x = graph.op("MatMul", graph.name, graph.matrix(32, 32))
    y = graph.op("MatMul", x, graph.matrix(32, 32))
    z = graph.op("MatMul", x, graph.op("Transpose", y, perm=[1, 0]))
    model = graph.model(graph.op("Relu", z))
    before = to_bytes(model)
    work, count = dynamic(model, names={"MatMul0", "MatMul3", "Relu4"})
    assert count == 1
    assert [node.op_type for node in work.graph].count("MatMul") == 2
    assert to_bytes(model) == before
    nodes = {node.name: node for node in model.graph}
    assert reason_against_dynamic(nodes["MatMul1"]) is None
    assert "constant matrix" in reason_against_dynamic(nodes["MatMul3"])
    assert reason_against_dynamic(nodes["Relu4"])


@pytest.mark.parametrize("saturates", [True, False])
def test_weights_are_safe_where_kernels_saturate(saturates):
    graph = Graph((4, 64))
    weight = graph.rng.uniform(0.9, 1.0, (64, 16)).astype(np.float32)  # neighbours of one sign: the worst case
    model = graph.model(graph.op("MatMul", graph.name, graph.constant(weight)))
    work, _ = dynamic(model, saturates=saturates)
    (stored,) = [v for v in work.graph.initializers.values() if v.dtype == ir.DataType.INT8]
    assert (worst_pair(constant(stored), (0,)) <= 128) == saturates


def test_the_file_shrinks():
    graph = Graph((4, 256))
    model = graph.model(graph.op("MatMul", graph.name, graph.matrix(256, 512)))
    work, _ = dynamic(model)
    assert len(to_bytes(work)) < 0.27 * len(to_bytes(model))
