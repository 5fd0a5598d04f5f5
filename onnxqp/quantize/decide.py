"""Where integers pay: chooses among the candidates by the target's costs, and says of the others why not.

A choice is a region, not a node: entering and leaving the integers costs a conversion of every element. The costs make
a minimum cut (`partition`). They come from a table or from a clock (`costs`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import onnx_ir as ir

from onnxqp.quantize.annotate import Annotation, Unit
from onnxqp.quantize.costs import Costs
from onnxqp.quantize.partition import FORBIDDEN, Partition
from onnxqp.specs import Compute
from onnxqp.targets import Kernel

MARGIN = 1.05  # int8 must promise this much; a tie is not worth its rounding errors
HEAD_SHARE = 0.1  # share of the model's time that int8 must save in a node that writes a graph output
SMALL = 8  # an operand so many times smaller than another costs next to nothing to quantize
POOLED = 4  # an operator that shrinks its input by this factor averages rounding errors away


@dataclass(frozen=True)
class Decision:
    """The units that run on integers, in topological order, and why the other candidates do not, by node name."""

    integer: tuple[Unit, ...]
    reasons: Mapping[str, str]

    @property
    def names(self) -> frozenset[str]:
        """The nodes that run on integers."""
        return frozenset(unit.node.name or "" for unit in self.integer)


_NOTHING: Mapping[str, str] = MappingProxyType({})


def decide(annotation: Annotation, costs: Costs, returned: Mapping[str, str] = _NOTHING) -> Decision:
    """Choose what is fastest. `returned`: nodes that must stay in float, and why."""
    return _Decider(annotation, costs, returned).run()


def everything(annotation: Annotation, costs: Costs) -> Decision:
    """All that can run on integers, whatever it costs: what there is to measure."""
    decider = _Decider(annotation, costs, _NOTHING)
    kept = decider.useful(list(decider.allowed()))
    return Decision(tuple(unit for unit in annotation.units if unit in kept), decider.reasons)


def restricted(annotation: Annotation, decision: Decision, costs: Costs, returned: Mapping[str, str]) -> Decision:
    """The same decision with some nodes back in float, by name and why, and what only followed them; nothing else."""
    decider = _Decider(annotation, costs, returned)
    decider.reasons.update({**decision.reasons, **returned})
    allowed = decider.allowed(set(decision.integer))
    kept = decider.useful(list(allowed))
    return Decision(tuple(unit for unit in annotation.units if unit in kept), decider.reasons)


def carried(annotation: Annotation, decision: Decision, costs: Costs) -> Decision:
    """A decision about the same model in terms of another annotation of it, which may lack some units."""
    names = decision.names
    units = tuple(unit for unit in annotation.units if unit.node.name in names)
    found = Decision(units, decision.reasons)
    return found if len(units) == len(decision.integer) else restricted(annotation, found, costs, {})


def predicted_ns(annotation: Annotation, decision: Decision, costs: Costs) -> float:
    """Nanoseconds that the candidates for integers take together, conversions included, as a decision has them."""
    integer = set(decision.integer)
    total = sum(costs.of(unit)[unit in integer] for unit in annotation.units)
    for value in annotation.values():
        maker = annotation.made_by.get(value)
        readers = [unit for unit in annotation.read_by.get(value, ()) if unit in integer]
        if maker in integer:
            left = maker is not None and maker.requantizes and len(readers) < len(value.uses())
            total += costs.border(value) if left or value.is_graph_output() else 0.0
        elif readers:
            total += costs.border(value)
    return total


class _Decider:
    def __init__(self, annotation: Annotation, costs: Costs, returned: Mapping[str, str]) -> None:
        self.annotation = annotation
        self.costs = costs
        self.returned = returned
        self.reasons: dict[str, str] = {}

    def run(self) -> Decision:
        allowed = self.allowed()
        costs = {unit: self.costs.of(unit) for unit in allowed}
        total = sum(as_float for as_float, _ in costs.values())
        heads = self._heads(allowed)
        partition = Partition()
        numbers: dict[Unit, int] = {}
        for unit, (as_float, as_integer) in costs.items():
            penalty = HEAD_SHARE * total if unit in heads else 0.0
            chosen = unit.chosen and not (unit.moves or unit.kernel.follows)  # by name: whatever it costs
            numbers[unit] = partition.node(FORBIDDEN if chosen else as_float, MARGIN * as_integer + penalty)
        for value in self.annotation.values():
            self._borders(value, numbers, partition)
        states = partition.solve()
        integer = [unit for unit in allowed if states[numbers[unit]]]
        for unit in allowed:
            if not states[numbers[unit]]:
                self.reasons[unit.node.name or ""] = self._explain(unit, costs[unit], unit in heads)
        kept = self.useful(integer)
        return Decision(tuple(unit for unit in self.annotation.units if unit in kept), self.reasons)

    def allowed(self, among: Collection[Unit] | None = None) -> dict[Unit, None]:
        """The units, of all or `among` some, whose conditions can hold: followers need makers of integers, all the way
        up."""
        allowed: dict[Unit, None] = {}
        for unit in self.annotation.units:
            if among is not None and unit not in among:
                continue
            name = unit.node.name or ""
            missing = next((value for value in self._followed(unit) if self._maker(value, allowed) is None), None)
            if name in self.returned:
                self.reasons[name] = self.returned[name]
            elif missing is not None:
                self.reasons[name] = f"its input '{missing.name}' is float"
            else:
                allowed[unit] = None
        return allowed

    def _followed(self, unit: Unit) -> list[ir.Value]:
        """The operands that must be integers already: not the small ones, as the factors of squeeze and excite."""
        if not unit.kernel.follows:
            return []
        counts = {value: self.costs.count(value) for _, value in unit.inputs}
        return [value for value, count in counts.items() if count * SMALL >= max(counts.values())]

    def _maker(self, value: ir.Value, among: Mapping[Unit, object]) -> Unit | None:
        unit = self.annotation.made_by.get(value)
        return unit if unit in among else None

    # ---- borders

    def _borders(self, value: ir.Value, numbers: Mapping[Unit, int], partition: Partition) -> None:
        """Price the conversions of one value, and forbid what a follower forbids."""
        cost = self.costs.border(value)
        maker = self._maker(value, numbers)
        readers = [unit for unit in self.annotation.read_by.get(value, ()) if unit in numbers]
        made = numbers[maker] if maker is not None else partition.node(0.0, FORBIDDEN)
        for unit in readers:
            if value in self._followed(unit):
                partition.border(made, numbers[unit], FORBIDDEN)
        if maker is not None and maker.requantizes:
            if len(readers) < len(value.uses()) or value.is_graph_output():
                outside = partition.node(0.0, FORBIDDEN)
                partition.border(outside, made, cost)
            for unit in readers:
                partition.border(numbers[unit], made, cost)
        if readers:  # one QuantizeLinear, however many read it
            quantized = partition.node(0.0, 0.0)
            partition.border(made, quantized, cost)
            for unit in readers:
                partition.border(quantized, numbers[unit], FORBIDDEN)

    # ---- what is not for speed alone

    def _heads(self, allowed: Mapping[Unit, object]) -> set[Unit]:
        """Units with weights whose rounding errors reach a graph output with nothing behind them to average them."""
        heads: set[Unit] = set()
        values = [value for value in self._outputs() if value is not None]
        seen = set(values)
        while values:
            value = values.pop()
            unit = self._maker(value, allowed)
            if unit is not None and not unit.moves and isinstance(unit.role, Compute) and unit.role.weight is not None:
                if unit.requantizes:
                    heads.add(unit)
                continue
            node = unit.node if unit is not None else value.producer()
            for source in node.inputs if node is not None else ():
                if source is None or source in seen or self.costs.count(source) > POOLED * self.costs.count(value):
                    continue
                seen.add(source)
                values.append(source)
        return heads

    def _outputs(self) -> list[ir.Value]:
        graphs = {unit.node.graph for unit in self.annotation.units}
        return [value for graph in graphs if graph is not None for value in graph.outputs]

    def useful(self, integer: list[Unit]) -> set[Unit]:
        """Without what moves or follows integers that no kernel reads: it would only round once more."""
        kept = set(integer)
        for unit in reversed(integer):
            only_follows = unit.moves or unit.kernel.follows
            read = any(reader in kept for value in unit.outputs for reader in self.annotation.read_by.get(value, ()))
            if only_follows and not read:
                kept.discard(unit)
                self.reasons[unit.node.name or ""] = "nothing behind it runs on integers"
        return kept

    def _explain(self, unit: Unit, cost: tuple[float, float], head: bool) -> str:
        as_float, as_integer = cost[0] / 1000, cost[1] / 1000
        if isinstance(unit.kernel, Kernel) and not unit.kernel.follows and as_integer * MARGIN < as_float:
            if head:
                return "it writes an output of the model, and int8 would save too little time to round that"
            saved = f"{as_float - as_integer:.2g}"
            return f"int8 would save about {saved} us here and lose more on entering and leaving"
        if unit.kernel.follows:
            return "the nodes around it stay in float"
        estimate = f"{as_integer:.2g} us against {as_float:.2g} us"
        return f"not faster in int8 on {self.costs.target.name}, {self.costs.source}: {estimate}"
