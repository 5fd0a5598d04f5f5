"""Latency with a clock that we turn by hand, so that the right answer is known."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxqp.errors import DataError
from onnxqp.evaluate.latency import (
    Effort,
    cautions,
    compare,
    distributions,
    is_slower,
    measure,
    measure_each,
    ratio_interval,
    stats,
)

FEED = {"x": np.zeros((1, 4), np.float32)}
QUICK = Effort(warmup_runs=2, warmup_seconds=0.0, min_runs=40, min_seconds=0.0)


class Clock:
    """Tells the time that the fakes have spent."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Fake:
    """Takes `seconds(n)` for its n-th run and writes its name into the log."""

    name: str
    clock: Clock
    seconds: Callable[[int], float]
    log: list[str] = field(default_factory=list)
    fed: list[object] = field(default_factory=list)
    runs: int = 0

    def run(self, feed, names=None):
        self.clock.now += self.seconds(self.runs)
        self.runs += 1
        self.log.append(self.name)
        self.fed.append(feed)
        return {}


def fakes(*seconds, log=None):
    clock, log = Clock(), [] if log is None else log
    return clock, [Fake(chr(65 + i), clock, s if callable(s) else lambda _, s=s: s, log) for i, s in enumerate(seconds)]


def test_stats_of_known_times():
    found = stats(np.arange(1, 102) / 1e3)
    assert (found.p50_ms, found.p90_ms, found.p99_ms, found.mean_ms) == pytest.approx((51, 91, 100, 51))
    assert found.n == 101
    assert found.cv == pytest.approx(np.arange(1, 102).std(ddof=1) / 51)


def test_stats_of_one_time_have_no_spread():
    assert stats(np.array([0.002])).cv == 0


def test_twice_as_slow_is_half_the_speed():
    clock, (slow, fast) = fakes(2e-3, 1e-3)
    found = compare(slow, fast, [FEED], threads=3, batch=7, effort=QUICK, clock=clock)
    assert found.speedup == pytest.approx(2, rel=1e-9)
    assert found.speedup_ci == pytest.approx((2, 2), rel=1e-9)
    assert found.noise == pytest.approx(0, abs=1e-9)
    assert found.baseline.p50_ms == pytest.approx(2)
    assert (found.threads, found.batch) == (3, 7)
    assert found.baseline.n == found.candidate.n >= 40


def test_the_interval_holds_the_truth_in_a_noisy_world():
    rng = np.random.default_rng(1)
    clock, (slow, fast) = fakes(
        lambda _: 2e-3 * rng.lognormal(0, 0.1),
        lambda _: 1e-3 * rng.lognormal(0, 0.1),
    )
    found = compare(slow, fast, [FEED], threads=1, batch=1, effort=Effort(min_runs=400, min_seconds=0), clock=clock)
    low, high = found.speedup_ci
    assert low < 2 < high
    assert high - low < 0.2
    assert 0 < found.noise < 0.1


