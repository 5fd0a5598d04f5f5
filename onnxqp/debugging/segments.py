"""A model cut into the pieces between its matched values, so that each piece can be run on inputs of our choice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxqp.debugging.matching import DEQUANTIZE, Pair
from onnxqp.graph import unique_name
from onnxqp.model import clone
from onnxqp.normalize.cleanup import remove_dead


@dataclass(frozen=True)
class Segments:
    """A model that computes `outputs` (value name -> its pair) from the inputs of the whole model that it still needs
    and from `given` (input name -> the pair whose value it takes)."""

    model: ir.Model
    given: Mapping[str, Pair]
    outputs: Mapping[str, Pair]

    def sources(self) -> dict[str, list[Pair]]:
        """Of each output's pair, by name, the pairs whose values it is computed from."""
        values = {value.name: value for value in self.model.graph.outputs}
        return {pair.name: self._above(values[name]) for name, pair in self.outputs.items()}

    def _above(self, value: ir.Value) -> list[Pair]:
        found: dict[str, Pair] = {}
        pending, seen = [value], {value}
        while pending:
            each = pending.pop()
            pair = self.given.get(each.name or "")
            if pair is not None:
                found[pair.name] = pair
            maker = each.producer()
            above = () if maker is None else maker.inputs
            new = {source for source in above if source is not None} - seen
            seen |= new
            pending += new
        return list(found.values())


def baseline_segments(baseline: ir.Model, pairs: Iterable[Pair], wanted: Sequence[Pair]) -> Segments:
    """The baseline with every matched value given from outside; `wanted` are those to compute."""
    work = clone(baseline)
    values, cut = _values(work), _Cut(work)
    for pair in pairs:
        value = values[pair.name]
        given = cut.input(pair, value)
        for use in list(value.uses()):
            use.node.replace_input_with(use.idx, given)
    return cut.keep({pair.name: pair for pair in wanted if not values[pair.name].is_graph_input()}, values)


def candidate_segments(candidate: ir.Model, pairs: Iterable[Pair], wanted: Sequence[Pair]) -> Segments:
    """The candidate, likewise. A given value passes a QuantizeLinear of its own, for integer kernels read integers."""
    work = clone(candidate)
    values, cut = _values(work), _Cut(work)
    for pair in pairs:
        value = values[pair.candidate]
        given = cut.input(pair, value)
        maker = value.producer()
        integers = maker.inputs[0] if maker is not None and maker.op_type == DEQUANTIZE else None
        if maker is None or integers is None:
            for use in list(value.uses()):
                use.node.replace_input_with(use.idx, given)
            continue
        again, real = cut.requantized(given, maker, integers)
        for use in list(value.uses()):
            use.node.replace_input_with(use.idx, real)
        for use in list(integers.uses()):
            if use.node not in (maker, real.producer()):
                use.node.replace_input_with(use.idx, again)
    return cut.keep({pair.candidate: pair for pair in wanted}, values)


def _values(model: ir.Model) -> dict[str, ir.Value]:
    nodes = (value for node in model.graph for value in node.outputs)
    return {value.name: value for value in (*model.graph.inputs, *nodes) if value.name}


class _Cut:
    """One model under the knife."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.graph = model.graph
        self.given: dict[str, Pair] = {}

    def input(self, pair: Pair, like: ir.Value) -> ir.Value:
        """A new graph input that takes the value of `pair`."""
        value = ir.Value(name=unique_name(self.graph, f"{pair.name}__given"), type=like.type, shape=like.shape)
        self.graph.inputs.append(value)
        self.given[value.name or ""] = pair
        return value

    def requantized(self, given: ir.Value, maker: ir.Node, integers: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The given value on the grid of DequantizeLinear `maker`: its integers, and what they stand for."""
        quantize = ir.Node(
            maker.domain, "QuantizeLinear", [given, *maker.inputs[1:]], name=unique_name(self.graph, f"{given.name}_Q")
        )
        again = quantize.outputs[0]
        again.name, again.type, again.shape = unique_name(self.graph, f"{given.name}_q"), integers.type, given.shape
        dequantize = ir.Node(
            maker.domain, maker.op_type, [again, *maker.inputs[1:]], name=unique_name(self.graph, f"{given.name}_DQ")
        )
        real = dequantize.outputs[0]
        real.name, real.type, real.shape = unique_name(self.graph, f"{given.name}_dq"), given.type, given.shape
        self.graph.insert_before(self.graph[0], [quantize, dequantize])
        return again, real

    def keep(self, outputs: Mapping[str, Pair], values: Mapping[str, ir.Value]) -> Segments:
        """Only what computes `outputs`."""
        self.graph.outputs.clear()
        self.graph.outputs.extend(values[name] for name in outputs)
        remove_dead(self.model)
        needed = [value for value in self.graph.inputs if value.uses() or value.is_graph_output()]
        self.graph.inputs.clear()
        self.graph.inputs.extend(needed)
        names = {value.name or "" for value in needed}
        given = {name: pair for name, pair in self.given.items() if name in names}
        return Segments(self.model, given, outputs)
