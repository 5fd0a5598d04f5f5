"""Quantization as a whole: what it refuses, what it reports, and that it is deterministic."""

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from quantize_graphs import Graph, kernels, sqnr_db
from threadpoolctl import threadpool_info, threadpool_limits

from onnxqp.errors import DataError, ModelError, UnsupportedError
from onnxqp.graph import constant, dims
from onnxqp.model import clone, to_bytes
from onnxqp.options import QuantizeOptions, Selection
from onnxqp.quantize import passes, plan_quantization, quantize_model
from onnxqp.quantize.conditions import broken_condition
from onnxqp.quantize.verify import unfused_nodes

VNNI = QuantizeOptions(target="x64-vnni")


def network(seed=0):
    graph = Graph((1, 32, 14, 14), seed=seed)
    x = graph.conv_relu(graph.name, 32, 32)
    y = graph.op("Relu", graph.op("Add", x, graph.conv(x, 32, 32)))
    y = graph.op("Flatten", graph.op("GlobalAveragePool", y))
    y = graph.op("Gemm", y, graph.matrix(32, 10), graph.constant(np.arange(10, dtype=np.float32)))
    return graph, graph.model(y)


def test_the_original_is_untouched_and_the_result_is_the_same_every_time():
    graph, model = network()
    before = to_bytes(model)
    first = quantize_model(model, graph.samples(), VNNI)
    second = quantize_model(model, iter(graph.samples()), VNNI)
    assert to_bytes(model) == before
    assert to_bytes(first.model) == to_bytes(second.model)
    assert first.quantization == second.quantization
    assert sqnr_db(model, first.model, graph.samples()) > 30


def test_one_q_and_one_dq_for_every_value_with_scalar_constants():
    graph, model = network()
    done = quantize_model(model, graph.samples(), VNNI).model
    onnx.checker.check_model(ir.to_proto(done), full_check=True)
    quantized = [node for node in done.graph if node.op_type == "QuantizeLinear"]
    assert len({node.inputs[0] for node in quantized}) == len(quantized)
    for node in quantized:
        scale, zero_point = constant(node.inputs[1]), constant(node.inputs[2])
        assert scale.dtype == np.float32
        assert zero_point.dtype == np.uint8
        assert scale.shape == zero_point.shape == ()
        assert [reader.op_type for reader in node.outputs[0].consumers()] == ["DequantizeLinear"]
    weights = [v for v in done.graph.initializers.values() if v.name.endswith("_q")]
    assert {v.dtype for v in weights} == {ir.DataType.INT8, ir.DataType.INT32}


def test_the_file_shrinks_and_says_what_happened():
    graph, model = network()
    result = quantize_model(model, graph.samples(), VNNI)
    record = result.quantization
    assert record.nodes_fused == record.nodes_quantized > 0
    assert record.bias_corrected > 0
    assert len(to_bytes(result.model)) < 0.35 * len(to_bytes(model))
    assert result.ranges["x"][0] < 0 < result.ranges["x"][1]


def test_a_model_that_is_quantized_already_is_refused():
    graph, model = network()
    done = quantize_model(model, graph.samples(), VNNI).model
    with pytest.raises(UnsupportedError, match="already quantized"):
        quantize_model(done, graph.samples(), VNNI)
    assert not any(node.integer for node in plan_quantization(done, VNNI).nodes)


def test_nothing_to_quantize_is_refused_with_the_reasons():
    graph = Graph((1, 8))
    model = graph.model(graph.op("Tanh", graph.op("Exp", graph.name)))
    with pytest.raises(UnsupportedError, match=r"nothing in this model can be quantized: .*Tanh"):
        quantize_model(model, graph.samples(), VNNI)
    graph, model = network()
    nothing = QuantizeOptions(selection=Selection(exclude=("*",)))
    with pytest.raises(UnsupportedError, match="excluded by --exclude"):
        quantize_model(model, graph.samples(), nothing)


def test_nan_in_a_weight_names_it():
    graph, model = network()
    value = next(v for v in model.graph.initializers.values() if v.name.startswith("w"))
    broken = constant(value).copy()
    broken[0] = np.nan
    value.const_value = ir.tensor(broken, name=value.name)
    with pytest.raises(ModelError) as caught:
        quantize_model(model, graph.samples(), VNNI)
    assert value.name in caught.value.where


