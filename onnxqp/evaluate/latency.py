"""Latency of one or more models, measured so that a ratio can be believed.

All models run in one process and take turns: every round runs each of them once on the same feed, in a new order.
Whatever slows the machine for a while slows all of them. A short run is preceded by an untimed one, so that it is
measured as in a loop of its own: with warm caches, whatever ran before. (Without that, two sessions of one small model
measured 10 to 25 % slower than alone, and up to 20 % apart when one of them came round more often.)

Rounds are resampled together: a paired bootstrap, in blocks of neighbouring rounds because disturbances last longer
than one. In a comparison each model takes part twice: how far it seems from itself is the noise, below which no
difference means anything.

Warm-up and minimum duration follow `trtexec` (200 ms before, seconds rather than runs after).
"""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from onnxqp.errors import DataError
from onnxqp.evaluate.runnable import Runnable
from onnxqp.report.records import Histogram, Latency, LatencyStats
from onnxqp.specs import Feed

Seconds: TypeAlias = npt.NDArray[np.float64]
Clock: TypeAlias = Callable[[], float]
Progress: TypeAlias = Callable[[int, int | None], None]  # rounds done, of so many: called between rounds

SHORT_SECONDS = 20e-3  # before a shorter run the model runs once untimed: others have taken its place in the caches
FAST_SECONDS = 200e-6  # a shorter run is repeated until it takes this long: a clock reading costs up to 0.1 us
MOST_REPEATS = 1000
RESAMPLES = 1000
CONFIDENCE = 0.95
ASKED_EVERY = 4  # rounds, whether it is settled
BINS = 48  # of a histogram
NOISY = 0.05  # a model that differs from itself by more deserves a warning


@dataclass(frozen=True)
class Effort:
    """How much to measure: runs and seconds are per model, `max_seconds` is the limit of the whole measurement.

    A model too slow for that limit is still run `floor_runs` times.
    """

    warmup_runs: int = 5
    warmup_seconds: float = 0.2
    min_runs: int = 50
    min_seconds: float = 2.0
    floor_runs: int = 10
    max_seconds: float = 60.0
    seed: int = 0


Entry: TypeAlias = tuple[Runnable, Sequence[Feed]]
Settled: TypeAlias = Callable[[Sequence[Seconds]], bool]  # whether what was measured so far is all that was asked


def measure(
    runnables: Sequence[Runnable],
    feeds: Sequence[Feed],
    *,
    effort: Effort | None = None,
    clock: Clock = time.perf_counter,
    progress: Progress | None = None,
    settled: Settled | None = None,
) -> list[Seconds]:
    """Seconds per run of each model, one array of shape (rounds,) each; entry i of all arrays is round i.

    A model given twice is measured twice per round, as its own twin. `settled` ends it early, from `floor_runs` rounds
    on. Raises `DataError` without feeds.
    """
    entries = [(runnable, feeds) for runnable in runnables]
    return measure_each(entries, effort=effort, clock=clock, progress=progress, settled=settled)


def measure_each(
    entries: Sequence[Entry],
    *,
    effort: Effort | None = None,
    clock: Clock = time.perf_counter,
    progress: Progress | None = None,
    settled: Settled | None = None,
) -> list[Seconds]:
    """The same for models that do not share their inputs: each entry is a model and its own feeds."""
    effort = effort or Effort()
    if not entries:
        return []
    if any(not feeds for _, feeds in entries):
        raise DataError("there is no input to measure latency with", hint="give --data, or leave it out for synthetic")
    times: list[list[float]] = [[] for _ in entries]
    with _collector_off():
        paces = _warm_up(entries, effort, clock)
        orders = _orders([id(runnable) for runnable, _ in entries], np.random.default_rng(effort.seed))
        spent = 0.0
        for done in itertools.count():
            if _enough(done, spent, len(entries), effort) or _ends(settled, times, effort):
                break
            if progress is not None and done:
                progress(done, _expected(done, spent, len(entries), effort))
            for slot in next(orders):
                (runnable, feeds), pace = entries[slot], paces[slot]
                feed = feeds[done % len(feeds)]
                spent += _timed(runnable, feed, pace.settling, clock)
                seconds = _timed(runnable, feed, pace.repeats, clock)
                times[slot].append(seconds / pace.repeats)
                spent += seconds
    return [np.asarray(each, dtype=np.float64) for each in times]


