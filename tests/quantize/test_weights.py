"""Weights: rounding, and sums that cannot saturate; the 16-bit kernel is emulated in numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxqp.quantize.arithmetic import dequantize_linear
from onnxqp.quantize.weights import PAIR_LIMIT, WORST_GROWTH, quantize_weight, worst_pair

CONV = (2, 3, 1)  # kernel rows, kernel columns, input channels
shapes = st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 3), st.integers(1, 3))
weights = shapes.flatmap(lambda s: hnp.arrays(np.float32, s, elements=st.floats(-3, 3, width=32)))


def saturating_sums(x, w):
    """What vpmaddubsw makes of a dot product: pairs added in 16 bits, the rest in 32. x uint8 [..., K], w int8 [K]."""
    products = x.astype(np.int32) * w.astype(np.int32)
    if products.shape[-1] % 2:
        products = np.concatenate([products, np.zeros((*products.shape[:-1], 1), np.int32)], axis=-1)
    pairs = products[..., 0::2] + products[..., 1::2]
    return np.clip(pairs, -32768, 32767).sum(axis=-1)


@settings(max_examples=60, deadline=None)
@given(weights, st.booleans())
def test_every_weight_is_within_half_a_step(w, safe):
    q = quantize_weight(w, 0, summed=CONV, safe=safe)
    assert q.values.dtype == np.int8
    error = np.abs(dequantize_linear(q.values, q.scale, axis=0) - w)
    assert (error <= 0.5001 * q.scale.reshape(-1, 1, 1, 1)).all()


@settings(max_examples=60, deadline=None)
@given(weights)
def test_safe_weights_never_saturate_and_grow_no_more_than_to_seven_bits(w):
    plain = quantize_weight(w, 0)
    safe = quantize_weight(w, 0, summed=CONV, safe=True)
    assert worst_pair(safe.values, CONV) <= PAIR_LIMIT
    assert (safe.scale >= plain.scale).all()
    assert (safe.scale <= plain.scale * WORST_GROWTH * 1.00001).all()
    untouched = safe.scale == plain.scale
    assert safe.made_safe == (~untouched).sum()
    assert np.array_equal(safe.values[untouched], plain.values[untouched])
    rows = safe.values.transpose(0, 2, 3, 1).reshape(len(w), -1)
    x = np.full(rows.shape[1], 255, np.uint8)
    for row in rows:
        assert saturating_sums(x, row) == int(x.astype(np.int32) @ row.astype(np.int32))


def test_plain_weights_do_saturate():
    w = np.full((1, 64, 1, 1), 0.5, np.float32)
    row = quantize_weight(w, 0).values.ravel()
    x = np.full(64, 255, np.uint8)
    assert saturating_sums(x, row) < int(x.astype(np.int32) @ row.astype(np.int32))
    assert worst_pair(row.reshape(1, 64, 1, 1), CONV) == 254


def test_safe_beats_seven_bits():
    w = np.random.default_rng(0).normal(0, 0.1, (64, 64, 3, 3)).astype(np.float32)
    safe = quantize_weight(w, 0, summed=CONV, safe=True)
    seven = quantize_weight(w, 0, at_least=quantize_weight(w, 0).scale * 2)
    error = [np.square(dequantize_linear(q.values, q.scale, axis=0) - w).mean() for q in (safe, seven)]
    assert error[0] < 0.6 * error[1]


@pytest.mark.parametrize(("shape", "axis", "summed"), [((6, 5), 1, (0,)), ((6, 5), 0, (1,)), ((2, 6, 5), None, (1,))])
def test_matrices_pair_along_the_contracted_axis(shape, axis, summed):
    w = np.random.default_rng(1).uniform(0.5, 1, shape).astype(np.float32)
    plain = quantize_weight(w, axis)
    q = quantize_weight(w, axis, summed=summed, safe=True)
    assert worst_pair(plain.values, summed) > PAIR_LIMIT
    along = np.moveaxis(q.values.astype(int), summed[0], -1)
    assert np.abs(along[..., 0:-1:2] + along[..., 1::2]).max() <= PAIR_LIMIT
    assert q.scale.shape == (() if axis is None else (shape[axis],))


def test_depthwise_kernels_need_no_care():
    w = np.ones((4, 1, 3, 3), np.float32)
    assert quantize_weight(w, 0, summed=(), safe=True).made_safe == 0


def test_zero_channels_take_a_usual_scale():
    w = np.array([[0.0, 0.0], [2.54, -1.0]], np.float32)
    q = quantize_weight(w, 0)
    assert q.scale == pytest.approx([0.02, 0.02])
    assert q.values.tolist() == [[0, 0], [127, -50]]
    assert (quantize_weight(np.zeros((2, 2), np.float32), 0).values == 0).all()


def test_a_scale_is_raised_where_a_bias_needs_it():
    w = np.array([[1.27], [1.27]], np.float32)
    q = quantize_weight(w, 0, at_least=np.array([0.0, 0.1], np.float32))
    assert q.scale == pytest.approx([0.01, 0.1])
    assert q.values.tolist() == [[127], [13]]


def test_per_tensor_has_one_scale():
    w = np.array([[1.27], [0.01]], np.float32)
    q = quantize_weight(w, None)
    assert q.scale.shape == ()
    assert q.values.tolist() == [[127], [1]]
