"""The latency model, on timers that are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnxqp.prune.latency import CHECKS, PROBES, READINGS, LatencyModel, find_cut, nearest, steady


def work(ratio: float) -> float:
    """Both sides of a layer are cut."""
    return (1 - ratio) ** 2


CURVES: dict[str, Callable[[float], float]] = {
    "a floor": lambda w: 0.3 + 0.7 * w,
    "a root": lambda w: w**0.5,
    "steps": lambda w: np.ceil(w * 16) / 16,
    "a knee": lambda w: max(0.4, w),
}


@pytest.mark.parametrize("noise", [0.0, 0.03])
@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("wanted", [0.6, 0.8])
def test_the_time_that_is_wanted(curve: str, wanted: float, noise: float) -> None:
    random, asked = np.random.default_rng(0), list[float]()

    def time(ratio: float) -> float:
        asked.append(ratio)
        return float(CURVES[curve](work(ratio)) * (1 + noise * random.normal()))

    found = find_cut(wanted, lambda ratio: ratio, work, time)
    assert CURVES[curve](work(found)) == pytest.approx(wanted, abs=0.05 if noise else 0.035)
    assert len(asked) <= len(PROBES) + CHECKS * READINGS


def test_one_bad_reading_does_not_decide() -> None:
    """A probe that was disturbed says that half of the work takes longer than all of it."""
    readings = iter([1.4])

    def time(ratio: float) -> float:
        return next(readings, 0.2 + 0.8 * work(ratio))

    found = find_cut(0.6, lambda ratio: ratio, work, time)
    assert 0.2 + 0.8 * work(found) == pytest.approx(0.6, abs=0.03)


def test_a_time_that_no_cut_reaches_gets_the_most() -> None:
    found = find_cut(0.1, lambda ratio: ratio, work, lambda ratio: 0.5 + 0.5 * work(ratio))
    assert work(found) < 0.05


def test_the_fit_never_falls() -> None:
    model = LatencyModel()
    for point in ((0.2, 0.5, 1.0), (0.4, 0.45, 1.0), (0.7, 0.8, 1.0)):
        model.add(*point)
    works, times = model.fitted()
    assert works == sorted(works)
    assert times == sorted(times)
    assert times[0] == pytest.approx(0.475)
    assert model.work_for(0.8) == pytest.approx(0.7)
    assert 0.3 < model.work_for(0.6) < 0.7


def test_readings_are_taken_until_they_are_steady() -> None:
    assert len(steady(lambda: 0.5)) == 2
    unsteady = iter([0.5, 0.7, 0.5, 0.7, 0.5, 0.7])
    assert len(steady(lambda: next(unsteady))) == READINGS


def test_the_nearest_share() -> None:
    assert work(nearest(0.5, lambda ratio: ratio, work)) == pytest.approx(0.5, abs=0.01)