def test_nan_inside_keeps_its_neighbours_in_float():
    graph = Graph((1, 64, 28, 28))
    root = graph.op("Sqrt", graph.name)  # not a number wherever the input is negative
    y = graph.op("Where", graph.op("IsNaN", root), graph.constant(np.float32(0)), root)
    bad, good = graph.conv_relu(root, 64, 64), graph.conv_relu(y, 64, 64)
    result = quantize_model(graph.model(graph.op("Tanh", bad), graph.op("Tanh", good)), graph.samples(4), VNNI)
    assert any("NaN" in warning for warning in result.warnings)
    left = {note.node: note.reason for note in result.quantization.left_float}
    assert "NaN or infinity" in left["Conv3"]
    assert "Conv5" not in left


def test_no_samples_is_an_error():
    _, model = network()
    with pytest.raises(DataError):
        quantize_model(model, [], VNNI)


@pytest.mark.parametrize("target", ["x64-avx2", "x64-vnni"])
def test_saturation_safe_weights_only_where_kernels_saturate(target):
    graph, model = network()
    record = quantize_model(model, graph.samples(), QuantizeOptions(target=target)).quantization
    assert (record.weights_made_safe > 0) == (target == "x64-avx2")


def test_symbolic_shapes_are_measured():
    graph = Graph(("n", 32, "h", "w"))
    graph.shape = (1, 32, 40, 40)
    x = graph.conv_relu(graph.name, 32, 32)
    model = graph.model(graph.op("Tanh", graph.conv_relu(x, 32, 32)))
    assert dims(model.graph.inputs[0]) == (None, 32, None, None)
    result = quantize_model(model, graph.samples(2), VNNI)
    assert result.quantization.nodes_fused == 2


def test_two_nodes_may_share_a_weight_and_a_bias():
    graph = Graph((1, 32, 14, 14))
    w = graph.constant(graph.rng.normal(0, 0.06, (32, 32, 3, 3)).astype(np.float32))
    b = graph.constant(graph.rng.normal(0, 1, 32).astype(np.float32))
    x = graph.op("Relu", graph.op("Conv", graph.name, w, b, pads=[1] * 4))
    y = graph.op("Relu", graph.op("Conv", x, w, b, pads=[1] * 4))
    model = graph.model(graph.op("Tanh", y))
    result = quantize_model(model, graph.samples(), VNNI)
    assert result.quantization.nodes_fused == 2
    assert sqnr_db(model, result.model, graph.samples()) > 28
    stored = [
        v for v in result.model.graph.initializers.values() if v.dtype == ir.DataType.INT8 and v.name.endswith("_q")
    ]
    assert len(stored) == 1


def test_a_bias_too_large_for_32_bits_raises_the_scale_of_its_weights():
    graph = Graph((1, 32, 14, 14))
    w = np.full((32, 32, 3, 3), 1e-9, np.float32)
    y = graph.op("Conv", graph.name, graph.constant(w), graph.constant(np.full(32, 1e3, np.float32)), pads=[1] * 4)
    model = graph.model(y)
    result = quantize_model(
        model, graph.samples(), QuantizeOptions(target="x64-vnni", selection=Selection(include=("*",)))
    )
    assert sqnr_db(model, result.model, graph.samples()) > 40


def test_an_unfused_node_is_explained():
    graph = Graph((1, 32, 14, 14))
    x = graph.op("Relu", graph.conv(graph.name, 32, 32))
    model = graph.model(graph.op("Tanh", graph.conv(x, 32, 32)))
    plan = plan_quantization(model, VNNI)
    done = quantize_model(model, graph.samples(), VNNI).model
    assert unfused_nodes(done, plan) == []

    signed = clone(done)  # a zero point above the minimum: the Relu is no longer covered by the range
    zero_point = next(v for v in signed.graph.initializers.values() if v.name == "v1_zp")
    zero_point.const_value = ir.tensor(np.uint8(100), name=zero_point.name)
    (note,) = unfused_nodes(signed, plan)
    assert (note.node, note.op_type) == ("Conv0", "Conv")
    assert "the Relu behind it is not covered" in note.reason

    vector = clone(done)  # scales that are no scalars
    scale = next(v for v in vector.graph.initializers.values() if v.name == "x_s")
    scale.const_value, scale.shape = ir.tensor(constant(scale).reshape(1), name=scale.name), ir.Shape([1])
    assert all("is not a constant scalar" in note.reason for note in unfused_nodes(vector, plan))

    read = clone(done)  # the convolution's output is read in float as well
    relu = next(node for node in read.graph if node.op_type == "Relu")
    read.graph.outputs.append(relu.outputs[0])
    (note,) = unfused_nodes(read, plan)
    assert "is read in float" in note.reason
    assert "removed it" in unfused_nodes(model, plan)[0].reason


