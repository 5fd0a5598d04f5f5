"""The sums behind a verdict: what came in, what was made here, and of that what was clipped or the kernel's doing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxqp.debugging.matching import Quantizer
from onnxqp.debugging.sums import WORST_SQNR_DB, ErrorSums, sqnr_db

GRID = Quantizer(0.1, 100, 0, 255)  # -10.0 .. 15.5
RNG = np.random.default_rng(3)


def arrays(*spreads):
    return [RNG.normal(0, spread, (2, 5, 7)).astype(np.float32) for spread in spreads]


def test_error_that_came_in_and_error_made_here():
    truth, first, second = arrays(1.0, 0.1, 0.01)
    sums = ErrorSums()
    sums.update(truth, truth + first + second, truth + first)
    assert sums.signal == pytest.approx(float((truth**2).sum()), rel=1e-5)
    assert sums.inherited == pytest.approx(float((first**2).sum()), rel=1e-4)
    assert sums.local == pytest.approx(float((second**2).sum()), rel=1e-4)
    assert sums.sqnr_db == pytest.approx(10 * np.log10(sums.signal / sums.total))
    assert sums.local_sqnr_db == pytest.approx(40, abs=2)
    assert sums.cause() == "inherited"
    assert sums.inherited_share == pytest.approx(0.99, abs=0.01)


def test_a_value_that_nothing_came_into():
    truth, error = arrays(1.0, 0.1)
    sums = ErrorSums()
    sums.update(truth, truth + error, None)
    assert sums.local == sums.total > 0
    assert sums.cause() == "rounding"


def test_no_error_at_all():
    (truth,) = arrays(1.0)
    sums = ErrorSums(GRID)
    sums.update(truth, truth, truth)
    assert sums.sqnr_db is None
    assert sums.local_sqnr_db is None
    assert sums.cause() == "none"


def test_clipping_is_what_lies_beyond_the_range():
    assert GRID.range == pytest.approx((-10.0, 15.5))
    truth = np.array([-12.0, 0.0, 5.0, 15.54, 20.0], np.float32)
    sums = ErrorSums(GRID)
    sums.update(truth, np.clip(truth, *GRID.range).astype(np.float32), None)
    assert sums.beyond == 2  # 15.54 is rounded to the last step, not clipped
    assert sums.clipped == pytest.approx(2.0**2 + 4.5**2, rel=1e-5)
    assert sums.cause() == "clipping"


def test_kernels_may_round_to_a_neighbour_but_no_further():
    truth = np.full((40,), 5.0, np.float32)
    sums = ErrorSums(GRID)
    sums.update(truth, truth - 3, None)
    sums.update_kernel(truth - 0.1, truth)
    assert sums.kernel == 0
    assert sums.cause() == "rounding"
    sums.update_kernel(truth - 3, truth)
    assert sums.kernel == pytest.approx(9 * 40)
    assert sums.cause() == "saturation"


def test_not_a_number_in_the_candidate_alone():
    truth = np.array([1.0, 2.0, np.inf, np.nan], np.float32)
    sums = ErrorSums()
    sums.update(truth, np.array([1.5, np.nan, 0.0, 0.0], np.float32), None)
    assert (sums.elements, sums.broken) == (1, 1)
    assert sums.total == 0.25
    assert sums.cause() == "not finite"
    assert sums.sqnr_db == WORST_SQNR_DB


def test_numbers_whose_squares_no_float32_holds():
    truth = np.array([-3.4e38, 1.0], np.float32)
    sums = ErrorSums()
    sums.update(truth, truth * np.float32(0.5), truth)
    assert sums.sqnr_db == pytest.approx(6.02, abs=0.01)
    assert sums.broken == 0


def test_half_floats_are_compared_in_full():
    truth = np.array([6e4, 1.0], np.float16)
    sums = ErrorSums(GRID)
    sums.update(truth, truth, np.array([3e4, 1.0], np.float16))
    assert sums.inherited == pytest.approx(9e8, rel=1e-2)


@given(hnp.arrays(np.float32, (30, 4), elements=st.floats(-10, 10, width=32)), st.integers(1, 29))
def test_how_samples_are_cut_changes_nothing(truth, cut):
    found = np.round(truth)
    whole, parts = ErrorSums(GRID), ErrorSums(GRID)
    whole.update(truth, found, truth * np.float32(0.9))
    for piece in (slice(0, cut), slice(cut, None)):
        parts.update(truth[piece], found[piece], truth[piece] * np.float32(0.9))
    for name in ("elements", "signal", "total", "inherited", "local", "clipped", "beyond"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-4, abs=1e-9)


def test_decibels():
    assert sqnr_db(100.0, 1.0) == pytest.approx(20.0)
    assert sqnr_db(1.0, 0.0) is None
    assert sqnr_db(0.0, 0.0) is None
    assert sqnr_db(0.0, 1.0) == WORST_SQNR_DB
    assert sqnr_db(1e-300, 1e300) == WORST_SQNR_DB
