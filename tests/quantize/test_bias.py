"""Bias correction, held against what rounding really does to the mean of an output."""

import numpy as np
import pytest

from onnxqp.quantize.arithmetic import dequantize_linear
from onnxqp.quantize.bias import mean_shift
from onnxqp.quantize.weights import quantize_weight

RNG = np.random.default_rng(0)


def rounded(weight, axis):
    q = quantize_weight(weight, axis)
    return dequantize_linear(q.values, q.scale, axis=axis)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_a_1x1_convolution_of_any_groups(groups):
    w = RNG.normal(0, 1, (12, 6 // groups, 1, 1)).astype(np.float32)
    x = RNG.uniform(0, 3, (400, 6)).astype(np.float32)
    r = rounded(w, 0)

    def outputs(weight):
        parts = x.reshape(400, groups, -1)
        return np.einsum("ngi,goi->ngo", parts, weight.reshape(groups, 12 // groups, -1)).reshape(400, 12)

    shift = mean_shift(w, r, x.mean(axis=0, dtype=np.float64), 0, (2, 3, 1))
    assert shift == pytest.approx((outputs(w) - outputs(r)).mean(axis=0), abs=1e-5)


@pytest.mark.parametrize(("axis", "summed"), [(1, (0,)), (0, (1,))])
def test_matrices_both_ways_round(axis, summed):
    w = RNG.normal(0, 1, (5, 7)).astype(np.float32)
    r = rounded(w, axis)
    mean = RNG.uniform(-1, 1, w.shape[summed[0]])
    expected = mean @ (w - r) if axis == 1 else (w - r) @ mean
    assert mean_shift(w, r, mean, axis, summed) == pytest.approx(expected, abs=1e-6)


def test_kernels_are_summed_over():
    w = RNG.normal(0, 1, (4, 3, 3, 3)).astype(np.float32)
    r = rounded(w, 0)
    mean = np.array([1.0, -2.0, 0.5])
    expected = np.einsum("oikl,i->o", w - r, mean)
    assert mean_shift(w, r, mean, 0, (2, 3, 1)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("mean", [np.ones(4), np.array([1.0, np.nan, 0.0])])
def test_means_that_do_not_fit_correct_nothing(mean):
    w = RNG.normal(0, 1, (4, 3, 1, 1)).astype(np.float32)
    assert mean_shift(w, w, mean, 0, (2, 3, 1)) is None
