"""Recurrent layers that compute on integers: what they compute, when they are taken, and what the report says."""

import importlib

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxqp.model import clone
from onnxqp.options import QuantizeOptions, Selection
from onnxqp.quantize.budget import REASON
from onnxqp.quantize.candidate import Candidate
from onnxqp.quantize.quality import Probe, decibels
from onnxqp.quantize.weights import worst_pair
from onnxqp.runtime import all_nodes, optimized_graph
from onnxqp.steps import count_macs
from onnxqp.targets import resolve

recurrent = importlib.import_module("onnxqp.quantize.recurrent")
outlook = importlib.import_module("onnxqp.quantize.outlook")
passes = importlib.import_module("onnxqp.quantize.passes")

HIDDEN, WIDTH, STEPS = 32, 24, 5


def lstm(*, direction="forward", body=False, bias=True, **attributes):
    """x [steps, 1, WIDTH] -> LSTM -> y; in the branch of an If where `body`."""
    rng = np.random.default_rng(0)
    directions = 2 if direction == "bidirectional" else 1
    weights = {
        "W": rng.normal(0, 0.3, (directions, 4 * HIDDEN, WIDTH)).astype(np.float32),
        "R": rng.normal(0, 0.3, (directions, 4 * HIDDEN, HIDDEN)).astype(np.float32),
        "B": rng.normal(0, 0.1, (directions, 8 * HIDDEN)).astype(np.float32),
    }
    weights["W"][:, :HIDDEN] *= 30  # gates of unlike size: one scale for all would spoil the others
    weights["W"][:, :HIDDEN, 1:] /= 100
    inputs = ["x", "W", "R", "B" if bias else ""]
    node = onnx.helper.make_node(
        "LSTM", inputs, ["y"], name="lstm", hidden_size=HIDDEN, direction=direction, **attributes
    )
    value = onnx.helper.make_tensor_value_info
    shape = [STEPS, directions, 1, HIDDEN]
    initializers = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items() if name in inputs]
    outputs = [value("y", onnx.TensorProto.FLOAT, shape)]
    nodes, given = [node], [value("x", onnx.TensorProto.FLOAT, [STEPS, 1, WIDTH])]
    if body:
        branch = onnx.helper.make_graph([node], "then", [], outputs, initializers)
        zeros = onnx.helper.make_node("Mul", ["shaped", "none"], ["y_else"], name="zeros")
        none = onnx.numpy_helper.from_array(np.zeros(shape, np.float32), "none")
        mean = onnx.helper.make_node("ReduceMean", ["x"], ["shaped"], name="mean", keepdims=0)
        other = onnx.helper.make_graph(
            [mean, zeros], "else", [], [value("y_else", onnx.TensorProto.FLOAT, shape)], [none]
        )
        nodes = [onnx.helper.make_node("If", ["yes"], ["y"], name="if", then_branch=branch, else_branch=other)]
        given.append(value("yes", onnx.TensorProto.BOOL, []))
        initializers = []
    graph = onnx.helper.make_graph(nodes, "recurrent", given, outputs, initializers)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return ir.from_proto(model)


def feeds(count=8, *, body=False):
    rng = np.random.default_rng(1)
    extra = {"yes": np.array(True)} if body else {}
    return [{"x": rng.normal(0, 1, (STEPS, 1, WIDTH)).astype(np.float32)} | extra for _ in range(count)]


def on_integers(model, *, per_tensor=False, saturates=True):
    work = clone(model)
    recurrent.quantize_recurrences(work, ["lstm"], per_tensor=per_tensor, saturates=saturates)
    return work


def kernels(model):
    return [node.op_type for node in all_nodes(optimized_graph(model).graph)]


def quality(model, work, *, body=False):
    return decibels(Probe(model, feeds(body=body)).noise_of(work))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("bias", [False, True])
def test_one_layer_is_one_kernel_and_nearly_as_exact(direction, bias):
    model = lstm(direction=direction, bias=bias)
    work = on_integers(model)
    assert kernels(work) == ["DynamicQuantizeLSTM"]
    assert not any(
        value.dtype == ir.DataType.FLOAT and value.name in "WR" for value in work.graph.initializers.values()
    )
    assert quality(model, work) > 30
    assert count_macs(work) == count_macs(model) > 0


def test_scales_per_gate_are_worth_it():
    model = lstm()
    assert quality(model, on_integers(model)) > quality(model, on_integers(model, per_tensor=True)) + 3


