"""How many steps a search has time for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from onnxqp.compress.pace import PATIENCE, Pace
from onnxqp.measurements import Measurements

AHEAD = (0.7, 0.55, 0.4, 0.3, 0.2)


def paced(seconds: Sequence[tuple[float, float]], measured: Measurements | None = None) -> Pace:
    """A pace whose clocks read these, one after the other; one step has begun."""
    readings = iter(seconds)
    pace = Pace(measured or Measurements(), clock=lambda: next(readings))
    pace.begin()
    return pace


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.01, AHEAD),
        (0.3, (0.2,)),  # time for two more: one on, one between
        (0.24, (0.4, 0.2)),
        (0.6, ()),
        (2.0, ()),
    ],
)
def test_steps_that_take_long_are_fewer_and_larger(share: float, expected: tuple[float, ...]) -> None:
    pace = paced([(0.0, 0.0), (share * PATIENCE, share * PATIENCE)])
    assert pace.fitting(AHEAD) == list(expected)


@pytest.mark.parametrize("taken", [(PATIENCE, PATIENCE / 4), (PATIENCE / 4, PATIENCE)])
def test_neither_other_work_nor_more_cores_make_a_step_longer(taken: tuple[float, float]) -> None:
    assert paced([(5.0, 1.0), (5.0 + taken[0], 1.0 + taken[1])]).left() == 3


def test_an_earlier_run_says_how_many_there_were() -> None:
    measured = Measurements()
    assert paced([(0.0, 0.0), (50.0, 50.0)], measured).left() == 2
    assert paced([(0.0, 0.0), (1.0, 1.0)], Measurements(measured.taken)).left() == 2


def test_a_named_target_asks_no_clock() -> None:
    pace = Pace(timed=False)
    pace.begin()
    assert pace.left() == math.inf
    assert pace.fitting(AHEAD) == list(AHEAD)
