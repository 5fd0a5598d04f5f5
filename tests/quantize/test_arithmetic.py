"""The elementary arithmetic, held against the ONNX reference operators and against its own promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from onnxqp.errors import DataError, UsageError
from onnxqp.quantize.arithmetic import (
    BIAS_LIMIT,
    dequantize_linear,
    integer_limits,
    quantize_bias,
    quantize_linear,
    range_parameters,
    scale_and_zero_point,
    smallest_weight_scale,
    storage_dtype,
)

floats = st.floats(-1e6, 1e6, width=32)
lists = st.lists(floats, min_size=1, max_size=40)
grids = st.tuples(st.integers(4, 16), st.booleans(), st.booleans())  # bits, signed, symmetric


def reference(x, scale, zero_point, axis):
    """Quantize and dequantize with the operators of the ONNX standard."""
    y_type = helper.np_dtype_to_tensor_dtype(zero_point.dtype)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=axis),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=axis),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        helper.make_tensor_value_info("s", TensorProto.FLOAT, None),
        helper.make_tensor_value_info("z", y_type, None),
    ]
    outputs = [helper.make_tensor_value_info("q", y_type, None), helper.make_tensor_value_info("y", 1, None)]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return ReferenceEvaluator(model).run(None, {"x": x, "s": scale, "z": zero_point})


@settings(max_examples=60, deadline=None)
@given(lists, grids)
def test_a_round_trip_stays_within_half_a_step(values, grid):
    bits, signed, symmetric = grid
    x = np.array(values, np.float32)
    scale, zero = scale_and_zero_point(x, bits=bits, signed=signed, symmetric=symmetric)
    back = dequantize_linear(quantize_linear(x, scale, zero, bits=bits, signed=signed), scale, zero)
    assert np.abs(back - x).max() <= scale * (0.5 + 1e-5 * 2**bits)


@settings(max_examples=60, deadline=None)
@given(st.lists(lists.map(lambda v: (v * 7)[:7]), min_size=1, max_size=5), grids)
def test_per_axis_is_the_scalar_rule_for_each_index(rows, grid):
    bits, signed, symmetric = grid
    kind = {"bits": bits, "signed": signed}
    x = np.array(rows, np.float32)
    scale, zero = scale_and_zero_point(x, symmetric=symmetric, axis=0, **kind)
    q = quantize_linear(x, scale, zero, axis=0, **kind)
    for i, row in enumerate(x):
        s, z = scale_and_zero_point(row, symmetric=symmetric, **kind)
        assert (s, z) == (scale[i], zero[i])
        assert np.array_equal(q[i], quantize_linear(row, s, z, **kind))


@pytest.mark.parametrize(
    ("dtype", "signed"), [(np.uint8, False), (np.int8, True), (np.uint16, False), (np.int16, True)]
)
@pytest.mark.parametrize("axis", [None, 1])
def test_the_onnx_operators_give_the_same_integers(dtype, signed, axis):
    x = np.random.default_rng(0).normal(0, 30, (50, 8)).astype(np.float32)
    bits = np.dtype(dtype).itemsize * 8
    scale, zero = scale_and_zero_point(x / 2, bits=bits, signed=signed, axis=axis)  # half the range: some saturate
    q = quantize_linear(x, scale, zero, bits=bits, signed=signed, axis=axis)
    expected_q, expected_y = reference(x, scale, zero, 1)
    assert q.dtype == zero.dtype == dtype
    assert np.array_equal(q, expected_q)
    assert np.array_equal(dequantize_linear(q, scale, zero, axis=axis), expected_y)


def test_ties_go_to_even():
    assert quantize_linear(np.array([0.5, 1.5, 2.5, -0.5, -1.5]), 1.0, signed=True).tolist() == [0, 2, 2, 0, -2]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [4, 7, 8, 16])
def test_zero_is_exact_and_the_range_is_used(bits, signed):
    low, high = integer_limits(bits, signed)
    for bottom, top in [(0.3, 5.0), (-7.0, -1.0), (-1.0, 3.0)]:  # 0 is put into the first two
        scale, zero = range_parameters(bottom, top, bits=bits, signed=signed)
        assert dequantize_linear(zero, scale, zero) == 0.0
        q = quantize_linear(np.array([min(bottom, 0.0), max(top, 0.0)]), scale, zero, bits=bits, signed=signed)
        assert q.tolist() == [low, high]


def test_symmetric_zero_points_are_in_the_middle():
    assert range_parameters(-1.0, 0.5, signed=True, symmetric=True) == (np.float32(1 / 127), 0)
    assert range_parameters(-1.0, 0.5, symmetric=True) == (np.float32(1 / 127), 128)


def test_degenerate_and_tiny_ranges_have_usable_scales():
    assert range_parameters(0.0, 0.0) == (1.0, 0)
    scale, _ = range_parameters(0.0, 1e-42)
    assert scale >= np.finfo(np.float32).tiny
    scale, zero = scale_and_zero_point(np.array([[0.0, 0.0], [1.0, 2.0]]), axis=0, symmetric=True, signed=True)
    assert scale[0] == 1.0
    assert zero.tolist() == [0, 0]
    assert scale_and_zero_point(np.zeros((0,), np.float32))[0] == 1.0


def test_a_given_step_is_kept():
    x = np.array([-1.0, 0.5, 3.0], np.float32)
    scale, zero = scale_and_zero_point(x, step=0.25)
    assert scale == 0.25
    assert zero == 4
    assert quantize_linear(x, scale, zero).tolist() == [0, 6, 16]


def test_four_bits_live_in_one_byte():
    assert storage_dtype(4, signed=True) == np.int8
    q = quantize_linear(np.array([-100.0, -1.0, 100.0]), 1.0, bits=4, signed=True)
    assert q.dtype == np.int8
    assert q.tolist() == [-8, -1, 7]


def test_infinity_saturates_and_nan_is_an_error():
    assert quantize_linear(np.array([-np.inf, np.inf]), 1.0, 3).tolist() == [0, 255]
    assert quantize_linear(np.array([3e38, -3e38], np.float32), 1e-30).tolist() == [255, 0]
    with pytest.raises(DataError):
        quantize_linear(np.array([np.nan]), 1.0)
    with pytest.raises(DataError):
        scale_and_zero_point(np.array([1.0, np.inf]))


@pytest.mark.parametrize(
    ("scale", "zero", "keywords"),
    [
        (1.0, 0, {"bits": 3}),
        (1.0, 0, {"bits": 17}),
        (0.0, 0, {}),
        (1.0, 256, {}),
        (1.0, 200, {"signed": True}),
        ([1.0, 2.0], 0, {}),
        ([1.0, 2.0], 0, {"axis": 0}),
        ([1.0, 2.0], 0, {"axis": 5}),
    ],
)
def test_parameters_that_do_not_fit_are_refused(scale, zero, keywords):
    with pytest.raises(UsageError):
        quantize_linear(np.ones(3), scale, zero, **keywords)


@pytest.mark.parametrize("step", [0.0, -1.0, np.nan, np.inf])
def test_a_senseless_step_is_refused(step):
    with pytest.raises(UsageError):
        scale_and_zero_point(np.ones(3), step=step)


@settings(max_examples=60, deadline=None)
@given(lists, st.floats(1e-6, 10.0), st.floats(1e-9, 1.0))
def test_a_bias_fits_once_the_weight_scale_is_large_enough(values, x_scale, w_scale):
    bias = np.array(values, np.float32)
    scale = np.maximum(np.float32(w_scale), smallest_weight_scale(bias, x_scale))
    q = quantize_bias(bias, x_scale, scale)
    assert np.abs(q).max() <= BIAS_LIMIT
    step = np.float64(x_scale) * scale
    assert (np.abs(q * step - bias) <= 0.5 * step + 1e-6 * np.abs(bias)).all()


def test_a_bias_that_overflows_is_an_error():
    with pytest.raises(UsageError):
        quantize_bias(np.array([1e3], np.float32), 1e-4, 1e-4)