@pytest.mark.parametrize("saturates", [False, True])
def test_sums_of_16_bits_hold_where_they_must(saturates):
    model = lstm()
    for value in (model.graph.initializers["W"], model.graph.initializers["R"]):
        value.const_value = ir.tensor(np.full_like(value.const_value.numpy(), 0.5), name=value.name)
    work = on_integers(model, saturates=saturates)
    pairs = [
        worst_pair(value.const_value.numpy()[0], (0,))
        for value in work.graph.initializers.values()
        if value.dtype == ir.DataType.INT8 and value.name.endswith("_quantized")
    ]
    assert len(pairs) == 2
    assert all(pair <= 128 for pair in pairs) is saturates


def test_inside_a_body():
    model = lstm(body=True)
    work = on_integers(model)
    assert "DynamicQuantizeLSTM" in kernels(work)
    assert quality(model, work, body=True) > 30


def test_a_layout_of_its_own_has_no_kernel():
    with pytest.raises(ValueError, match="no integer kernel"):
        on_integers(lstm(layout=1))


def with_clock(monkeypatch, model, speedup, options=None):
    monkeypatch.setattr(outlook, "race_models", lambda models, probe, threads: (1.0, [speedup]))
    found, _ = outlook.with_integer_recurrences(
        model, resolve("x64-vnni"), options or QuantizeOptions(), Probe(model, feeds()), threads=1
    )
    return found


def test_taken_only_where_it_is_faster_as_exact_and_not_excluded(monkeypatch):
    model = lstm()
    assert kernels(with_clock(monkeypatch, model, 1.3)) == ["DynamicQuantizeLSTM"]
    assert with_clock(monkeypatch, model, 1.0) is model
    excluded = QuantizeOptions(selection=Selection(exclude=("lstm",)))
    assert with_clock(monkeypatch, model, 1.3, excluded) is model
    monkeypatch.setattr(Probe, "noise_of", lambda self, model: 0.01)  # 20 dB
    assert with_clock(monkeypatch, model, 1.3) is model


@pytest.mark.parametrize("speedup", [1.3, 0.9])
def test_the_report_counts_the_layer_or_says_why_not(monkeypatch, speedup):
    monkeypatch.setattr(outlook, "race_models", lambda models, probe, threads: (1.0, [speedup]))
    result = passes.quantize_model(lstm(), feeds(), QuantizeOptions())
    record = result.quantization
    assert isinstance(result.candidate, Candidate)
    if speedup > 1:
        assert (record.nodes_quantizable, record.nodes_quantized, record.nodes_fused) == (1, 1, 1)
        assert not record.left_float
        assert not record.unfused
    else:
        assert record.nodes_quantized == 0
        assert record.weights_at_rest == 2
        assert [(note.node, note.op_type) for note in record.left_float] == [("lstm", "LSTM")]
        assert "--target auto" in record.left_float[0].reason


@pytest.mark.parametrize("body", [False, True])
def test_a_budget_gives_the_layer_its_float_weights_back(monkeypatch, body):
    monkeypatch.setattr(outlook, "race_models", lambda models, probe, threads: (1.0, [1.3]))
    model = lstm(body=body)
    result = passes.quantize_model(model, feeds(body=body), QuantizeOptions())
    assert "DynamicQuantizeLSTM" in kernels(result.model)
    found = result.within(lambda each: "DynamicQuantizeLSTM" not in kernels(each))
    assert [(each.integers, each.kept, each.speedup) for each in found.tried] == [(0, True, 1.0)]
    assert "LSTM" in kernels(found.model)
    assert quality(model, found.model, body=body) > quality(model, result.model, body=body)
    assert found.quantization.nodes_quantized == 0
    assert found.quantization.weights_at_rest == 2
    notes = [(note.op_type, note.reason) for note in found.quantization.left_float if note.node == "lstm"]
    assert notes == [("LSTM", REASON)]  # as the file that was given names it, and as the file written does
    assert "DynamicQuantizeLSTM" in kernels(result.model)  # the first candidate is as it was


def test_a_budget_that_nothing_keeps_leaves_the_layer_on_integers(monkeypatch):
    monkeypatch.setattr(outlook, "race_models", lambda models, probe, threads: (1.0, [1.3]))
    result = passes.quantize_model(lstm(), feeds(), QuantizeOptions())
    found = result.within(lambda each: False)
    assert kernels(found.model) == ["DynamicQuantizeLSTM"]
    assert [each.kept for each in found.tried] == [False]
