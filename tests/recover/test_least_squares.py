"""Moments and the refit, without a model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxqp.calibrate.moments import Moments
from onnxqp.recover.least_squares import compensate, refit, solve

FloatArray = npt.NDArray[np.float64]


def moments_of(x: FloatArray, y: FloatArray) -> Moments:
    made = Moments.about(x.mean(axis=1), y.mean(axis=1))
    made.update(x, y)
    return made


def split(x: FloatArray, y: FloatArray) -> tuple[Moments, Moments]:
    origins = x.mean(axis=1), y.mean(axis=1)
    fit, held = Moments.about(*origins), Moments.about(*origins)
    half = x.shape[1] // 2
    fit.update(x[:, :half], y[:, :half])
    held.update(x[:, half:], y[:, half:])
    return fit, held


def problem(
    seed: int, groups: int, inputs: int, outputs: int, rows: int = 200
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Rows with a mean far from zero, a weight and a bias."""
    random = np.random.default_rng(seed)
    x = random.normal(3.0, 1.0, (groups, rows, inputs))
    return x, random.normal(size=(groups, inputs, outputs)), random.normal(size=(groups, outputs))


sizes = st.tuples(st.integers(0, 99), st.integers(1, 3), st.integers(1, 5), st.integers(1, 4))


@settings(max_examples=30, deadline=None)
@given(sizes)
def test_nothing_cut_nothing_changed(size: tuple[int, int, int, int]) -> None:
    x, matrix, bias = problem(*size)
    found = refit(*split(x, x @ matrix + bias[:, None]), matrix, bias)
    assert found.after <= found.before < 1e-12
    np.testing.assert_allclose(found.matrix, matrix, atol=1e-6)
    np.testing.assert_allclose(found.bias, bias, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(sizes, st.integers(1, 3))
def test_what_is_a_linear_combination_of_the_rest_is_not_missed(size: tuple[int, int, int, int], gone: int) -> None:
    x, matrix, bias = problem(*size)
    random = np.random.default_rng(size[0] + 1)
    mixing = random.normal(size=(size[1], size[2], gone))
    removed = x @ mixing + random.normal(size=(size[1], 1, gone))
    lost = random.normal(size=(size[1], gone, size[3]))
    y = x @ matrix + removed @ lost + bias[:, None]
    found = refit(*split(x, y), matrix, bias, dampings=(1e-10,))
    assert found.kind == "least-squares"
    assert found.after < 1e-6 * found.before
    np.testing.assert_allclose(x @ found.matrix + found.bias[:, None], y, atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(sizes, st.integers(0, 200))
def test_moments_of_parts_add_up(size: tuple[int, int, int, int], cut: int) -> None:
    x, matrix, bias = problem(*size)
    y = x @ matrix + bias[:, None]
    whole = moments_of(x, y)
    left, right = (Moments.about(whole.x_origin, whole.y_origin) for _ in range(2))
    left.update(x[:, :cut], y[:, :cut])
    right.update(x[:, cut:], y[:, cut:])
    merged = left.merged(right)
    assert merged.count == whole.count
    for name in ("covariance", "cross", "x_mean", "y_mean", "yy"):
        np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), atol=1e-9)
    covariance = np.stack([np.atleast_2d(np.cov(rows.T, bias=True)) for rows in x])
    np.testing.assert_allclose(whole.covariance, covariance, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(sizes)
def test_the_error_from_moments_is_the_error_of_the_rows(size: tuple[int, int, int, int]) -> None:
    x, matrix, bias = problem(*size)
    y = np.random.default_rng(0).normal(5.0, 2.0, (*x.shape[:2], matrix.shape[-1]))
    expected = np.square(x @ matrix + bias[:, None] - y).mean(axis=1).sum()
    assert moments_of(x, y).error(matrix, bias) == pytest.approx(expected, rel=1e-9)


def test_float32_rows_far_from_zero_lose_nothing() -> None:
    """A mean a thousand times the spread: sums about zero in float32 would know nothing of the covariance."""
    x = np.random.default_rng(0).normal(1000.0, 1.0, (1, 4000, 3)).astype(np.float32)
    found = moments_of(x, x).covariance  # type: ignore[arg-type]
    np.testing.assert_allclose(found[0], np.cov(x[0].astype(np.float64).T, bias=True), atol=1e-3)


def test_moments_about_different_points_are_not_mixed() -> None:
    x, matrix, _ = problem(0, 1, 2, 2)
    with pytest.raises(ValueError, match="different points"):
        moments_of(x, x @ matrix).merged(moments_of(x + 1, x @ matrix))


def test_rows_that_do_not_fit_are_refused() -> None:
    x, matrix, _ = problem(0, 1, 2, 3)
    with pytest.raises(ValueError, match="do not fit"):
        moments_of(x, x @ matrix).update(x[:, :, :1], x @ matrix)


def test_the_guard_rejects_a_fit_to_noise() -> None:
    """Fewer rows than inputs: a fit explains them all and nothing else."""
    random = np.random.default_rng(3)
    x, y = random.normal(size=(1, 60, 50)), random.normal(size=(1, 60, 4))
    y -= y.mean(axis=1, keepdims=True)
    found = refit(*split(x, y), np.zeros((1, 50, 4)), np.zeros((1, 4)), dampings=(1e-6,))
    assert found.kind != "least-squares"
    assert not found.matrix.any()


def test_a_missing_mean_alone_is_a_matter_of_the_bias() -> None:
    x, matrix, bias = problem(0, 2, 4, 3)
    found = refit(*split(x, x @ matrix + bias[:, None] + 7), matrix, bias, kind="bias")
    assert found.kind == "bias"
    np.testing.assert_array_equal(found.matrix, matrix)
    np.testing.assert_allclose(found.bias, bias + 7, atol=1e-6)


def test_what_is_left_of_an_output_is_scaled_to_what_it_was() -> None:
    """Half of equal inputs are gone: mean and scale give back what they can, unless the weight must stay."""
    random = np.random.default_rng(5)
    common = random.normal(2.0, 1.0, (1, 400, 1))
    x = common + 0.01 * random.normal(size=(1, 400, 4))
    y = x @ np.ones((1, 4, 3))
    kept, matrix, bias = x[:, :, :2], np.ones((1, 2, 3)), np.zeros((1, 3))
    found = refit(*split(kept, y), matrix, bias, kind="bias")
    assert found.kind == "bias"
    assert found.reweighted
    np.testing.assert_allclose(found.matrix, 2.0, atol=0.01)
    assert found.after < 1e-3 * found.before
    fixed = refit(*split(kept, y), matrix, bias, kind="bias", fixed=True)
    assert fixed.kind == "bias"
    assert not fixed.reweighted
    np.testing.assert_array_equal(fixed.matrix, matrix)
    assert found.after < fixed.after < fixed.before


def test_inputs_that_never_move_keep_their_weight() -> None:
    """Constant inputs say nothing: the damped system has one solution all the same."""
    x, y = np.full((1, 50, 3), 2.0), np.random.default_rng(0).normal(size=(1, 50, 2))
    matrix = np.ones((1, 3, 2))
    made = moments_of(x, y)
    np.testing.assert_array_equal(solve(made, matrix, 1e-3), matrix)
    np.testing.assert_allclose(compensate(made, matrix), y.mean(axis=1) - 6, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99))