def test_a_slow_spell_hits_both_alike():
    """The machine runs at a third of its speed for half of the time: the ratio does not care."""
    clock = Clock()
    slow, fast = (
        Fake(name, clock, lambda _, s=s: s * (3 if (clock.now // 0.1) % 2 else 1))
        for name, s in (("A", 2e-3), ("B", 1e-3))
    )
    found = compare(slow, fast, [FEED], threads=1, batch=1, effort=Effort(min_runs=300), clock=clock)
    assert found.speedup_ci[0] <= 2.05
    assert found.speedup_ci[1] >= 1.95


def test_a_model_is_as_fast_as_itself():
    rng = np.random.default_rng(3)
    clock, (one, other) = fakes(*[lambda _: 1e-3 * (1 + rng.exponential(0.2))] * 2)
    found = compare(one, other, [FEED], threads=1, batch=1, effort=Effort(min_runs=300), clock=clock)
    assert found.speedup_ci[0] < 1 < found.speedup_ci[1]
    assert abs(found.speedup - 1) <= 2 * found.noise


def test_noise_tells_a_model_that_differs_from_itself():
    """Every second run of one model is 30 % slower, so which of its two turns comes first decides."""
    clock, (restless, fast) = fakes(lambda n: 0.1 * (1.3 if n % 2 else 1), 0.05)
    found = compare(restless, fast, [FEED], threads=1, batch=1, effort=QUICK, clock=clock)
    assert found.noise > 0.05
    clock, (steady, restless) = fakes(0.1, lambda n: 0.05 * (1.3 if n % 2 else 1))
    found = compare(steady, restless, [FEED], threads=1, batch=1, effort=QUICK, clock=clock)
    assert found.noise > 0.05
    assert "noisy" in cautions(found)[0]
    clock, calm = fakes(1e-3, 5e-4)
    assert cautions(compare(*calm, [FEED], threads=1, batch=1, effort=QUICK, clock=clock)) == []


@pytest.mark.parametrize(("seconds", "slower"), [(1.2e-3, True), (1e-3, False), (0.8e-3, False)])
def test_what_is_slower_beyond_the_noise_is_called_so(seconds, slower):
    clock, pair = fakes(1e-3, seconds)
    found = compare(*pair, [FEED], threads=1, batch=1, effort=QUICK, clock=clock)
    assert is_slower(found) == slower
    assert not is_slower(replace(found, noise=0.3))


def test_no_model_follows_itself():
    clock, (a, b) = fakes(0.1, 0.1)
    measure([a, b, a, b], [FEED], effort=QUICK, clock=clock)
    log = "".join(a.log[2 * QUICK.warmup_runs :])
    assert "AA" not in log
    assert "BB" not in log
    assert log.count("A") == log.count("B") == 80


def test_rounds_run_each_model_once_in_changing_order():
    clock, models = fakes(0.1, 0.1, 0.1)
    measure(models, [FEED], effort=QUICK, clock=clock)
    log = models[0].log[3 * QUICK.warmup_runs :]
    rounds = ["".join(log[i : i + 3]) for i in range(0, len(log), 3)]
    assert all(sorted(order) == list("ABC") for order in rounds)
    assert len(set(rounds)) == 6


def test_the_order_is_seeded():
    logs = []
    for seed in (0, 0, 1):
        clock, models = fakes(1e-3, 1e-3, 1e-3)
        measure(models, [FEED], effort=Effort(min_runs=40, min_seconds=0, seed=seed), clock=clock)
        logs.append("".join(models[0].log))
    assert logs[0] == logs[1] != logs[2]


def test_models_of_one_round_get_the_same_feed():
    feeds = [{"x": np.full(1, i)} for i in range(3)]
    clock, (a, b) = fakes(0.1, 0.1)
    measure([a, b], feeds, effort=QUICK, clock=clock)
    taken = [feed["x"][0] for feed in a.fed[QUICK.warmup_runs :]]
    assert taken == [i % 3 for i in range(40)]
    assert all(one is other for one, other in zip(a.fed, b.fed, strict=True))


def test_models_with_inputs_of_their_own():
    ours, theirs = [{"a": np.zeros(1)}], [{"b": np.zeros(1)}, {"b": np.ones(1)}]
    clock, (a, b) = fakes(1e-3, 1e-3)
    measure_each([(a, ours), (b, theirs)], effort=QUICK, clock=clock)
    assert all(feed is ours[0] for feed in a.fed)
    assert {id(feed) for feed in b.fed} == {id(feed) for feed in theirs}


def test_warm_up_lasts_long_enough():
    """The first runs are slow, as those of a real session are, and none of them is counted."""
    clock, (model,) = fakes(lambda n: 0.05 if n < 5 else 1e-3)
    (times,) = measure([model], [FEED], clock=clock)
    assert times.max() == pytest.approx(1e-3)
    assert times.sum() >= 2.0


def test_warm_up_runs_at_least_so_often():
    clock, (model,) = fakes(lambda n: 1.0 if n < 5 else 0.1)
    (times,) = measure([model], [FEED], effort=Effort(max_seconds=100, min_seconds=1), clock=clock)
    assert times.max() == pytest.approx(0.1)


def test_a_slow_model_is_cut_short():
    clock, models = fakes(4.0, 4.0)
    times = measure(models, [FEED], effort=Effort(max_seconds=20), clock=clock)
    assert [each.size for each in times] == [10, 10]
    found = compare(*models, [FEED], threads=1, batch=1, effort=Effort(max_seconds=20), clock=clock)
    assert found.baseline.n == 10


def test_very_fast_runs_are_timed_together():
    clock, (fast, slow) = fakes(1.5e-5, 1e-3)
    effort = Effort(warmup_runs=5, warmup_seconds=0, min_runs=30, min_seconds=0)
    quick, steady = measure([fast, slow], [FEED], effort=effort, clock=clock)
    assert fast.runs == 5 + 30 * (1 + 14)
    assert slow.runs == 5 + 30 * 2
    assert np.median(quick) == pytest.approx(1.5e-5)
    assert np.median(steady) == pytest.approx(1e-3)


def test_a_short_run_finds_its_caches_warm():
    """The first run after another model's is slow, and is not timed; a long run does not care."""
    clock = Clock()
    log: list[str] = []

    def cold(name, seconds):
        return lambda _: seconds * (1 if log and log[-1] == name else 1.5)

    models = [Fake(name, clock, cold(name, 1e-3), log) for name in "AB"]
    for times in measure(models, [FEED], effort=QUICK, clock=clock):
        assert times == pytest.approx(1e-3)
    models = [Fake(name, clock, cold(name, 0.1), log) for name in "CD"]
    for times in measure(models, [FEED], effort=QUICK, clock=clock):
        assert times[1:] == pytest.approx(0.15)
        assert times.size == 40


def test_a_clock_that_stands_still_ends_all_the_same():
    clock, models = fakes(0.0, 0.0)
    effort = Effort(warmup_seconds=0, min_runs=10, min_seconds=0)
    assert compare(*models, [FEED], threads=1, batch=1, effort=effort, clock=clock).speedup == 1


def test_no_garbage_collection_while_measuring():
    states = []
    clock, (model,) = fakes(lambda _: states.append(gc.isenabled()) or 1e-3)
    measure([model], [FEED], effort=QUICK, clock=clock)
    assert not any(states)
    assert gc.isenabled()


def test_garbage_collection_returns_after_an_error():
    def fail(_):
        raise RuntimeError("broken")

    clock, (model,) = fakes(fail)
    with pytest.raises(RuntimeError):
        measure([model], [FEED], clock=clock)
    assert gc.isenabled()


def test_without_feeds():
    clock, models = fakes(1e-3)
    with pytest.raises(DataError, match="no input") as caught:
        measure(models, [], clock=clock)
    assert caught.value.hint
    assert measure([], []) == []


def test_the_bootstrap_is_deterministic():
    times = np.random.default_rng(0).lognormal(size=(50, 2))
    intervals = {ratio_interval(times[:, :1], times[:, 1:], np.random.default_rng(s)) for s in (0, 0, 1)}
    assert len(intervals) == 2


def test_a_bootstrap_of_many_rounds_in_pieces():
    times = np.random.default_rng(0).lognormal(sigma=0.1, size=(5000, 1))
    low, high = ratio_interval(times, times * 0.5, np.random.default_rng(0))
    assert low == pytest.approx(2)
    assert high == pytest.approx(2)


def test_blocks_see_disturbances_that_last():
    """Rounds in long spells carry less information than their number says: the interval must be wider."""
    rng = np.random.default_rng(0)
    spells = np.repeat(rng.lognormal(sigma=0.3, size=20), 20)[:, None]
    mixed = rng.permutation(spells)
    steady = np.ones_like(spells)
    wide, narrow = (np.ptp(ratio_interval(times, steady, np.random.default_rng(1))) for times in (spells, mixed))
    assert wide > 1.5 * narrow


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=30),
    st.floats(0.1, 10.0),
)
def test_a_constant_factor_is_found_exactly(times, factor):
    ours = np.array(times)[:, None]
    low, high = ratio_interval(ours * factor, ours, np.random.default_rng(0), resamples=50)
    assert low == pytest.approx(factor)
    assert high == pytest.approx(factor)


def test_it_ends_once_the_question_is_settled_but_not_before_the_fewest_rounds():
    asked = []

    def settled(times):
        asked.append(len(times[0]))
        return len(asked) == 2

    effort = Effort(warmup_runs=1, warmup_seconds=0.0, min_runs=100, min_seconds=0.0, floor_runs=9)
    clock, models = fakes(1e-3)
    (times,) = measure(models, [FEED], effort=effort, clock=clock, settled=settled)
    assert asked[0] == 9
    assert len(times) == asked[1] < 100


def test_runs_of_all_models_are_counted_in_the_same_bins() -> None:
    rng = np.random.default_rng(0)
    slow, fast = rng.lognormal(-5, 0.1, 400), rng.lognormal(-7, 0.1, 300)
    slow[7] = 9.0  # a pause
    before, after = distributions([slow, fast])
    assert before.histogram is not None
    assert after.histogram is not None
    assert before.histogram.edges_ms == after.histogram.edges_ms
    assert (sum(before.histogram.counts), sum(after.histogram.counts)) == (400, 300)
    assert before.histogram.counts[-1] >= 1, "what is longer than nearly all runs stands at the end"
    assert before.histogram.edges_ms[-1] < 20
    assert after.histogram.counts.index(max(after.histogram.counts)) < 12


def test_runs_that_all_take_the_same_time_have_no_histogram() -> None:
    (found,) = distributions([np.full(20, 1e-3)])
    assert found.histogram is None
    assert found.p50_ms == pytest.approx(1.0)
