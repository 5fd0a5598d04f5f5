"""Streaming statistics: exact merging, independence of batching, and memory that does not grow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxqp.calibrate.observers import (
    BINS,
    COUNTED,
    LEAST_EXPONENT,
    OF_ONE_SAMPLE,
    ORDINARY,
    Histogram,
    MinMax,
    counted,
)

elements = st.one_of(
    st.floats(-4, 4, width=32),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**-149, -(2.0**-149), 2.0**127]),
)
arrays = hnp.arrays(np.float32, st.integers(0, 30), elements=elements)


def histogram(*parts):
    h = Histogram()
    for part in parts:
        h.update(part)
    return h


def same(a, b):
    assert (a.low, a.high, a.count, a.zeros, a.exponent) == (b.low, b.high, b.count, b.zeros, b.exponent)
    assert np.array_equal(a.counts, b.counts)


@settings(max_examples=80, deadline=None)
@given(st.lists(arrays, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_one_pass_equals_any_batching_and_any_order(parts, random):
    everything = histogram(np.concatenate(parts))
    same(histogram(*parts), everything)
    random.shuffle(parts)
    same(histogram(*parts), everything)


@settings(max_examples=80, deadline=None)
@given(st.lists(arrays, min_size=2, max_size=6), st.integers(0, 5))
def test_merging_is_observing_both(parts, cut):
    left, right = histogram(*parts[:cut]), histogram(*parts[cut:])
    left.merge(right)
    same(left, histogram(*parts))


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-100, 100, width=32)))
def test_bins_hold_what_they_say(x):
    h = histogram(x)
    assert h.counts.sum() + h.zeros == h.count == x.size
    if h.width:
        for value in x[x != 0]:
            k = int(abs(float(value)) / h.width)
            assert h.counts[BINS + k if value > 0 else BINS - 1 - k] > 0
        least = h.exponent == LEAST_EXPONENT
        assert least or np.abs(x).max() >= h.width * BINS / 2, "the width is the smallest that holds everything"


def test_zeros_are_kept_apart():
    h = histogram(np.array([0.0, -0.0, 1.0, -1.0, 0.0], np.float32))
    assert h.zeros == 3
    assert h.counts.sum() == 2
    assert histogram(np.zeros(5, np.float32)).range == (0.0, 0.0)


@pytest.mark.parametrize("observer", [MinMax, Histogram])
def test_not_finite_elements_are_counted_and_left_out(observer):
    o = observer()
    o.update(np.array([1.0, np.nan, -2.0, np.inf, -np.inf], np.float32))
    assert o.range == (-2.0, 1.0)
    assert o.invalid == 3
    assert o.count == 2
    o.update(np.array([np.nan], np.float32))
    assert o.invalid == 4
    assert o.range == (-2.0, 1.0)
    assert observer().range == (0.0, 0.0)


def test_minmax_merges():
    a, b = MinMax(), MinMax()
    a.update(np.array([[1.0, 2.0]]))
    b.update(np.float32(-3.0))
    a.merge(b)
    assert a.range == (-3.0, 2.0)
    assert a.count == 3


def test_memory_does_not_grow():
    h = Histogram()
    rng = np.random.default_rng(0)
    for scale in range(1, 40):
        h.update(rng.normal(0, scale, 1000))
    assert h.counts.nbytes == 2 * BINS * 8


@settings(max_examples=60, deadline=None)
@given(st.lists(hnp.arrays(np.float32, (3, 4), elements=st.floats(-1e3, 1e3, width=32)), min_size=1, max_size=5))
def test_mean_extremes_do_not_depend_on_how_samples_are_stacked(samples):
    alone, stacked, left, right = Histogram(), Histogram(), Histogram(), Histogram()
    for index, sample in enumerate(samples):
        alone.update(sample[None])
        (left if index % 2 else right).update(sample[None])
    stacked.update(np.stack(samples[::-1]), len(samples))
    left.merge(right)
    expected = np.mean([x.min() for x in samples]), np.mean([x.max() for x in samples])
    for each in (alone, stacked, left):
        assert each.samples == len(samples)
        assert each.mean_range == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_what_cannot_be_cut_into_samples_counts_for_each_of_them():
    observer = MinMax()
    observer.update(np.array([[1.0, 5.0]], np.float32), 4)
    observer.update(np.array([[np.nan, -3.0], [2.0, np.inf]], np.float32), 2)
    assert (observer.samples, observer.invalid, observer.count) == (6, 2, 4)
    assert observer.mean_range == pytest.approx(((4 * 1 - 3 + 2) / 6, (4 * 5 - 3 + 2) / 6))


def test_values_that_share_a_range_keep_the_wider_one():
    small, large = histogram(np.array([-1.0, 1.0], np.float32)), histogram(np.array([-8.0, 0.5], np.float32))
    small.unite(large)
    assert small.mean_range == (-8.0, 1.0)
    assert (small.samples, small.count, small.range) == (1, 4, (-8.0, 1.0))


@pytest.mark.parametrize("shape", [(64, 49, 49), (7, 300, 301), (20000,)])
def test_of_large_samples_a_part_is_counted_for_all(shape):
    x = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    x[x < -1] = 0
    whole, part, stacked = Histogram(), Histogram(1000), Histogram(1000)
    whole.update(x, 4)
    stacked.update(x, 4)
    for each in x:
        part.update(each[None])
    same(part, stacked)
    assert (part.low, part.high, part.count, part.exponent) == (whole.low, whole.high, x.size, whole.exponent)
    assert 0.999 * x.size < part.counts.sum() + part.zeros <= x.size
    assert part.zeros == pytest.approx(whole.zeros, rel=0.15)
    assert np.abs(np.cumsum(part.counts) - np.cumsum(whole.counts)).max() < 0.03 * x.size


@pytest.mark.parametrize("channels", [8, 64, 250])
def test_a_part_is_from_all_channels_alike(channels):
    x = np.repeat(np.arange(1, 1 + channels, dtype=np.float32), 8000).reshape(1, channels, 8000)
    for layout in (x, np.ascontiguousarray(x.transpose(0, 2, 1))):
        h = Histogram(200 * channels)
        h.update(layout)
        found = h.counts[h.counts > 0]
        assert found.sum() == x.size
        assert np.abs(np.cumsum(found) - np.linspace(0, x.size, len(found) + 1)[1:]).max() < 0.03 * x.size


def _counted_alone(h):
    """How many elements the histogram has looked at, where each of them stood for equally many."""
    return (h.counts.sum() + h.zeros) // np.gcd.reduce([*h.counts[h.counts > 0], *([h.zeros] if h.zeros else [])])


def test_more_is_counted_where_few_reach_far():
    random = np.random.default_rng(0)
    even = random.uniform(-1, 1, (1, 1 << 18)).astype(np.float32)
    spiky = even.copy()
    spiky[0, random.integers(even.size, size=5)] = 40
    most = OF_ONE_SAMPLE[0] * ORDINARY
    few, many = Histogram(most), Histogram(most)
    few.update(even)
    many.update(spiky)
    assert _counted_alone(few) == most // ORDINARY
    assert _counted_alone(many) == most
    both = Histogram(most)
    both.update(np.concatenate([even, spiky]), 2)
    few.merge(many)
    same(both, few)


def test_of_more_samples_less_of_each_is_counted():
    least, most = OF_ONE_SAMPLE
    assert counted(0) == counted(1) == most
    assert counted(10**6) == least
    between = 3 * COUNTED // (least + most)
    assert least < counted(between) < most
    assert COUNTED - between < counted(between) * between <= COUNTED
