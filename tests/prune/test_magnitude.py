"""Elementary pruning of one weight."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxqp.errors import UsageError
from onnxqp.prune.magnitude import prune_filters, prune_magnitude, share_of, slice_norms

WEIGHTS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=4, max_side=6), elements=st.integers(-8, 8))


def test_counts_round_ties_to_even() -> None:
    assert [share_of(0.5, n) for n in (5, 7, 8)] == [2, 4, 4]
    assert share_of(0.0, 9) == 0
    with pytest.raises(UsageError):
        share_of(1.5, 4)


def test_threshold() -> None:
    weights = np.array([[0.5, -0.1], [0.2, -0.9]], np.float32)
    pruned = prune_magnitude(weights, threshold=0.2)
    np.testing.assert_array_equal(pruned, np.array([[0.5, 0], [0.2, -0.9]], np.float32))
    assert weights[0, 1] != 0


def test_ratio() -> None:
    pruned = prune_magnitude(np.array([3.0, -1.0, 2.0, -4.0]), ratio=0.5)
    assert pruned.tolist() == [3.0, 0.0, 0.0, -4.0]


@given(WEIGHTS, st.floats(0, 1))
def test_ratio_removes_the_smallest(weights: np.ndarray, ratio: float) -> None:
    pruned = prune_magnitude(weights, ratio=ratio)
    gone = (pruned == 0) & (weights != 0)
    assert pruned.shape == weights.shape
    assert pruned.dtype == weights.dtype
    assert np.count_nonzero(pruned) == min(np.count_nonzero(weights), weights.size - share_of(ratio, weights.size))
    if gone.any() and pruned.any():
        assert np.abs(weights[gone]).max() <= np.abs(pruned[pruned != 0]).min()


@pytest.mark.parametrize("arguments", [{}, {"threshold": 1.0, "ratio": 0.5}, {"ratio": -0.1}])
def test_magnitude_arguments(arguments: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        prune_magnitude(np.ones(3), **arguments)


def test_norms_follow_the_order_of_axes() -> None:
    weights = np.arange(24, dtype=np.float32).reshape(2, 3, 4) - 12
    np.testing.assert_allclose(slice_norms(weights, 1), np.abs(weights).sum((0, 2)))
    np.testing.assert_allclose(slice_norms(weights, (2, 0)), np.abs(weights).sum(1).T)
    np.testing.assert_allclose(slice_norms(weights, -1, order=2), np.sqrt((weights**2).sum((0, 1))))


@given(WEIGHTS, st.floats(0, 1), st.data())
def test_filters_that_stay_are_the_strongest(weights: np.ndarray, ratio: float, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, weights.ndim - 1))
    pruned, kept = prune_filters(weights, axis, ratio=ratio)
    count = weights.shape[axis]
    assert pruned.shape[axis] == len(kept) == max(1, count - share_of(ratio, count))
    assert (np.diff(kept) > 0).all()
    np.testing.assert_array_equal(pruned, np.take(weights, kept, axis=axis))
    norms = slice_norms(weights, axis)
    gone = np.setdiff1d(np.arange(count), kept)
    assert not len(gone) or norms[gone].max() <= norms[kept].min()
