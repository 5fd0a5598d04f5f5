"""Refitting a layer to what a clipping activation leaves of it."""

from dataclasses import replace

import numpy as np
import pytest

from onnxqp.calibrate.moments import Moments
from onnxqp.recover.clipped import clipped_error, refit_clipped
from onnxqp.recover.least_squares import refit

RELU = (0.0, np.inf)


def rows(seed, count=600):
    """Inputs of which two were cut from six, and the targets of the whole."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(9).normal(size=(6, 6))
    x = np.maximum(rng.normal(size=(count, 6)) @ mix, 0)
    y = x @ np.random.default_rng(8).normal(size=(6, 5)) - 1.0
    return x[None, :, :4].astype(np.float32), y[None].astype(np.float32), np.zeros((1, count, 5), np.float32)


def fitted(bounds):
    fit, held = rows(1), rows(2)
    sets = []
    for x, y, _ in (fit, held):
        moments = Moments.about(fit[0].mean(axis=1, dtype=np.float64), fit[1].mean(axis=1, dtype=np.float64))
        moments.update(x, y)
        sets.append(moments)
    plain = refit(*sets, np.zeros((1, 4, 5)), np.zeros((1, 5)))
    return plain, refit_clipped(plain, sets[0].merged(sets[1]), [fit, held], [held], bounds), held


@pytest.mark.parametrize("bounds", [RELU, (0.0, 1.0)])
def test_behind_the_activation_less_is_lost(bounds):
    plain, better, held = fitted(bounds)
    before = clipped_error([held], plain.matrix, plain.bias, bounds)
    assert clipped_error([held], better.matrix, better.bias, bounds) < 0.97 * before


def test_a_layer_that_least_squares_left_alone_is_refitted_for_what_counts():
    x, y, added = rows(1)
    moments = Moments.about(x.mean(axis=1, dtype=np.float64), y.mean(axis=1, dtype=np.float64))
    moments.update(x, y)
    plain, _, held = fitted(RELU)
    left = replace(plain, kind=None, damping=1.0)
    better = refit_clipped(left, moments, [(x, y, added)], [held], RELU)
    assert better.kind == "least-squares"
    assert clipped_error([held], better.matrix, better.bias, RELU) < clipped_error([held], left.matrix, left.bias, RELU)


def test_an_activation_that_clips_nothing_changes_nothing():
    plain, better, _ = fitted((-1e9, 1e9))
    assert better is plain


def test_moments_towards_the_same_targets_are_the_same():
    x, y, _ = rows(3)
    moments = Moments.about(x.mean(axis=1, dtype=np.float64), y.mean(axis=1, dtype=np.float64))
    moments.update(x, y)
    again = moments.towards([(x[:, :300], y[:, :300]), (x[:, 300:], y[:, 300:])])
    np.testing.assert_allclose(again.cross, moments.cross, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(again.covariance, moments.covariance, rtol=1e-9)
