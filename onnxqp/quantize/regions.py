"""A model with one region of its layers in int8 and all else in float: what integers cost there, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxqp.options import QuantizeOptions
from onnxqp.quantize.annotate import Unit
from onnxqp.quantize.candidate import Material
from onnxqp.quantize.decide import Decision, everything, restricted
from onnxqp.quantize.passes import prepared
from onnxqp.specs import Compute, Feed

MOST = 32  # regions: a deeper model is cut into runs of neighbouring layers


@dataclass(frozen=True)
class IntegerRegion:
    """Nodes that only together are worth a look: layers with weights, and what follows them on integers."""

    nodes: tuple[str, ...]
    model: ir.Model


def integer_regions(
    model: ir.Model, samples: Iterable[Feed], options: QuantizeOptions, *, few: Iterable[Feed]
) -> tuple[int, Iterator[IntegerRegion]]:
    """How many regions there are, and each as a model, made when it is asked for.

    Raises what `quantize_model` raises of models that are quantized already, or broken.
    """
    material, costs = prepared(model, samples, options, few=few)
    whole = everything(material.annotation, costs)
    runs = _runs(whole.integer)

    def build() -> Iterator[IntegerRegion]:
        for run in runs:
            inside = set(run)
            others = {unit.node.name or "": "" for unit in whole.integer if unit not in inside}
            decision: Decision = restricted(material.annotation, whole, costs, others)
            if decision.integer:
                nodes = tuple(unit.node.name or "" for unit in decision.integer)
                yield IntegerRegion(nodes, _model(material, decision))

    return len(runs), build()


def _model(material: Material, decision: Decision) -> ir.Model:
    return material.build(decision, at_rest=False).model


def _runs(units: Sequence[Unit]) -> list[list[Unit]]:
    """Runs of neighbours, each beginning with a layer that has a weight (but what stands before the first)."""
    starts = [place for place, unit in enumerate(units) if isinstance(unit.role, Compute) and unit.role.weight]
    if not starts:
        return [list(units)] if units else []
    count = min(len(starts), MOST)
    edges = [starts[len(starts) * part // count] for part in range(1, count)]
    return [list(units[begin:end]) for begin, end in zip([0, *edges], [*edges, len(units)], strict=True)]
