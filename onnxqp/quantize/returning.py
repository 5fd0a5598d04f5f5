"""Which blocks of integers cost most accuracy for the time they save, and what remains when they return to float.

The noise of the parts of a network adds up at its outputs, nearly: each block is tried alone in int8, and a sorted list
of them (noise a nanosecond) says what to return first. A block is a run of neighbours, for a single node between
integers saves nothing by itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from onnxqp.quantize.annotate import Unit
from onnxqp.quantize.candidate import Material
from onnxqp.quantize.costs import Costs
from onnxqp.quantize.decide import Decision, predicted_ns, restricted
from onnxqp.quantize.quality import Probe
from onnxqp.specs import Compute

BLOCKS = 8  # tried at first
PARTS = 4  # that a block is cut into when it makes more than its share of the noise
LARGE = 0.25  # that share

Advance = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Block:
    """Nodes with weights, neighbours in the graph; the noise that they alone add, and the nanoseconds they save."""

    nodes: tuple[str, ...]
    noise: float
    saved_ns: float


def sensitivities(material: Material, costs: Costs, decision: Decision, probe: Probe) -> list[Block]:
    """The blocks of a decision, in the order of the graph; those that make most of the noise are cut once more."""
    heavy = [unit for unit in decision.integer if _has_weight(unit) and not unit.chosen]
    floor = probe.noise_of(material.build(without(material, costs, decision, _names(heavy))).model)
    whole = predicted_ns(material.annotation, decision, costs)

    def block(units: Sequence[Unit]) -> Block:
        inside = set(units)
        alone = without(material, costs, decision, _names(unit for unit in heavy if unit not in inside))
        rest = predicted_ns(material.annotation, without(material, costs, decision, _names(units)), costs)
        noise = probe.noise_of(material.build(alone).model) - floor
        return Block(tuple(_names(units)), max(noise, 0.0), max(rest - whole, 0.0))

    pieces = [(units, block(units)) for units in _cut(heavy, BLOCKS)]
    total = sum(piece.noise for _, piece in pieces)
    blocks: list[Block] = []
    for units, piece in pieces:
        if piece.noise > LARGE * total and len(units) > 1:
            blocks += [block(part) for part in _cut(units, PARTS)]
        else:
            blocks.append(piece)
    return blocks


def by_rank(blocks: Iterable[Block]) -> list[Block]:
    """Those first whose noise is dearest: most of it for each nanosecond saved."""
    return sorted(blocks, key=lambda block: block.noise / max(block.saved_ns, 1.0), reverse=True)


def without(material: Material, costs: Costs, decision: Decision, nodes: Iterable[str], reason: str = "") -> Decision:
    """The decision with the nodes of these names in float, and what only followed them."""
    return restricted(material.annotation, decision, costs, dict.fromkeys(nodes, reason))


def _names(units: Iterable[Unit]) -> list[str]:
    return [unit.node.name or "" for unit in units]


def _has_weight(unit: Unit) -> bool:
    return isinstance(unit.role, Compute) and unit.role.weight is not None


def _cut(units: Sequence[Unit], parts: int) -> list[list[Unit]]:
    """Into runs of nearly equal length, at most so many."""
    parts = min(parts, len(units))
    edges = [len(units) * part // parts for part in range(parts + 1)] if parts else [0]
    return [list(units[begin:end]) for begin, end in itertools.pairwise(edges)]
