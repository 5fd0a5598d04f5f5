"""Sixteen of the integers of a weight, and rounding to them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnxqp.quantize.levels import LEVELS, choose_levels, nearest_levels
from onnxqp.quantize.rounding import factor_of, round_by_hessian


def squares(values, levels, importance=1.0):
    return float((importance * np.square(nearest_levels(values, levels).astype(np.float64) - values)).sum())


def test_no_other_levels_are_better():
    """Of seventeen integers one must go, or two meet in the middle."""
    values = np.repeat(np.arange(-80, 90, 10), np.arange(1, 18)).astype(np.int8)
    found = choose_levels(values)
    there = np.unique(values)
    best = min(squares(values, np.delete(there, gone)) for gone in range(len(there)) if there[gone] != 0)
    assert squares(values, found) <= best
    assert 0 in found


def test_few_integers_are_kept_exactly():
    values = np.array([-128, -3, 0, 0, 5, 127], np.int8)
    assert np.array_equal(nearest_levels(values, choose_levels(values)), values)


def test_importance_draws_levels():
    values = np.arange(-128, 128).astype(np.int8)
    importance = np.where(values > 100, 100.0, 1e-3)
    assert squares(values, choose_levels(values, importance), importance) < 0.1 * squares(
        values, choose_levels(values), importance
    )


@settings(deadline=None, max_examples=25)
@given(arrays(np.int8, st.integers(1, 300)))
def test_levels_are_in_order_and_gaps_bound_the_error(values):
    levels = choose_levels(values)
    assert len(levels) == LEVELS
    assert (np.diff(levels.astype(int)) >= 0).all()
    assert np.count_nonzero(levels == 0)
    error = np.abs(nearest_levels(values, levels).astype(int) - values)
    assert (error == np.abs(values.astype(int)[:, None] - levels).min(axis=1)).all()


@pytest.mark.parametrize("paired", [False, True])
def test_rounding_by_output_takes_levels_and_keeps_pairs(paired):
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(500, 12)) @ rng.normal(size=(12, 12))
    hessian = (rows.T @ rows / 500)[None]
    integers = rng.integers(-128, 128, (1, 12, 6)).astype(np.float64)
    levels = choose_levels(integers.astype(np.int8)).astype(np.float64)
    factor, order = factor_of(hessian, 0.01)
    partner = np.arange(12) ^ 1 if paired else None
    found = round_by_hessian(integers, np.ones_like(integers), factor, order, partner, levels)
    assert set(np.unique(found)) <= set(levels)
    if paired:
        assert np.abs(found[:, ::2] + found[:, 1::2]).max() <= 128
        return
    nearest = nearest_levels(integers, levels.astype(np.int8)).astype(np.float64)
    loss = [float(np.einsum("gio,gij,gjo->", each - integers, hessian, each - integers)) for each in (found, nearest)]
    assert loss[0] < loss[1]