def stats(times: Seconds) -> LatencyStats:
    """Percentiles (linear interpolation), mean and coefficient of variation of seconds per run, in milliseconds."""
    p50, p90, p99 = (float(value) for value in np.percentile(times, [50, 90, 99]) * 1e3)
    mean = float(times.mean())
    spread = float(times.std(ddof=1)) if times.size > 1 else 0.0
    return LatencyStats(p50, p90, p99, mean * 1e3, spread / mean if mean > 0 else 0.0, int(times.size))


def distributions(times: Sequence[Seconds]) -> list[LatencyStats]:
    """`stats` of each model with a histogram, over the same bins: as wide as their ratio, from the shortest run on.

    What lies beyond 99 of 100 runs of every model counts in the last bin, so that one pause does not squeeze the rest.
    """
    low = min(float(each.min()) for each in times)
    high = max(float(np.quantile(each, 0.99)) for each in times)
    if not 0 < low * (1 + 1e-6) < high:  # nothing to tell apart
        return [stats(each) for each in times]
    edges = np.geomspace(low, high, BINS + 1)
    edges[0] = low  # rounding
    return [replace(stats(each), histogram=Histogram((edges * 1e3).tolist(), _counts(each, edges))) for each in times]


def _counts(times: Seconds, edges: Seconds) -> list[int]:
    return [int(count) for count in np.histogram(np.minimum(times, edges[-1]), edges)[0]]


