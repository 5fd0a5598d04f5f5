"""Ranges read from a histogram, held against exact computations on the data itself."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxqp.calibrate.observers import Histogram
from onnxqp.calibrate.ranges import METHODS, _Divergence, minmax, mse, percentile, squared_error
from onnxqp.quantize.arithmetic import dequantize_linear, quantize_linear, range_parameters

RNG = np.random.default_rng(0)
DATA = {
    "normal": RNG.normal(0.3, 1.0, 100_000),
    "relu": np.maximum(RNG.normal(0.0, 1.0, 100_000), 0),
    "laplace": RNG.laplace(0, 1.0, 100_000),
    "outliers": np.concatenate([RNG.normal(0, 1.0, 100_000), [60.0, -30.0]]),
    "negative": -np.abs(RNG.normal(0, 1e-4, 100_000)),
    "constant": np.full(1000, 3.0),
}


def histogram(x):
    h = Histogram()
    h.update(np.asarray(x, np.float32))
    return h


def true_error(x, ends):
    scale, zero = range_parameters(*ends)
    return np.mean((dequantize_linear(quantize_linear(x, scale, zero), scale, zero) - x) ** 2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", DATA)
def test_ranges_lie_inside_what_was_seen_and_hold_zero(method, name):
    x = DATA[name].astype(np.float32)
    low, high = METHODS[method](histogram(x))
    assert min(x.min(), 0) <= low <= 0 <= high <= max(x.max(), 0)
    assert low < high


@pytest.mark.parametrize("method", METHODS)
def test_nothing_but_zeros_is_an_empty_range(method):
    assert METHODS[method](histogram(np.zeros(10))) == (0.0, 0.0)
    assert METHODS[method](Histogram()) == (0.0, 0.0)


@pytest.mark.parametrize("name", ["normal", "relu", "laplace", "outliers", "negative"])
@pytest.mark.parametrize("tail", [1e-2, 1e-3])
def test_percentile_agrees_with_the_sorted_data(name, tail):
    x = DATA[name].astype(np.float32)
    h = histogram(x)
    low, high = percentile(h, tail)
    assert low == pytest.approx(min(np.quantile(x, tail), 0.0), abs=2 * h.width)
    assert high == pytest.approx(max(np.quantile(x, 1 - tail), 0.0), abs=2 * h.width)


@pytest.mark.parametrize("name", ["normal", "relu", "laplace", "outliers", "negative"])
def test_the_modelled_error_is_the_true_error(name):
    x = DATA[name].astype(np.float32)
    h = histogram(x)
    for ends in (minmax(h), mse(h), (0.5 * h.low, 0.5 * h.high)):
        assert squared_error(h, ends) == pytest.approx(true_error(x, ends), rel=0.06)


@pytest.mark.parametrize("name", ["normal", "relu", "laplace", "outliers", "negative"])
def test_mse_is_near_the_best_range_there_is(name):
    x = DATA[name].astype(np.float32)
    h = histogram(x)
    low, high = minmax(h)
    grid = np.linspace(0.02, 1.0, 50)
    best = min(
        true_error(x, (low * a, high * b)) for a in (grid if low < 0 else [1.0]) for b in (grid if high > 0 else [1.0])
    )
    assert true_error(x, mse(h)) <= 1.1 * best


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=50))
def test_every_method_takes_any_data(values):
    h = histogram(np.array(values))
    for method in METHODS.values():
        low, high = method(h)
        assert h.low <= low <= 0 or low == 0
        assert 0 <= high <= h.high or high == 0
    assert squared_error(h, mse(h)) <= squared_error(h, minmax(h)) * (1 + 1e-9)


def test_moving_average_is_the_mean_of_the_samples():
    h = Histogram()
    for sample in ([-1.0, 2.0], [-3.0, 4.0], [0.5, 30.0]):
        h.update(np.array(sample, np.float32))
    assert METHODS["moving-average"](h) == pytest.approx(((-1 - 3 + 0.5) / 3, 12.0))


def divergence(counts, middle, first, last):
    """Kullback-Leibler divergence of the bins first..last, level by level, as it is defined."""
    reference = counts[first:last].astype(np.float64)
    reference[0] += counts[:first].sum()
    reference[-1] += counts[last:].sum()
    edges = [len(reference) * level // 256 for level in range(257)]
    candidate = np.zeros_like(reference)
    inside = counts[first:last]
    for a, b in pairwise(edges):
        filled = reference[a:b] > 0
        candidate[a:b] = np.where(filled, max(inside[a:b].sum(), 1) / max(filled.sum(), 1), 0)
    reference /= counts.sum()
    candidate /= inside.sum()
    some = reference > 0
    return float((reference[some] * np.log(reference[some] / candidate[some])).sum())


@pytest.mark.parametrize("name", ["normal", "relu", "laplace", "outliers"])
def test_entropy_is_the_divergence_by_definition(name):
    h = histogram(DATA[name])
    middle = h.counts.size // 2
    for share in (1.0, 0.7, 0.4):
        low, high = share * min(h.low, 0.0), share * h.high
        first, last = middle + int(np.floor(low / h.width)), middle + int(np.ceil(high / h.width))
        expected = divergence(h.counts, middle, first, last) if last - first >= 256 else np.inf
        assert _Divergence(h).total(low, high) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_entropy_clips_outliers_and_not_what_is_uniform():
    low, high = METHODS["entropy"](histogram(DATA["outliers"]))
    assert -20 < low < -3
    assert 3 < high < 20
    low, high = METHODS["entropy"](histogram(RNG.uniform(0, 1, 100_000)))
    assert (low, high) == pytest.approx((0.0, 1.0), abs=0.02)