def test_more_damping_stays_nearer_to_the_weight(seed: int) -> None:
    x, matrix, bias = problem(seed, 1, 4, 2)
    made = moments_of(x, x @ (matrix + 1) + bias[:, None])
    moved = [float(np.abs(solve(made, matrix, damping) - matrix).sum()) for damping in (1e-6, 1e-2, 1.0, 1e6)]
    assert moved == sorted(moved, reverse=True)
    assert moved[-1] < 1e-3


def test_how_an_input_is_scaled_changes_nothing():
    """A channel may be large or small: damping pulls at what it contributes."""
    x, matrix, bias = problem(5, 1, 4, 3)
    y = x @ matrix + bias[:, None]
    scale = np.array([1.0, 5.0, 0.2, 1.0])
    rough = 0.5 * matrix
    plain = solve(moments_of(x, y), rough, 0.3)
    scaled = solve(moments_of(x * scale, y), rough / scale[:, None], 0.3)
    np.testing.assert_allclose(scaled * scale[:, None], plain, rtol=1e-9)


def test_a_better_weight_to_start_from_wins_where_rows_are_few() -> None:
    """Fewer rows than inputs say too little of the weight; that another one is nearly right they say."""
    x, right, bias = problem(5, 1, 60, 3, rows=50)
    wrong = np.zeros_like(right)
    sets = split(x, x @ right + bias[:, None])
    alone, helped = refit(*sets, wrong, bias), refit(*sets, wrong, bias, towards=[right * 1.01])
    assert helped.after < 0.01 * alone.after
    np.testing.assert_allclose(helped.matrix, right, atol=0.05)


def test_a_worse_weight_to_start_from_changes_nothing() -> None:
    x, right, bias = problem(5, 1, 60, 3, rows=50)
    noise = np.random.default_rng(6).normal(size=(1, 50, 3))
    sets = split(x, x @ right + bias[:, None] + noise)
    alone, offered = refit(*sets, right, bias), refit(*sets, right, bias, towards=[np.zeros_like(right)])
    np.testing.assert_array_equal(offered.matrix, alone.matrix)
    assert offered.after == alone.after