def test_weights_at_rest_cost_no_time_and_little_accuracy():
    graph = Graph(("n", 5, 16))
    w, r, b = (
        graph.constant(graph.rng.normal(0, 0.2, shape).astype(np.float32))
        for shape in [(1, 256, 16), (1, 256, 64), (1, 512)]
    )
    _, last, _ = graph.op("LSTM", graph.name, w, r, b, outputs=3, hidden_size=64)
    model = graph.model(last)
    graph.shape = (4, 5, 16)
    result = quantize_model(model, graph.samples(), VNNI)
    assert result.quantization.weights_at_rest == 2
    assert kernels(result.model) == kernels(model)
    assert sqnr_db(model, result.model, graph.samples()) > 30
    assert len(to_bytes(result.model)) < 0.35 * len(to_bytes(model))


def test_an_embedding_at_rest_is_folded_when_the_model_opens():
    graph = Graph((2, 8))
    table = graph.constant(graph.rng.normal(0, 1, (500, 32)).astype(np.float32))
    ids = graph.op("Cast", graph.name, to=7)
    model = graph.model(graph.op("Gather", table, ids))
    samples = [{"x": np.arange(16, dtype=np.float32).reshape(2, 8)}]
    result = quantize_model(model, samples, VNNI)
    assert result.quantization.weights_at_rest == 1
    assert kernels(result.model) == ["Cast", "Gather"]
    assert sqnr_db(model, result.model, samples) > 40


def test_user_excluded_weights_are_not_stored_either():
    graph = Graph((4, 64))
    model = graph.model(graph.op("Einsum", graph.name, graph.matrix(64, 80), equation="ij,jk->ik"))
    with pytest.raises(UnsupportedError):
        quantize_model(model, graph.samples(), QuantizeOptions(selection=Selection(exclude=("Einsum0",))))


@pytest.mark.parametrize("scale", [1.0, 50.0])
@pytest.mark.parametrize("reader", ["Conv", "Split"])
def test_values_of_unlike_scale_are_joined_in_float(scale, reader):
    """A detector's boxes and scores; unless a layer reads the whole, which wants one range for it anyway."""
    graph = Graph((1, 64, 28, 28))
    x = graph.conv_relu(graph.name, 64, 64)
    wide = graph.conv(x, 64, 64)
    graph.weights[graph.nodes[-1].input[1]] *= np.float32(scale)
    joined = graph.op("Concat", wide, graph.conv(x, 64, 64), axis=1)
    if reader == "Split":
        halves = graph.op("Split", joined, graph.constant(np.array([64, 64])), outputs=2, axis=1)
        outputs = [graph.op("Tanh", graph.conv(graph.conv_relu(half, 64, 64), 64, 8)) for half in halves]
    else:
        outputs = [graph.op("Tanh", graph.conv(graph.conv_relu(joined, 128, 64), 64, 8))]
    model = graph.model(*outputs)
    result = quantize_model(model, graph.samples(), VNNI)
    apart = scale > 8 and reader == "Split"
    reasons = {note.node: note.reason for note in result.quantization.left_float}
    (name,) = [node.name for node in model.graph if node.op_type == "Concat"]
    assert ("differ" in reasons.get(name, "")) == apart
    assert ("QLinearConcat" in kernels(result.model)) == (not apart)
    assert sqnr_db(model, result.model, graph.samples()) > (25 if scale == 1 else 20)


def test_a_product_that_some_read_in_float_and_others_as_integers_runs_on_integers():
    """A Q right behind it would spoil the fusion that writes float: a Max stands between."""
    graph = Graph((1, 64, 256), seed=3)
    stream = graph.op("MatMul", graph.name, graph.matrix(256, 256))
    inner = graph.op("Add", graph.op("MatMul", stream, graph.matrix(256, 256)), graph.constant(np.float32([0.5] * 256)))
    model = graph.model(graph.op("Erf", graph.op("Add", stream, graph.op("Erf", inner))))
    result = quantize_model(model, graph.samples(), VNNI)
    assert result.quantization.nodes_quantized == result.quantization.nodes_fused == 2
    assert result.quantization.unfused == []
    assert sqnr_db(model, result.model, graph.samples()) > 25


