"""Which candidate is kept: the best trade of speed against noise, by the clock of this machine or by a table.

A table of costs ranks nodes before anything ran. On the machine that will run the model a clock knows better
(`outlook`). What is not faster than float by more than the noise of the clock does not win, nor does speed that costs
more accuracy than it is worth (`quality`); where int8 hurts, the blocks that hurt most for the time they save return to
float (`returning`), and so do layers at which values enter the integers and nothing is saved (`entries`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxqp.quantize.candidate import Candidate, Material
from onnxqp.quantize.costs import Costs
from onnxqp.quantize.decide import Decision, carried, decide, predicted_ns
from onnxqp.quantize.entries import with_later_entry
from onnxqp.quantize.outlook import LEAST_GAIN, Outlook, race
from onnxqp.quantize.quality import Probe, decibels
from onnxqp.quantize.returning import FEW_BLOCKS, by_rank, sensitivities, without

NEARLY_DB = 3.0  # so far below what is enough nothing is worth the search
TIE = 0.01  # among candidates this close the one with fewer integers wins


@dataclass(frozen=True)
class Placement:
    """A candidate, the costs it was chosen by, how many times as fast as float it is, and the noise that it adds.

    `float_ns`: what the float model takes, the whole of it when measured, its candidates for integers by the table.
    `refused`: the fastest on integers, where this one is all in float though that is faster.
    """

    candidate: Candidate
    costs: Costs
    speedup: float
    noise: float
    float_ns: float
    refused: Placement | None = None

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

    def speedup(self, candidate: Candidate) -> float:
        """How many times as fast as float a variant of the placed candidate is, by the costs."""
        whole, first = self.placement.float_ns, self.placement.candidate
        if first.dynamic:
            share = len(candidate.dynamic) / len(first.dynamic)
            gain = 1 / (1 - share * (1 - 1 / max(self.placement.speedup, 1.0)))
        else:
            annotation, costs = self.material.annotation, self.placement.costs
            saved = predicted_ns(annotation, Decision((), {}), costs) - predicted_ns(
                annotation, candidate.decision, costs
            )
            gain = whole / max(whole - saved, 0.05 * whole) if whole else 1.0
        recurrences = self.material.recurrences
        return gain * (recurrences.speedup if recurrences is not None and candidate.recurrent else 1.0)


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
        return _entered(material, first, probe)
    found = _estimated(material, table, second, probe, total)
    floating = _estimated(material, table, Decision((), {}), probe, total)
    return _entered(material, _explained(material, [first, found, floating], probe), probe)


def place(material: Material, outlook: Outlook, probe: Probe, *, threads: int) -> Placement:
    """Choose for this machine, among what was fast enough to be calibrated, by noise; and by the clock once more where
    blocks return to float."""
    costs = outlook.costs
    if not outlook.full.integer:
        return Placement(material.build(outlook.full), costs, 1.0, 0.0, 0.0)
    field = _calibrated(material, outlook, probe)
    field = [each for each in field if each.candidate.integers]
    best = _best(field, probe)
    second = _refined(material, best, probe) if best is not None else None
    if second is not None and best is not None:
        contenders = [best.candidate, *([material.build(second)] if second.names else [])]
        slow, speedups = race(material, contenders, probe, threads)
        noises = [best.noise, *(probe.noise_of(each.model) for each in contenders[1:])]
        field = [
            Placement(each, costs, speedup, noise, slow * 1e9)
            for each, speedup, noise in zip(contenders, speedups, noises, strict=True)
        ]
        best = _best(field, probe)
    if best is not None and best.worth(probe) >= probe.worth(1.0, 0.0):
        return _entered(material, best, probe)  # float itself could not be worth more
    return _entered(material, place_float(material, outlook, probe, field), probe)


def _entered(material: Material, base: Placement, probe: Probe) -> Placement:
    """Without entries into the integers that cost accuracy and save next to nothing."""
    time = base.float_ns / max(base.speedup, 1e-9)
    candidate, noise = with_later_entry(material, base.costs, base.candidate, base.noise, time, probe)
    return replace(base, candidate=candidate, noise=noise)


def place_float(material: Material, outlook: Outlook, probe: Probe, field: Sequence[Placement] = ()) -> Placement:
    """The model in float, with weights at rest, unless one of the field is worth more."""
    plain = material.build(Decision((), {}))
    noise = probe.noise_of(plain.model) if outlook.fast else 0.0  # where nothing is fast enough it decides nothing
    floating = Placement(plain, outlook.costs, 1.0, noise, outlook.float_ns)
    return _explained(material, [*field, floating], probe, outlook)


def _calibrated(material: Material, outlook: Outlook, probe: Probe) -> list[Placement]:
    """What was raced and is fast, with the scales and weights that calibration gives it."""
    made: list[Candidate] = []

    def models() -> Iterator[ir.Model]:
        for rival in outlook.fast:
            found = material.build_dynamic() if rival.dynamic else None
            made.append(found or material.build(carried(material.annotation, rival.decision, outlook.costs)))
            yield made[-1].model

    noises = list(probe.noises_of(models()))
    return [
        Placement(candidate, outlook.costs, rival.speedup, noise, outlook.float_ns)
        for candidate, rival, noise in zip(made, outlook.fast, noises, strict=True)
    ]


def _estimated(material: Material, costs: Costs, decision: Decision, probe: Probe, total: float) -> Placement:
    candidate = material.build(decision)
    speedup = total / max(predicted_ns(material.annotation, decision, costs), 1.0)
    return Placement(candidate, costs, speedup, probe.noise_of(candidate.model), total)


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
    blocks = by_rank(sensitivities(material, base.costs, decision, base.noise, probe, FEW_BLOCKS))
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


def _explained(
    material: Material, field: Sequence[Placement], probe: Probe, outlook: Outlook | None = None
) -> Placement:
    """The best of them; where that is float though int8 could run, every node says what it would have been worth.

    `outlook` knows what raced and was not worth calibrating.
    """
    floating = next(each for each in field if not each.candidate.integers)
    best = _best(field, probe) or floating
    if best.candidate.integers:
        return best
    rivals = [(each.speedup, each.noise) for each in field if each.candidate.integers]
    rivals = rivals or [(rival.speedup, rival.noise) for rival in (outlook.rivals if outlook is not None else ())]
    speedup, noise = max(rivals, default=(0.0, np.inf))
    if not rivals:
        reason = "no int8 is faster here, by the times of single nodes"
    elif speedup < 1 + LEAST_GAIN:
        reason = f"int8 was not faster: the model would run {speedup:.2f} times as fast as in float"
    else:
        reason = (
            f"int8 would make the model {speedup:.2f} times as fast, and leave {decibels(noise):.0f} dB of "
            f"signal to noise at its outputs instead of {decibels(best.noise):.0f} dB"
        )
    reasons = {unit.node.name or "": reason for unit in material.annotation.units}
    decision = Decision((), reasons)
    candidate = replace(best.candidate, decision=decision, plan=material.plan(decision))
    fast = [each for each in field if each.candidate.integers and each.speedup >= 1 + LEAST_GAIN]
    return replace(best, candidate=candidate, refused=max(fast, key=lambda each: each.speedup, default=None))
