"""How fast integers would be here, found out before anything is calibrated: kernels ask for no particular scales.

Every unit is timed in float and in int8 (`profile`), the partition is made from these times, and whole models race
each other: profiles cost time themselves, and add up to something else. Only what is faster than float by more than
the noise of the clock is worth calibrating.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxqp.evaluate.latency import Effort, Seconds, measure, ratio_interval
from onnxqp.graph import iterate
from onnxqp.model import clone
from onnxqp.options import QuantizeOptions
from onnxqp.quantize.candidate import Candidate, Material
from onnxqp.quantize.costs import Costs
from onnxqp.quantize.decide import Decision, carried, decide, everything, predicted_ns
from onnxqp.quantize.dynamic import reason_against_dynamic
from onnxqp.quantize.profile import measure_costs
from onnxqp.quantize.quality import Probe, decibels
from onnxqp.quantize.recurrent import Recurrences, has_integer_kernel, quantize_recurrences
from onnxqp.runtime import Session
from onnxqp.targets import Kernel, Target

TIMED_FEEDS = 4  # different inputs for the clock: speed that depends on the data shows
RACE = Effort(warmup_runs=1, warmup_seconds=0.02, min_runs=7, min_seconds=0.1, floor_runs=4, max_seconds=2.0)
FINAL = Effort(warmup_runs=2, warmup_seconds=0.05, min_runs=21, min_seconds=0.8, floor_runs=9, max_seconds=4.0)
CLEAR = 0.1  # a race ends early once every lead is larger in every round...
SPREAD = 0.1  # ...and no more uncertain than this
CLOSE = 0.06  # a lead over float below this is measured once more
LEAST_GAIN = 0.02  # int8 that gains less is not worth its rounding errors
PROFILED_NODES = 1200  # of a model whose nodes are timed one by one; of a larger one only the whole is
PRODUCTS = 0.2  # share of the time above which products that quantize at run are tried
CALIBRATION = 10**0.3  # by which it lessens the noise of a sketch at most: on 17 zoo models by 2 dB below the enough
SCALING = 10**0.3  # by which equal scales of channels do: on the zoo by 3 dB at most
_INSTANT = 1e-9  # seconds: no model takes less


@dataclass(frozen=True)
class Rival:
    """A decision, or the dynamic form, how many times as fast as float it was, and the noise of its sketch.

    The noise of what is not `fast` is not known, and of no interest.
    """

    decision: Decision
    dynamic: bool
    speedup: float
    noise: float = np.inf

    @property
    def fast(self) -> bool:
        return self.speedup >= 1 + LEAST_GAIN

    def worth(self, probe: Probe, gain: float = 1.0) -> float:
        """Its figure of merit with that many times less noise."""
        return probe.worth(self.speedup, self.noise / gain)


@dataclass(frozen=True)
class Outlook:
    """What was raced, by which costs it was chosen, and what the float model takes (0: nothing was raced)."""

    full: Decision
    costs: Costs
    rivals: tuple[Rival, ...] = ()
    float_ns: float = 0.0

    @property
    def fast(self) -> list[Rival]:
        return [rival for rival in self.rivals if rival.fast]

    def worthwhile(self, probe: Probe, floating: float = 0.0, *, scalable: bool = False) -> list[Rival]:
        """Those that may yet win, against the float model, whose noise is `floating`, and against each other.

        `scalable`: channels will be scaled first, which lessens the noise of all.
        """
        gain = SCALING if scalable else 1.0
        least = max([probe.worth(1.0, floating), *(rival.worth(probe, gain) for rival in self.fast)])
        return [rival for rival in self.fast if rival.worth(probe, gain * CALIBRATION) >= least]


def look_ahead(sketch: Material, table: Costs, probe: Probe, *, threads: int) -> Outlook:
    """Race what is promising, by the table and by a profile, against float; `table` are the costs to begin with.

    Kernels take as long for any scales and weights: what races is rounded to nearest. What fuses depends on bounds that
    hold for any sample.
    """
    full = everything(sketch.annotation, table)
    if not full.integer:
        return Outlook(full, table)
    rough = replace(sketch, options=replace(sketch.options, method="minmax"), means={}, roundings={})
    costs = table
    if len(sketch.model.graph) <= PROFILED_NODES:
        costs = measure_costs(sketch, table, rough.build(full, at_rest=False), probe, threads=threads)
    decisions = _promising(sketch, table, costs)
    candidates = [rough.build(decision, at_rest=False) for decision in decisions]
    dynamic = rough.build_dynamic() if costs is not table and _many_products(sketch, costs) else None
    candidates += [dynamic] if dynamic is not None else []
    if not candidates:
        return Outlook(full, costs)
    slow, speedups = race(sketch, candidates, probe, threads)
    rivals = (
        Rival(candidate.decision, bool(candidate.dynamic), speedup)
        for candidate, speedup in zip(candidates, speedups, strict=True)
    )
    return Outlook(full, costs, tuple(_heard(list(rivals), sketch, costs, probe)), slow * 1e9)


def _heard(rivals: Sequence[Rival], sketch: Material, costs: Costs, probe: Probe) -> Iterator[Rival]:
    """With the noise of those that are fast."""

    def models() -> Iterator[ir.Model]:
        for rival in rivals:
            if rival.fast:
                found = sketch.build_dynamic() if rival.dynamic else None
                decision = carried(sketch.annotation, rival.decision, costs)
                yield (found or sketch.build(decision, at_rest=False)).model

    noises = probe.noises_of(models())
    for rival in rivals:
        yield replace(rival, noise=next(noises)) if rival.fast else rival


def _promising(material: Material, table: Costs, costs: Costs) -> list[Decision]:
    """The decision by the table, and the one by measured costs where these promise more of it."""
    first, second = decide(material.annotation, table), decide(material.annotation, costs)
    by_table, by_clock = (predicted_ns(material.annotation, each, costs) for each in (first, second))
    if second.names == first.names or not second.names:
        return [first] if first.names else []
    return (
        [first, second]
        if first.names and by_clock < by_table * (1 - LEAST_GAIN)
        else [first if first.names else second]
    )


def _many_products(material: Material, costs: Costs) -> bool:
    """Whether products with constant matrices take so much of the time that the dynamic form is worth a try."""
    spent = {unit: costs.of(unit)[0] for unit in material.annotation.units}
    products = sum(time for unit, time in spent.items() if reason_against_dynamic(unit.node) is None)
    return products > PRODUCTS * sum(spent.values())


def with_integer_recurrences(
    model: ir.Model, target: Target, options: QuantizeOptions, probe: Probe, *, threads: int
) -> tuple[ir.Model, Recurrences | None]:
    """A copy whose recurrent layers compute on integers, where that is faster here and as exact; else the model."""
    names = [node.name or "" for node in iterate(model) if has_integer_kernel(node, options)]
    if not names:
        return model, None
    saturates = any(isinstance(each, Kernel) and each.saturates for each in target.kernels.values())
    work = clone(model)
    quantize_recurrences(work, names, per_tensor=options.per_tensor, saturates=saturates)
    seconds, (speedup,) = race_models([model, work], probe, threads)
    exact = speedup >= 1 + LEAST_GAIN and decibels(probe.noise_of(work)) >= probe.enough_db
    return (work, Recurrences(model, tuple(names), speedup, seconds * 1e9)) if exact else (model, None)


# ---- the race ------------------------------------------------------------------------------------------------------


def race(material: Material, candidates: Sequence[Candidate], probe: Probe, threads: int) -> tuple[float, list[float]]:
    """Seconds of one inference in float, and how many times as fast each candidate is."""
    return race_models([material.original, *(candidate.model for candidate in candidates)], probe, threads)


def race_models(models: Sequence[ir.Model], probe: Probe, threads: int) -> tuple[float, list[float]]:
    """Seconds of one inference of the first, and how many times as fast each of the others is."""
    sessions = [Session(each, threads=threads) for each in models]
    slow, *times = _seconds(sessions, probe, RACE)
    speedups = [slow / time for time in times]
    for index, speedup in enumerate(speedups):
        if abs(speedup - 1) < CLOSE and speedup == max(speedups):
            again, fast = _seconds([sessions[0], sessions[1 + index]], probe, FINAL)
            speedups[index] = again / fast
    return slow, speedups


def _seconds(sessions: Sequence[Session], probe: Probe, effort: Effort) -> list[float]:
    """Of one inference each: the lower quartile, for what disturbs a measurement only ever adds to it."""

    def run() -> list[float]:
        settled = _settled if effort is FINAL else _clear
        times = measure(sessions, probe.feeds[:TIMED_FEEDS], effort=effort, settled=settled)
        return [float(np.quantile(each, 0.25)) for each in times]

    return [max(seconds, _INSTANT) for seconds in probe.measured.of("seconds of models", run, len(sessions))]


def _clear(times: Sequence[Seconds]) -> bool:
    """Whether every model but the first leads it, or lies behind, in every round, by about as much."""
    for each in times[1:]:
        leads = np.log(np.maximum(times[0], _INSTANT) / np.maximum(each, _INSTANT))
        if np.abs(leads).min() < CLEAR or np.ptp(np.sign(leads)) or leads.std() > SPREAD:
            return False
    return True


def _settled(times: Sequence[Seconds]) -> bool:
    """Whether it is beyond doubt on which side of `LEAST_GAIN` the last lies against the first."""
    low, high = ratio_interval(times[0][:, None], times[-1][:, None], np.random.default_rng(0), resamples=300)
    return not low <= 1 + LEAST_GAIN <= high