def compare(
    baseline: Runnable,
    candidate: Runnable,
    feeds: Sequence[Feed],
    *,
    threads: int,
    batch: int,
    effort: Effort | None = None,
    clock: Clock = time.perf_counter,
    progress: Progress | None = None,
) -> Latency:
    """Interleaved latency of two models on the same feeds; `threads` and `batch` are recorded as given.

    Both models take two turns per round, and baseline and candidate alternate strictly: no model follows itself.
    Each pair of turns counts as one model with twice the runs, so the pair meets the numbers of `effort`.

    `speedup` is the ratio of the medians, `speedup_ci` its 95 % bootstrap interval over rounds. `noise` is taken
    between the two turns of one model, where the true ratio is 1: |ratio - 1|, or half the width of that ratio's
    interval, whichever is larger, and of the two models the larger. (On a busy machine a long run is disturbed nearly
    always, a short one sometimes: then only the faster model shows how uncertain the ratio is.) Each turn has half
    the runs, so it rather overstates the noise of `speedup`.
    """
    effort = effort or Effort()
    turns = replace(
        effort,
        min_runs=-(-effort.min_runs // 2),
        min_seconds=effort.min_seconds / 2,
        floor_runs=-(-effort.floor_runs // 2),
    )
    one, other, again, other_again = measure(
        [baseline, candidate] * 2, feeds, effort=turns, clock=clock, progress=progress
    )
    ours, theirs = np.stack([one, again], axis=1), np.stack([other, other_again], axis=1)
    rng = np.random.default_rng(effort.seed)
    low, high = ratio_interval(ours, theirs, rng)
    before, after = distributions([ours.ravel(), theirs.ravel()])
    return Latency(
        baseline=before,
        candidate=after,
        speedup=_ratio(float(np.median(ours)), float(np.median(theirs))),
        speedup_ci=(low, high),
        noise=max(_apart(ours, rng), _apart(theirs, rng)),
        threads=threads,
        batch=batch,
    )


def is_slower(latency: Latency) -> bool:
    """Whether the candidate takes more time than the baseline, by a percent and more than it differs from itself by."""
    return latency.speedup_ci[1] < 1 - max(latency.noise, 0.01)


def cautions(latency: Latency) -> list[str]:
    """Warnings for the report: a machine too restless to measure on."""
    if latency.noise <= NOISY:
        return []
    return [
        f"the latency measurement is noisy: a model differs from itself by {latency.noise:.0%}; "
        "a smaller difference between the models means nothing (close other programs, or set --threads)"
    ]


def ratio_interval(
    numerator: Seconds,
    denominator: Seconds,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of median(numerator) / median(denominator).

    Both have shape (rounds, turns) and share their rounds, which are drawn together, in circular blocks of
    sqrt(rounds) neighbours (Politis and Romano, 1992).
    """
    rounds = len(numerator)
    if rounds == 0:
        return (math.nan, math.nan)
    length = max(1, round(math.sqrt(rounds)))
    ratios = np.empty(resamples)
    chunk = max(1, 1_000_000 // rounds)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        first = rng.integers(0, rounds, size=(size, -(-rounds // length), 1))
        drawn = ((first + np.arange(length)) % rounds).reshape(size, -1)[:, :rounds]
        top = np.median(numerator[drawn].reshape(size, -1), axis=1)
        bottom = np.median(denominator[drawn].reshape(size, -1), axis=1)
        ratios[start : start + size] = np.divide(top, bottom, out=np.ones(size), where=bottom > 0)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return (float(low), float(high))


def _apart(turns: Seconds, rng: np.random.Generator) -> float:
    """How far a model seems from itself: `turns` has shape (rounds, 2)."""
    low, high = ratio_interval(turns[:, :1], turns[:, 1:], rng)
    one, other = np.median(turns, axis=0)
    return max(abs(_ratio(float(one), float(other)) - 1), (high - low) / 2)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else 1.0


def _enough(rounds: int, spent: float, models: int, effort: Effort) -> bool:
    if rounds >= effort.floor_runs and spent >= effort.max_seconds:
        return True
    return rounds >= effort.min_runs and spent >= effort.min_seconds * models


def _ends(settled: Settled | None, times: Sequence[Sequence[float]], effort: Effort) -> bool:
    """Asked every few rounds, for asking costs time too."""
    rounds = len(times[0])
    if settled is None or rounds < effort.floor_runs or (rounds - effort.floor_runs) % ASKED_EVERY:
        return False
    return settled([np.asarray(each, dtype=np.float64) for each in times])


def _expected(rounds: int, spent: float, models: int, effort: Effort) -> int:
    """How many rounds there will be, if they take as long as those so far."""
    each = max(spent / rounds, 1e-9)
    most = max(effort.floor_runs, math.ceil(effort.max_seconds / each))
    return max(rounds, min(most, max(effort.min_runs, math.ceil(effort.min_seconds * models / each))))


def _timed(runnable: Runnable, feed: Feed, repeats: int, clock: Clock) -> float:
    start = clock()
    for _ in range(repeats):
        runnable.run(feed)
    return clock() - start


@dataclass(frozen=True)
class _Pace:
    """One turn of a model: `settling` runs untimed, then `repeats` runs between two readings of the clock."""

    settling: int
    repeats: int


def _warm_up(entries: Sequence[Entry], effort: Effort, clock: Clock) -> list[_Pace]:
    """Runs each model until its memory arena and the clock frequency have settled, and returns its pace."""
    known: dict[int, _Pace] = {}
    for runnable, feeds in entries:
        if id(runnable) in known:
            continue
        taken: list[float] = []
        while True:
            taken.append(_timed(runnable, feeds[len(taken) % len(feeds)], 1, clock))
            spent = sum(taken)
            settled = len(taken) >= effort.warmup_runs and spent >= effort.warmup_seconds
            if settled or spent >= effort.max_seconds / 10 or len(taken) >= MOST_REPEATS * effort.warmup_runs:
                break
        typical = float(np.median(taken[len(taken) // 2 :]))
        repeats = MOST_REPEATS if typical <= 0 else min(MOST_REPEATS, math.ceil(FAST_SECONDS / typical))
        known[id(runnable)] = _Pace(int(typical < SHORT_SECONDS), repeats)
    return [known[id(runnable)] for runnable, _ in entries]


def _orders(models: Sequence[int], rng: np.random.Generator) -> Iterator[tuple[int, ...]]:
    """The order of each round: random, but no model follows itself, within or across rounds, if that can be.

    `models` says which slots hold the same model. Up to five slots all permutations are drawn from, else 500.
    """
    slots = range(len(models))
    pool = (
        list(itertools.permutations(slots)) if len(models) <= 5 else [tuple(rng.permutation(slots)) for _ in range(500)]
    )
    fitting: dict[int | None, list[tuple[int, ...]]] = {}
    last: int | None = None
    while True:
        if last not in fitting:
            clashes = [_clashes(order, models, last) for order in pool]
            fitting[last] = [order for order, count in zip(pool, clashes, strict=True) if count == min(clashes)]
        order = fitting[last][int(rng.integers(len(fitting[last])))]
        last = models[order[-1]]
        yield order


def _clashes(order: Sequence[int], models: Sequence[int], last: int | None) -> int:
    sequence = [last, *(models[slot] for slot in order)]
    return sum(one == other for one, other in itertools.pairwise(sequence))


@contextmanager
def _collector_off() -> Iterator[None]:
    """No garbage collection while the clock runs."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
