"""Which blocks of integers cost most accuracy for the time they save, and what remains when they return to float.

The noise of the parts of a network adds up at its outputs, nearly: each block is tried alone in int8, and a sorted list
of them (noise a nanosecond) says what to return first. A block is a run of neighbours, for a single node between
integers saves nothing by itself.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxqp.quantize.annotate import Unit
from onnxqp.quantize.candidate import Candidate, Material
from onnxqp.quantize.costs import Costs
from onnxqp.quantize.decide import Decision, predicted_ns, restricted
from onnxqp.quantize.quality import Probe
from onnxqp.specs import Compute

BLOCKS = 8  # tried at first...
FEW_BLOCKS = 4  # ...or where there is only one question: whether some are worth nothing
PARTS = 4  # that a block is cut into when it makes much more than its share of the noise
MUCH = 2.0  # times that share
EXPLAINED = 0.85  # of the noise: the blocks not tried yet matter little

Advance = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Block:
    """Nodes with weights, neighbours in the graph; the noise that they alone add, and the nanoseconds they save."""

    nodes: tuple[str, ...]
    noise: float
    saved_ns: float


def sensitivities(
    material: Material, costs: Costs, decision: Decision, noise: float, probe: Probe, count: int = BLOCKS
) -> list[Block]:
    """So many blocks of a decision, in the order of the graph; those that make most of the noise are cut once more.

    `noise`: that of the decision as a whole. Once some blocks explain nearly all of it, the rest share what is left.
    Weights outside a block are left as they were: what storing them as integers costs is the same for all.
    """
    heavy = [unit for unit in decision.integer if has_weight(unit) and not unit.chosen]
    whole = predicted_ns(material.annotation, decision, costs)

    def alone(units: Sequence[Unit]) -> ir.Model:
        inside = set(units)
        kept = without(material, costs, decision, _names(unit for unit in heavy if unit not in inside))
        return material.build(kept, at_rest=False).model

    def block(units: Sequence[Unit], noise: float) -> Block:
        rest = predicted_ns(material.annotation, without(material, costs, decision, _names(units)), costs)
        return Block(tuple(_names(units)), noise, max(rest - whole, 0.0))

    pieces = _cut(heavy, count)
    with contextlib.closing(probe.noises_of(map(alone, [[], *pieces]))) as noises:
        floor = next(noises)
        total, found = max(noise - floor, 0.0), 0.0
        blocks: list[Block] = []
        for place, units in enumerate(pieces):
            if found > EXPLAINED * total:
                blocks.append(block(units, max(total - found, 0.0) / (len(pieces) - place)))
                continue
            own = max(next(noises) - floor, 0.0)
            found += own
            if own > MUCH / len(pieces) * total and len(units) > 1:
                parts = _cut(units, PARTS)
                of_parts = probe.noises_of(map(alone, parts))
                blocks += [block(part, max(left - floor, 0.0)) for part, left in zip(parts, of_parts, strict=True)]
            else:
                blocks.append(block(units, own))
    return blocks


def sensitivities_at_run(material: Material, costs: Costs, candidate: Candidate, probe: Probe) -> list[Block]:
    """Blocks of the layers that quantize what they read at every inference: products in runs, recurrent ones together.

    The noise of products is shared out by the time that they take: trying each block costs more than it would tell.
    """
    blocks: list[Block] = []
    products = [unit for unit in material.annotation.units if unit.node.name in candidate.dynamic]
    noise = probe.noise_of(candidate.model) if products else 0.0
    total = max(sum(costs.of(unit)[0] for unit in products), 1.0)
    for units in _cut(products, BLOCKS):
        spent = sum(costs.of(unit)[0] for unit in units)
        blocks.append(Block(tuple(_names(units)), noise * spent / total, spent))
    recurrences = material.recurrences
    if recurrences is not None and candidate.recurrent:
        saved = recurrences.float_ns * (1 - 1 / recurrences.speedup)
        whole = probe.noise_of(material.build(candidate.decision, at_rest=False).model)
        rest = without(material, costs, candidate.decision, recurrences.names)
        alone = max(whole - probe.noise_of(material.build(rest, at_rest=False).model), 0.0)
        blocks.append(Block(tuple(recurrences.names), alone, saved))
    return blocks


def rebuilt(material: Material, costs: Costs, candidate: Candidate, nodes: Iterable[str], reason: str) -> Candidate:
    """The candidate again with the nodes of these names in float."""
    returned = dict.fromkeys(nodes, reason)
    dynamic = material.build_dynamic(returned) if candidate.dynamic else None
    return dynamic or material.build(restricted(material.annotation, candidate.decision, costs, returned))


def by_rank(blocks: Iterable[Block]) -> list[Block]:
    """Those first whose noise is dearest: most of it for each nanosecond saved."""
    return sorted(blocks, key=lambda block: block.noise / max(block.saved_ns, 1.0), reverse=True)


def without(material: Material, costs: Costs, decision: Decision, nodes: Iterable[str], reason: str = "") -> Decision:
    """The decision with the nodes of these names in float, and what only followed them."""
    return restricted(material.annotation, decision, costs, dict.fromkeys(nodes, reason))


def _names(units: Iterable[Unit]) -> list[str]:
    return [unit.node.name or "" for unit in units]


def has_weight(unit: Unit) -> bool:
    """Whether its node is a layer with a weight."""
    return isinstance(unit.role, Compute) and unit.role.weight is not None


def _cut(units: Sequence[Unit], parts: int) -> list[list[Unit]]:
    """Into runs of nearly equal length, at most so many."""
    parts = min(parts, len(units))
    edges = [len(units) * part // parts for part in range(parts + 1)] if parts else [0]
    return [list(units[begin:end]) for begin, end in itertools.pairwise(edges)]
