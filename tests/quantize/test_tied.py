"""Tied embeddings: one matrix, read by a Gather, and as it is or transposed by the last product."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, save
from quantize_graphs import Graph, sqnr_db

from onnxqp import api
from onnxqp.normalize.tied import share_transposed
from onnxqp.options import MeasureOptions, PruneOptions, QuantizeOptions, Selection, WriteOptions
from onnxqp.quantize import quantize_model
from onnxqp.quantize.dynamic import make_dynamic
from onnxqp.quantize.tied import find_tied, share_integers

WORDS, WIDTH = 200, 32
BOTH = ["MatMul", "Gemm"]
RNG = np.random.default_rng(2)
SAMPLES = [{"ids": RNG.integers(0, WORDS, (2, 7))} for _ in range(12)]


def language(last):
    """ids -> Gather -> a residual block -> the words, by the embeddings again."""
    g = Graph(name="ids", shape=("n", 7))
    g.inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 7])]
    table = g.matrix(WORDS, WIDTH, "table")
    x = g.op("Gather", table, "ids")
    hidden = g.op("Relu", g.op("MatMul", x, g.matrix(WIDTH, 64)))
    x = g.op("Add", x, g.op("MatMul", hidden, g.matrix(64, WIDTH)))
    if last == "MatMul":
        return g, g.op("MatMul", x, g.op("Transpose", table, perm=[1, 0]))
    rows = g.op("Reshape", x, g.constant(np.array([-1, WIDTH], np.int64)))
    return g, g.op("Gemm", rows, table, transB=1)


def tables(model):
    """The stored initializers of the size of the embeddings."""
    values = model.graph.initializers.values()
    return [v for v in values if v.const_value is not None and v.const_value.size == WORDS * WIDTH]


@pytest.mark.parametrize("last", BOTH)
def test_integers_of_the_last_product_are_the_embeddings(last):
    g, y = language(last)
    model = g.model(y)
    options = QuantizeOptions(target="x64-vnni", selection=Selection(include=("*",)))
    result = quantize_model(model, SAMPLES, options)
    assert [value.dtype for value in tables(result.model)] == [ir.DataType.INT8]
    assert {"Gather", "DequantizeLinear"} <= {node.op_type for node in result.model.graph}
    assert result.quantization.nodes_quantized
    assert sqnr_db(model, result.model, SAMPLES) > 28


@pytest.mark.parametrize("last", BOTH)
def test_all_in_float_are_stored_once(last):
    g, y = language(last)
    model = g.model(y)
    work = ir.from_proto(ir.to_proto(model))
    assert find_tied(work, integer=()) == []
    assert len(tables(work)) == 1
    assert sqnr_db(model, work, SAMPLES) > 120


@pytest.mark.parametrize("last", BOTH)
def test_integers_of_a_dynamic_product(last):
    g, y = language(last)
    model = g.model(y)
    work = ir.from_proto(ir.to_proto(model))
    name = next(node.name for node in reversed(list(work.graph)) if node.op_type == last)
    tied = find_tied(work, {name})
    assert [each.transposed for each in tied] == [last == "MatMul"]
    assert share_integers(work, tied, make_dynamic(work, {name}, per_tensor=False).copies) == 1
    assert [value.dtype for value in tables(work)] == [ir.DataType.INT8]
    assert sqnr_db(model, work, SAMPLES) > 28


def test_integers_too_coarse_for_the_rest_are_not_shared():
    g, y = language("Gemm")
    table = g.weights["table0"]
    table *= np.geomspace(0.01, 1, WORDS, dtype=np.float32)[:, None]
    table[-1, 0] *= 10  # one scale for all of them: most words round to nothing
    model = g.model(y)
    work = ir.from_proto(ir.to_proto(model))
    name = next(node.name for node in work.graph if node.op_type == "Gemm")
    tied = find_tied(work, {name})
    assert share_integers(work, tied, make_dynamic(work, {name}, per_tensor=True).copies) == 0
    assert [value.dtype for value in tables(work)] == [ir.DataType.INT8] * 2


def test_what_is_excluded_keeps_its_floats():
    g, y = language("Gemm")
    work = g.model(y)
    gather = next(node.name for node in work.graph if node.op_type == "Gather")
    gemm = next(node.name for node in work.graph if node.op_type == "Gemm")
    assert find_tied(work, {gemm}, {gather}) == []


def test_a_pruned_model_stores_its_embeddings_once(tmp_path):
    g, y = language("MatMul")
    path = tmp_path / "language.onnx"
    save(g.proto(y), path)
    written = WriteOptions(output=tmp_path / "cut.onnx")
    options, quick = PruneOptions(ratio=0.25, recover="none"), MeasureOptions(validate=False)
    report = api.prune(path, options=options, data=SAMPLES, measure=quick, write=written).report
    assert report.pruning.proof.checked
    assert report.size.ratio > 1.25
    model = ir.load(written.output)
    assert "Transpose" in {node.op_type for node in model.graph}
    assert share_transposed(model) == 0
