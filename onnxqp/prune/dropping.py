"""Whole layers that go: residual branches, and layers of a chain whose input fits in place of their output.

A residual sum `x + f(x)` becomes `x`; in a chain `z = act(W x)` with z of the shape of x, what read z reads x. Each
candidate is tried alone first: the cost is what that does to the outputs. Then the cheapest goes, those next in line
are tried again without it, and so on: branches that stand in for each other do not both seem dispensable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxqp.errors import OnnxqpError, UnsupportedError, VerificationError
from onnxqp.evaluate.noise import Reference
from onnxqp.graph import add_initializer, unique_name
from onnxqp.model import clone, parameters
from onnxqp.normalize.cleanup import remove_dead
from onnxqp.ops import rule_for
from onnxqp.options import Selection
from onnxqp.prune.budgets import count_macs
from onnxqp.prune.proof import prove, random_feeds
from onnxqp.prune.pruning import runnable
from onnxqp.report.records import DroppedLayer, Pruning
from onnxqp.specs import Feed

TRIED = 64  # candidates that are tried, evenly spread over those of a deeper model
AGAIN = 4  # that are tried once more after each that went
FEEDS = 16  # samples to try on


@dataclass(frozen=True)
class Bypass:
    """Readers of `gone` read `kept` instead, both by name; `members` are the nodes that then compute for nobody."""

    id: str
    kept: str
    gone: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class DropResult:
    """The model without the layers, and what was done to it."""

    model: ir.Model
    pruning: Pruning
    dropped: tuple[DroppedLayer, ...]
    stand_ins: tuple[str, ...]  # values that are now read in place of what the layers made


def find_layers(graph: ir.Graph, selection: Selection | None = None) -> list[Bypass]:
    """What can be bypassed, in the order of the graph; layers inside a residual branch go with the branch only."""
    place = {node: number for number, node in enumerate(graph)}
    found: list[tuple[int, Bypass]] = []
    inside: set[str] = set()
    for node in graph:
        operands = [node.inputs[index] for index in rule_for(node).summands(node)]
        if len(operands) != 2 or node.outputs[0].is_graph_output():
            continue
        for kept, branch in (operands, operands[::-1]):
            if _same_shape(kept, branch, node.outputs[0]) and _leads_to(kept, branch, place):
                members = _dead(graph, node, branch, kept)
                if any(rule_for(each).macs(each) for each in members):
                    found.append((place[node], _bypass(kept, node, members)))
                    inside.update(each.name or "" for each in members)
                break
    for node in graph:
        layer = None if node.name in inside else _chain_layer(node)
        if layer is not None:
            found.append((place[node], layer))
    wanted = selection or Selection()
    return [
        bypass
        for _, bypass in sorted(found, key=lambda entry: entry[0])
        if not any(wanted.reason_against(node.name or "", node.op_type) for node in _weighty(graph, bypass))
    ]


def _weighty(graph: ir.Graph, bypass: Bypass) -> list[ir.Node]:
    names = set(bypass.members)
    return [node for node in graph if node.name in names and rule_for(node).macs(node)]


def _bypass(kept: ir.Value | None, node: ir.Node, members: Sequence[ir.Node]) -> Bypass:
    assert kept is not None
    names = tuple(each.name or "" for each in (*members, node))
    heavy = next(each for each in members if rule_for(each).macs(each))
    return Bypass(heavy.name or "", kept.name or "", node.outputs[0].name or "", names)


def _same_shape(*values: ir.Value | None) -> bool:
    """Whether all are known to have one shape: the same numbers, and the same names where they are open."""
    shapes = [None if value is None or value.shape is None else [str(size) for size in value.shape] for value in values]
    return shapes[0] is not None and "None" not in shapes[0] and all(shape == shapes[0] for shape in shapes)


def _leads_to(source: ir.Value | None, value: ir.Value | None, place: dict[ir.Node, int]) -> bool:
    """Whether `value` is computed from `source`; nodes before the maker of `source` need no look."""
    assert source is not None
    assert value is not None
    maker = source.producer()
    first = -1 if maker is None else place.get(maker, -1)
    pending, seen = [value], {value}
    while pending:
        current = pending.pop()
        producer = current.producer()
        if producer is None or place.get(producer, -1) <= first:
            continue
        for entering in producer.inputs:
            if entering is source:
                return True
            if entering is not None and entering not in seen:
                seen.add(entering)
                pending.append(entering)
    return False


def _dead(graph: ir.Graph, reader: ir.Node, value: ir.Value | None, kept: ir.Value | None) -> list[ir.Node]:
    """The nodes that compute for nobody once `kept` is read in place of what `reader` makes."""
    gone: set[ir.Node] = {reader}
    pending = [value]
    while pending:
        current = pending.pop()
        producer = None if current is None or current is kept else current.producer()
        if producer is None or producer in gone or producer.graph is not graph:
            continue
        if any(output.is_graph_output() or set(output.consumers()) - gone for output in producer.outputs):
            continue
        gone.add(producer)
        pending.extend(producer.inputs)
    return [node for node in graph if node in gone - {reader}] if len(gone) > 1 else []


def _chain_layer(node: ir.Node) -> Bypass | None:
    """A layer with what follows it alone, elementwise, when its input fits in place of that."""
    contraction = rule_for(node).contraction(node)
    source = None if contraction is None else node.inputs[contraction.data]
    if source is None or source.is_graph_input():
        return None
    members, value = [node], node.outputs[0]
    while len(value.uses()) == 1 and not value.is_graph_output():
        user = next(iter(value.uses())).node
        if not rule_for(user).keeps_axes or len(user.outputs) > 1 or not _only_reads(user, value):
            break
        members.append(user)
        value = user.outputs[0]
    if value.is_graph_output() or not _same_shape(source, value):
        return None
    return Bypass(node.name or "", source.name or "", value.name or "", tuple(each.name or "" for each in members))


def _only_reads(user: ir.Node, value: ir.Value) -> bool:
    return all(each is None or each is value or each.is_initializer() for each in user.inputs)


# ---- choosing --------------------------------------------------------------------------------------------------------


def drop_layers(
    model: ir.Model,
    feeds: Sequence[Feed],
    samples: Sequence[Feed],
    amount: int | float,
    *,
    selection: Selection | None = None,
    seed: int = 0,
) -> DropResult:
    """Remove `amount` layers of a normalised model (below 1: that share of those that can go), the cheapest first.

    Costs are those on `samples`. The result is held against the original that still computes the layers, and whose
    readers look past them, on `feeds` and on random inputs like them. Raises UnsupportedError where fewer can go, and
    VerificationError.
    """
    found = find_layers(model.graph, selection)
    count = amount if isinstance(amount, int) else max(round(amount * len(found)), 1)
    if count > len(found):
        raise UnsupportedError(
            f"{count} layers cannot be dropped: {len(found)} could go",
            hint="a residual branch can, and a layer of a chain whose input and output have one shape",
        )
    probe = Reference(
        model, [samples[place * len(samples) // FEEDS] for place in range(FEEDS)] if len(samples) > FEEDS else samples
    )
    chosen = _cheapest(model, _spread(found, count), count, probe)
    dropped = _without(model, [bypass for bypass, _ in chosen])
    proof = prove(
        _looking_past(model, [bypass for bypass, _ in chosen]),
        dropped,
        [*feeds, *runnable(model, random_feeds(feeds[:2], seed))],
    )
    if not proof.checked:
        raise VerificationError(
            f"the model without its layers cannot be proven: {proof.skipped_reason}",
            hint="this is worth a bug report; --exclude leaves nodes alone",
        )
    layers = tuple(DroppedLayer(bypass.id, list(bypass.members), cost) for bypass, cost in chosen)
    macs, size = count_macs(model), parameters(model)
    record = Pruning(
        channels_before=0,
        channels_after=0,
        macs_ratio=count_macs(dropped) / macs if macs else None,
        params_ratio=parameters(dropped) / size if size else 1.0,
        groups=[],
        pinned=[],
        proof=proof,
        dropped=list(layers),
    )
    return DropResult(dropped, record, layers, tuple(bypass.kept for bypass, _ in chosen))


def _spread(found: list[Bypass], count: int) -> list[Bypass]:
    most = max(TRIED, 2 * count)
    return found if len(found) <= most else [found[place * len(found) // most] for place in range(most)]


def _cheapest(
    model: ir.Model, candidates: Sequence[Bypass], count: int, probe: Reference
) -> list[tuple[Bypass, float]]:
    """The layers that go and what the model has lost once each is gone, in the order in which they go."""
    cost = {bypass: _cost(model, [bypass], probe) for bypass in candidates}
    chosen: list[tuple[Bypass, float]] = []
    while len(chosen) < count:
        gone = [bypass for bypass, _ in chosen]
        line = sorted((bypass for bypass in candidates if bypass not in gone), key=lambda bypass: cost[bypass])
        if gone:
            for bypass in line[:AGAIN]:
                cost[bypass] = _cost(model, [*gone, bypass], probe)
        best = min(line[:AGAIN], key=lambda bypass: cost[bypass])
        chosen.append((best, cost[best]))
    return chosen


def _cost(model: ir.Model, bypasses: Sequence[Bypass], probe: Reference) -> float:
    try:
        return probe.noise_of(_without(model, bypasses))
    except OnnxqpError:  # shapes that only the run knows: it cannot go
        return float("inf")


# ---- rewriting -------------------------------------------------------------------------------------------------------


def _without(model: ir.Model, bypasses: Sequence[Bypass]) -> ir.Model:
    """A copy in which the layers are gone."""
    copy = clone(model)
    values = _values(copy.graph)
    stand_in: dict[str, ir.Value] = {}
    for bypass in _in_order(copy.graph, bypasses):
        kept = stand_in.get(bypass.kept, values[bypass.kept])
        stand_in[bypass.gone] = kept
        ir.convenience.replace_all_uses_with(values[bypass.gone], kept)
    remove_dead(copy)
    return copy


def _looking_past(model: ir.Model, bypasses: Sequence[Bypass]) -> ir.Model:
    """A copy that computes the layers as before, while their readers look at what is kept."""
    copy = clone(model)
    values = _values(copy.graph)
    true = add_initializer(copy.graph, "look_past", np.array(True))
    stand_in: dict[str, ir.Value] = {}
    for bypass in _in_order(copy.graph, bypasses):
        gone, kept = values[bypass.gone], stand_in.get(bypass.kept, values[bypass.kept])
        maker = gone.producer()
        assert maker is not None
        node = ir.Node("", "Where", [true, kept, gone], name=unique_name(copy.graph, f"{bypass.id}_past"))
        output = node.outputs[0]
        output.name, output.type, output.shape = unique_name(copy.graph, f"{bypass.gone}_past"), gone.type, gone.shape
        for user, index in [use for use in gone.uses() if use[0] is not node]:
            user.replace_input_with(index, output)
        copy.graph.insert_after(maker, node)
        stand_in[bypass.gone] = output
    return copy


def _in_order(graph: ir.Graph, bypasses: Sequence[Bypass]) -> Iterator[Bypass]:
    """Along the graph: what one keeps may be what another has made go."""
    place = {output.name: number for number, node in enumerate(graph) for output in node.outputs}
    yield from sorted(bypasses, key=lambda bypass: place[bypass.gone])


def _values(graph: ir.Graph) -> dict[str, ir.Value]:
    found = {value.name or "": value for value in graph.inputs}
    found.update({output.name or "": output for node in graph for output in node.outputs})
    return found
