"""Which candidate is kept: the best trade of speed against noise, by the clock of this machine or by a table.

A table of costs ranks nodes before anything ran. On the machine that will run the model a clock knows better: every
unit is timed in float and in int8 (`profile`), the partition is made again from these times, and in the end whole
models race each other. What is not faster than float by more than the noise of the clock does not win, nor does speed
that costs more accuracy than it is worth (`quality`); where int8 hurts, the blocks that hurt most for the time they
save return to float (`returning`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxqp.evaluate.latency import Effort, measure
from onnxqp.quantize.candidate import Candidate, Material
from onnxqp.quantize.costs import Costs
from onnxqp.quantize.decide import Decision, decide, everything, predicted_ns
from onnxqp.quantize.dynamic import reason_against_dynamic
from onnxqp.quantize.profile import measure_costs
from onnxqp.quantize.quality import Probe, decibels
from onnxqp.quantize.returning import by_rank, sensitivities, without
from onnxqp.runtime import Session

TIMED_FEEDS = 4  # different inputs for the clock: speed that depends on the data shows
RACE = Effort(warmup_runs=2, warmup_seconds=0.02, min_runs=7, min_seconds=0.1, floor_runs=5, max_seconds=3.0)
FINAL = Effort(warmup_runs=2, warmup_seconds=0.05, min_runs=21, min_seconds=0.8, floor_runs=9, max_seconds=4.0)
CLOSE = 0.06  # a lead over float below this is measured once more
LEAST_GAIN = 0.02  # int8 that gains less is not worth its rounding errors
PRODUCTS = 0.2  # share of the time above which products that quantize at run are tried
NEARLY_DB = 3.0  # so far below what is enough nothing is worth the search
_INSTANT = 1e-9  # seconds: no model takes less
TIE = 0.01  # among candidates this close the one with fewer integers wins


@dataclass(frozen=True)
class Placement:
    """A candidate, the costs it was chosen by, how many times as fast as float it is, and the noise that it adds.

    `float_ns`: what the float model takes, the whole of it when measured, its candidates for integers by the table.
    """

    candidate: Candidate
    costs: Costs
    speedup: float
    noise: float
    float_ns: float

    def worth(self, probe: Probe) -> float:
        """Its figure of merit; none without a gain in speed, unless all is float."""
        if self.candidate.integers and self.speedup < 1 + LEAST_GAIN:
            return -np.inf
        return probe.worth(self.speedup, self.noise)


@dataclass(frozen=True)
class Trial:
    """A placement and what others could be made from."""

    material: Material
    probe: Probe
    placement: Placement


def place_by_table(material: Material, table: Costs, probe: Probe, *, search: bool = True) -> Placement:
    """Choose for another machine, or for a model too large to try out. What the user named is never in question.

    Without `search` nothing is tried: for very many nodes every candidate takes seconds to build and to open.
    """
    total = max(predicted_ns(material.annotation, Decision((), {}), table), 1.0)
    if not search:
        decision = decide(material.annotation, table)
        speedup = total / max(predicted_ns(material.annotation, decision, table), 1.0)
        return Placement(material.build(decision), table, speedup, 0.0, total)
    first = _estimated(material, table, decide(material.annotation, table), probe, total)
    if any(unit.chosen for unit in material.annotation.units):
        return first
    second = _refined(material, first, probe)
    if second is None:
        return first
    found = _estimated(material, table, second, probe, total)
    floating = _estimated(material, table, Decision((), {}), probe, total)
    return _explained(material, [first, found, floating], probe)


def place(material: Material, table: Costs, probe: Probe, *, threads: int) -> Placement:
    """Choose for this machine, by the clock; `table` are the costs to begin with."""
    full = everything(material.annotation, table)
    if not full.integer:
        return Placement(material.build(full), table, 1.0, 0.0, 0.0)
    if any(unit.chosen for unit in full.integer):
        return place_by_table(material, table, probe)
    whole = material.build(full)
    costs = measure_costs(material, table, whole, probe, threads=threads)
    rivals = [material.build(decision) for decision in _promising(material, table, costs)]
    dynamic = material.build_dynamic() if _many_products(material, costs) else None
    rivals += [dynamic] if dynamic is not None else []
    field = _race(material, costs, rivals, probe, threads)
    best = _best(field, probe)
    second = _refined(material, best, probe) if best is not None else None
    if second is not None and best is not None:
        contenders = [best.candidate, *([material.build(second)] if second.names else [])]
        field = _race(material, costs, contenders, probe, threads)
        best = _best(field, probe)
    if best is not None and best.worth(probe) >= probe.worth(1.0, 0.0):
        return best  # float itself could not be worth more
    plain = material.build(Decision((), {}))
    return _explained(material, [*field, Placement(plain, costs, 1.0, probe.noise_of(plain.model), 0.0)], probe)


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


def _estimated(material: Material, costs: Costs, decision: Decision, probe: Probe, total: float) -> Placement:
    candidate = material.build(decision)
    speedup = total / max(predicted_ns(material.annotation, decision, costs), 1.0)
    return Placement(candidate, costs, speedup, probe.noise_of(candidate.model), total)


def _race(
    material: Material, costs: Costs, candidates: Sequence[Candidate], probe: Probe, threads: int
) -> list[Placement]:
    """Whole models against float: profiles cost time themselves, and add up to something else."""
    if not candidates:
        return []
    sessions = [Session(each, threads=threads) for each in (material.original, *(c.model for c in candidates))]
    slow, *times = _seconds(sessions, probe, RACE)
    speedups = [slow / time for time in times]
    for index, speedup in enumerate(speedups):
        if abs(speedup - 1) < CLOSE and speedup == max(speedups):
            again, fast = _seconds([sessions[0], sessions[1 + index]], probe, FINAL)
            speedups[index] = again / fast
    return [
        Placement(each, costs, speedup, probe.noise(session), slow * 1e9)
        for each, session, speedup in zip(candidates, sessions[1:], speedups, strict=True)
    ]


def _seconds(sessions: Sequence[Session], probe: Probe, effort: Effort) -> list[float]:
    """Of one inference each: the lower quartile, for what disturbs a measurement only ever adds to it."""

    def race() -> list[float]:
        times = measure(sessions, probe.feeds[:TIMED_FEEDS], effort=effort)
        return [float(np.quantile(each, 0.25)) for each in times]

    return [max(seconds, _INSTANT) for seconds in probe.measured.of("seconds of models", race, len(sessions))]


def _best(field: Sequence[Placement], probe: Probe) -> Placement | None:
    """Of greatest worth; among those that nearly tie the one with the fewest integers. None where none is worth it."""
    greatest = max((each.worth(probe) for each in field), default=-np.inf)
    near = [each for each in field if each.worth(probe) >= greatest - TIE and np.isfinite(each.worth(probe))]
    return min(near, key=lambda each: each.candidate.integers, default=None)


def _refined(material: Material, base: Placement, probe: Probe) -> Decision | None:
    """With the blocks in float whose noise costs more than their time is worth; None where it is quiet enough."""
    decision = base.candidate.decision
    if not decision.integer or decibels(base.noise) >= probe.enough_db - NEARLY_DB:
        return None
    blocks = by_rank(sensitivities(material, base.costs, decision, base.noise, probe))
    floating = predicted_ns(material.annotation, Decision((), {}), base.costs)
    best, worth = None, base.worth(probe)
    total = sum(block.noise for block in blocks)
    noise, names = base.noise, list[str]()
    for block in blocks:
        names += block.nodes
        noise = max(noise - base.noise * block.noise / max(total, 1e-30), 0.0)
        tried = without(material, base.costs, decision, names, "int8 here costs more accuracy than its speed is worth")
        saved = floating - predicted_ns(material.annotation, tried, base.costs)
        now = probe.worth(base.float_ns / max(base.float_ns - saved, 0.05 * base.float_ns), noise)
        if now > worth + TIE:
            best, worth = tried, now
    return best


def _explained(material: Material, field: Sequence[Placement], probe: Probe) -> Placement:
    """The best of them; where that is float though int8 could run, every node says what it would have been worth."""
    floating = next(each for each in field if not each.candidate.integers)
    best = _best(field, probe) or floating
    rival = max((each for each in field if each.candidate.integers), key=lambda each: each.speedup, default=None)
    if best.candidate.integers:
        return best
    if rival is None:
        reason = "no int8 is faster here, by the times of single nodes"
    elif rival.speedup < 1 + LEAST_GAIN:
        reason = f"int8 was not faster: the model would run {rival.speedup:.2f} times as fast as in float"
    else:
        reason = (
            f"int8 would make the model {rival.speedup:.2f} times as fast, and leave {decibels(rival.noise):.0f} dB of "
            f"signal to noise at its outputs instead of {decibels(best.noise):.0f} dB"
        )
    reasons = {unit.node.name or "": reason for unit in material.annotation.units}
    decision = Decision((), reasons)
    candidate = replace(best.candidate, decision=decision, plan=material.plan(decision))
    return replace(best, candidate=candidate)
