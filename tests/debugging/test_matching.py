"""Which value stands for which: names of our own, of onnxruntime.quantization, and what must not be looked at."""

import numpy as np
import onnx_ir as ir
import pytest
from debugging_graphs import baseline, candidate
from onnx import TensorProto, helper

from onnxqp.debugging import closest, with_shapes
from onnxqp.debugging.matching import Quantizer, match


def found(one, other):
    return {pair.name: pair for pair in match(with_shapes(one), with_shapes(other))}


@pytest.mark.parametrize("suffix", ["_dequantized", "_DequantizeLinear_Output", "_anything"])
def test_quantized_values_are_found_behind_their_dequantization(suffix):
    pairs = found(baseline(), candidate(suffix=suffix))
    assert list(pairs) == ["x", "a", "b", "c0", "c", "y"]
    assert [pairs[name].candidate for name in ("x", "a", "b")] == [f"{name}{suffix}" for name in ("x", "a", "b")]
    assert (pairs["x"].node, pairs["a"].node, pairs["y"].node) == ("", "n_a", "n_y")
    assert pairs["a"].quantizer == Quantizer(pytest.approx(16 / 255), 0, 0, 255)
    assert pairs["y"].quantizer is None
    assert pairs["c"].candidate == "c"


def test_values_inside_integer_kernels_are_left_alone():
    pairs = found(baseline(), candidate())
    assert "a0" not in pairs
    assert "b0" not in pairs


def test_a_float_model_is_compared_value_by_value():
    assert list(found(baseline(), baseline())) == ["a0", "a", "b0", "b", "c0", "c", "y"]


def test_values_of_other_shapes_are_no_pair():
    narrow = candidate(w1=np.ones((8, 16, 3, 3), np.float32), w2=np.ones((16, 8, 1, 1), np.float32))
    assert list(found(baseline(), narrow)) == ["x", "b", "c0", "c", "y"]


def test_only_floats_are_compared():
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Expand", ["h", "s"], ["y"]),
        helper.make_node("Relu", ["x"], ["z"]),
    ]
    sides = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 3]) for n in "xyz"}
    half = helper.make_tensor("h", TensorProto.FLOAT, [1, 1], [0.5])
    graph = helper.make_graph(nodes, "g", [sides["x"]], [sides["y"], sides["z"]], [half])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    assert list(found(ir.from_proto(proto), ir.from_proto(proto))) == ["y", "z"]


def test_the_clean_form_of_the_baseline_is_preferred_unless_the_other_shares_more():
    clean, raw, other = with_shapes(baseline()), with_shapes(baseline()), with_shapes(candidate())
    assert closest(clean, raw, other) is clean
    for value in (value for node in clean.graph for value in node.outputs):
        value.name = f"{value.name}_renamed"
    assert closest(clean, raw, other) is raw


def test_signed_and_wide_grids():
    assert Quantizer(0.5, 0, -128, 127).range == (-64.0, 63.5)
    other = candidate()
    for name in ("a_zero", "x_zero", "b_zero"):
        other.graph.initializers[name].const_value = ir.tensor(np.array(0, np.int16))
    assert found(baseline(), other)["a"].quantizer == Quantizer(pytest.approx(16 / 255), 0, -(2**15), 2**15 - 1)