def test_a_bias_that_the_runtime_rounds_itself_stays_float_and_its_node_fuses():
    graph, model = network()
    for correction in (True, False):
        result = quantize_model(model, graph.samples(), replace(VNNI, bias_correction=correction))
        convs = [node for node in result.model.graph if node.op_type == "Conv"]
        assert [node.inputs[2].dtype for node in convs] == [ir.DataType.FLOAT] * 2
        assert kernels(result.model).count("QLinearConv") == 2
        assert (result.quantization.bias_corrected > 0) == correction


def test_wide_layers_store_biases_in_half_precision_and_no_zeros_and_still_fuse():
    graph = Graph((1, 16, 8, 8))
    x = graph.conv_relu(graph.conv_relu(graph.name, 16, 96), 96, 96, kernel=1)
    x = graph.op("Flatten", graph.op("GlobalAveragePool", x))
    model = graph.model(graph.op("Gemm", x, graph.matrix(96, 80), graph.constant(np.ones(80, np.float32))))
    result = quantize_model(model, graph.samples(), VNNI)
    steps = {use.node.op_type: node for node in result.model.graph for use in node.outputs[0].uses() if is_weight(node)}
    assert len(steps["Conv"].inputs) == 2
    assert constant(steps["Gemm"].inputs[2]).shape == (80,)  # its kernel wants a zero point for every scale
    assert all(constant(node.inputs[1]) is not None for node in steps.values())  # as every reader of the format expects
    halves = [node.inputs[0] for node in result.model.graph if node.op_type == "Cast"]
    assert sorted(constant(value).shape for value in halves) == [(96,), (96,)]
    assert {value.dtype for value in halves} == {ir.DataType.FLOAT16}
    assert kernels(result.model).count("QLinearConv") == 2
    assert result.quantization.unfused == []
    assert all(broken_condition(node) is None for node in result.model.graph if node.op_type == "Conv")
    assert sqnr_db(model, result.model, graph.samples()) > 35


def is_weight(node):
    return node.op_type == "DequantizeLinear" and node.inputs[0].dtype == ir.DataType.INT8


def test_a_bias_that_half_precision_would_move_stays_whole():
    """Where an output is clipped to little of what its bias could make it, the bias is a large number of steps."""
    graph = Graph((1, 16, 8, 8))
    big = graph.conv(graph.conv_relu(graph.name, 16, 96), 96, 96, kernel=1)
    graph.weights[graph.nodes[-1].input[2]] += np.float32(10)
    clipped = graph.op("Clip", big, graph.constant(np.float32(0)), graph.constant(np.float32(1)))
    plain = quantize_model(graph.model(clipped), graph.samples(), VNNI).model
    biases = [node.inputs[2] for node in plain.graph if node.op_type == "Conv"]
    assert [value.producer() is None for value in biases] == [False, True]


def test_what_is_inserted_is_named_briefly_for_what_it_makes():
    graph = Graph((1, 16, 8, 8))
    model = graph.model(graph.op("Tanh", graph.conv_relu(graph.name, 16, 16)))
    before = {node.name for node in model.graph}
    done = quantize_model(model, graph.samples(), VNNI).model
    inserted = [node for node in done.graph if node.name not in before]
    assert [node.name for node in inserted] == [node.outputs[0].name for node in inserted]
    steps = [node for node in done.graph if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert all(node.outputs[0].name.endswith(("_q", "_dq")) for node in steps)


def test_small_models_take_one_thread_of_blas(monkeypatch):
    graph = Graph((1, 4, 8, 8))
    model, seen = graph.model(graph.conv_relu(graph.name, 4, 4)), []
    place = passes.place_by_table

    def looking(*arguments, **named):
        seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return place(*arguments, **named)

    monkeypatch.setattr(passes, "place_by_table", looking)
    with threadpool_limits(2, user_api="blas"):
        passes.quantize_model(model, graph.samples(), QuantizeOptions(target="x64-vnni"))
        assert set(seen) == {1}
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {2}
