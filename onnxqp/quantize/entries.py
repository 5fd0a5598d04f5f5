"""The layers by which values enter the integers, where that saves next to nothing: float is as fast there, and exact.

What enters is rounded to 8 bits. A layer that makes few channels of many may cost as much in int8 as in float once the
conversion before it counts: with the layer in float, fewer and later values are rounded.
"""

from __future__ import annotations

from onnxqp.quantize.annotate import Unit
from onnxqp.quantize.candidate import Candidate, Material
from onnxqp.quantize.costs import Costs
from onnxqp.quantize.decide import Decision, predicted_ns
from onnxqp.quantize.quality import Probe, decibels
from onnxqp.quantize.returning import has_weight, without

FREE = 0.005  # share of the model's time that a layer may save at most
LEFT = 0.8  # of the noise must not be left
QUIET_DB = 15.0  # so far above what is enough nothing is worth the search
TRIES = 2  # each builds and runs a candidate
REASON = "int8 would save next to nothing here and round what enters it"


def with_later_entry(
    material: Material, costs: Costs, candidate: Candidate, noise: float, time_ns: float, probe: Probe
) -> tuple[Candidate, float]:
    """The candidate, which takes `time_ns` and adds `noise`, or one with its first such layers in float; its noise.

    Only the first layers: what is rounded there passes through all others, and each try costs a candidate.
    """
    for _ in range(TRIES):
        layers = (unit for unit in candidate.decision.integer if has_weight(unit))
        first = next(layers, None)
        if first is None or next(layers, None) is None or decibels(noise) >= probe.enough_db + QUIET_DB:
            break
        decision = _without(material, costs, candidate.decision, first, FREE * time_ns)
        if decision is None:
            break
        tried = material.build(decision)
        left = probe.noise_of(tried.model)
        if left > LEFT * noise:
            break
        candidate, noise = tried, left
    return candidate, noise


def _without(material: Material, costs: Costs, decision: Decision, unit: Unit, most_ns: float) -> Decision | None:
    """The decision with this unit in float; None where the user named it, where others read as integers what it reads,
    or where it saves more than `most_ns`."""
    integer = set(decision.integer)
    if unit.chosen or not _enters(material, unit, integer):
        return None
    tried = without(material, costs, decision, [unit.node.name or ""], REASON)
    before, after = (predicted_ns(material.annotation, each, costs) for each in (decision, tried))
    return tried if tried.integer and after - before <= most_ns else None


def _enters(material: Material, unit: Unit, integer: set[Unit]) -> bool:
    """Whether a unit is the only one to read its inputs as integers, and they are made in float."""
    made_by, read_by = material.annotation.made_by, material.annotation.read_by
    return all(
        made_by.get(value) not in integer and integer.isdisjoint({*read_by.get(value, ())} - {unit})
        for _, value in unit.inputs
    )
