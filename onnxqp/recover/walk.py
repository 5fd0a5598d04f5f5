"""Run a model piece by piece over many samples, while its weights change on the way.

Layers are refitted in order, each on what the layers before it compute now. To run the whole model for every layer
would cost the square of its depth; here each piece starts where the last one ended. The values that are still needed
there are kept for all samples where they fit a budget; where they do not (large maps early in a network), the next
piece starts again from the last place where they did.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy.typing as npt
import onnx_ir as ir

from onnxqp.graph import subgraphs
from onnxqp.ops import rule_for
from onnxqp.runtime import Session
from onnxqp.specs import Feed

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]


class Walk:
    """One model under way. `budget`: bytes that the kept values of all samples may take."""

    def __init__(self, model: ir.Model, feeds: Sequence[Feed], *, budget: int) -> None:
        self._model = model
        self._feeds = feeds
        self._budget = budget
        self._order = early_order(model.graph)
        self._place = {node: place for place, node in enumerate(self._order)}
        self._nodes = {node.name: node for node in self._order}
        self._kept: list[Arrays] = [dict(feed) for feed in feeds]

    @property
    def order(self) -> Sequence[ir.Node]:
        """The nodes in the order of running: those that are not refitted as early as possible."""
        return self._order

    def node(self, name: str) -> ir.Node | None:
        return self._nodes.get(name)

    def before(self, value: ir.Value, node: ir.Node) -> bool:
        """Whether `value` is known when `node` is about to run."""
        producer = value.producer()
        return producer is None or self._place.get(producer, len(self._order)) < self._place[node]

    def run(self, node: ir.Node, taps: Sequence[ir.Value], *, through: bool = False) -> Iterator[Arrays]:
        """For every sample the values `taps`, which are known before `node` (or, `through`, once it has run).

        To be read to the end: values that are kept move on sample by sample.
        """
        stop = self._place[node] + through
        names = list(dict.fromkeys(str(value.name) for value in taps))
        live = self._live(stop)
        wanted = list(dict.fromkeys([*names, *live]))
        session = self._piece(wanted)
        keep = False
        for number, known in enumerate(self._kept):
            found = dict(known)
            if session is not None:
                found |= session.run({spec.name: known[spec.name] for spec in session.inputs})
            if not number:
                keep = len(self._kept) * sum(found[name].nbytes for name in live) <= self._budget
            if keep:  # at once: what was kept before is not needed again
                self._kept[number] = {name: found[name] for name in live}
            yield {name: found[name] for name in names}

    def _live(self, stop: int) -> list[str]:
        """Values known before place `stop` that are needed from there on."""
        names: dict[str, None] = {}
        for node in self._order[stop:]:
            for value in _read(node):
                producer = value.producer()
                early = value.is_graph_input() if producer is None else self._place.get(producer, stop) < stop
                if early and value.name is not None:
                    names[value.name] = None
        return list(names)

    def _piece(self, wanted: Sequence[str]) -> Session | None:
        """A session for the part of the graph between what is kept and what is wanted; None where nothing is to run."""
        known = self._kept[0]
        missing = [name for name in wanted if name not in known]
        if not missing:
            return None
        graph = ir.convenience.extract(self._model.graph, self._needed(missing, known), missing)
        for value in graph.inputs:
            array = known[str(value.name)]
            value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
            value.shape = ir.Shape([None] * array.ndim)
        return Session(ir.Model(graph, ir_version=self._model.ir_version))

    def _needed(self, wanted: Sequence[str], known: Arrays) -> list[str]:
        """Which of the known values the wanted ones are computed from."""
        outputs = {output.name: node for node in self._order for output in node.outputs}
        found: dict[str, None] = {}
        seen: set[ir.Node] = set()
        pending = [outputs[name] for name in wanted]
        while pending:
            node = pending.pop()
            if node in seen:
                continue
            seen.add(node)
            for value in _read(node):
                producer = outputs.get(value.name)
                if value.name in known:
                    found[value.name] = None
                elif producer is not None:
                    pending.append(producer)
        return list(found)


def early_order(graph: ir.Graph) -> list[ir.Node]:
    """A topological order in which layers that can be refitted wait until nothing else can run.

    So the shortcut of a residual block is known when the last layer of its branch is refitted.
    """
    nodes = list(graph)
    number = {node: place for place, node in enumerate(nodes)}
    waiting: dict[ir.Node, int] = {}
    readers: dict[ir.Node, list[ir.Node]] = {node: [] for node in nodes}
    for node in nodes:
        before = {producer for value in _read(node) if (producer := value.producer()) in number}
        waiting[node] = len(before)
        for producer in before:
            if producer is not None:
                readers[producer].append(node)
    ready = [(_rank(node), number[node]) for node in nodes if not waiting[node]]
    heapq.heapify(ready)
    order = []
    while ready:
        node = nodes[heapq.heappop(ready)[1]]
        order.append(node)
        for reader in readers[node]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, (_rank(reader), number[reader]))
    return order


def _rank(node: ir.Node) -> int:
    return int(rule_for(node).contraction(node) is not None)


def _read(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads, in its bodies too."""
    yield from (value for value in node.inputs if value is not None and not value.is_initializer())
    for body in subgraphs(node):
        own: set[ir.Value] = {*body.inputs, *body.initializers.values()}
        for inner in body:
            own.update(inner.outputs)
            yield from (value for value in _read(inner) if value not in own)
        yield from (value for value in body.outputs if value not in own and not value.is_initializer())
