"""Images cut at their ends, where only the mean over their places is asked for.

What a global average pool reads may leave out its last places along an axis, and all layers in front compute as much
less. An image is cut by whole steps of the last one, so that every place that is left lies where it lay: only what pads
the new edge differs. Networks that were trained on random crops bear it well, and it needs no refit that could lean on
the samples. But what was at that edge is not seen any more: real samples must judge it, and the user must be told.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxqp.graph import add_initializer, dims, unique_name
from onnxqp.model import clone
from onnxqp.normalize.shapes import infer_shapes
from onnxqp.ops import rule_for
from onnxqp.options import Selection
from onnxqp.prune.budgets import count_macs
from onnxqp.prune.perforate import LEAST, WORTH, Steps
from onnxqp.report.records import Narrowed, Pruning

SHARES = (8, 4)  # one in so many places goes along an axis


@dataclass(frozen=True)
class Margin:
    """An input of the graph, the size of its images in space, and how much of each axis goes at the end.

    `inside`: what shrinks with it; `windows`: the layers among it that have one; `means`: the nodes that average.
    """

    source: str
    size: tuple[int, ...]
    less: Steps
    inside: tuple[str, ...]
    windows: tuple[str, ...]
    means: tuple[str, ...]

    def of(self, model: ir.Model) -> ir.Model:
        """A copy of a model, or of one that was cut from it, that looks at the rest of the image only."""
        copy = self.asked_of(model)
        for node in [each for each in copy.graph if each.name in self.windows]:
            rule_for(node).plain(node)  # padding of its own is padding of the smaller image
        infer_shapes(copy)
        return copy

    def asked_of(self, model: ir.Model) -> ir.Model:
        """The model as it is, its images cut: what the other must equal."""
        copy = clone(model)
        self._narrow(copy.graph)
        return copy

    def recorded(self, pruning: Pruning, cost: float) -> Pruning:
        """The record with this way in it."""
        kept = [size - less for size, less in zip(self.size, self.less, strict=True)]
        return replace(pruning, narrowed=[Narrowed(self.source, list(self.size), kept, list(self.means), cost)])

    @property
    def warning(self) -> str:
        """What a user must know."""
        parts = (
            f"the last {less} of {size} places along axis {2 + axis}"
            for axis, (size, less) in enumerate(zip(self.size, self.less, strict=True))
            if less
        )
        mean = self.means[0]
        return (
            f"the model no longer looks at {' and '.join(parts)} of input {self.source!r}, which cost least on the "
            f"samples: --exclude {mean!r} keeps whole images"
        )

    def _narrow(self, graph: ir.Graph) -> None:
        for node in [each for each in graph if each.name in self.means]:
            rule_for(node).plain(node)  # a mean over whatever there is
        source = next(value for value in _sources(graph) if value.name == self.source)
        readers = list(source.uses())
        kept = [size - less for size, less in zip(self.size, self.less, strict=True)]
        numbers = {"begin": [0] * len(kept), "end": kept, "axes": [2 + axis for axis in range(len(kept))]}
        operands = [
            add_initializer(graph, f"{self.source}_{name}", np.asarray(each, np.int64))
            for name, each in numbers.items()
        ]
        name = unique_name(graph, f"{self.source}_narrowed")
        node = ir.Node("", "Slice", [source, *operands], name=name)
        inner = node.outputs[0]
        inner.name, inner.type = name, source.type
        inner.shape = ir.Shape([*list(source.shape or ())[:2], *kept])
        maker = source.producer()
        if maker is None:
            graph.insert_before(next(iter(graph)), node)
        else:
            graph.insert_after(maker, node)
        for reader, index in readers:
            reader.replace_input_with(index, inner)
        for value in (value for each in graph for value in each.outputs if value.name in self.inside):
            value.shape = ir.Shape([*list(value.shape or ())[:2], *[None] * len(kept)])


def margins(model: ir.Model, selection: Selection | None = None) -> list[Margin]:
    """The ways to look at less of an image of a normalised model that save something."""
    found = []
    limit = (1 - WORTH) * count_macs(model)
    for source in _sources(model.graph):
        seen = _followed(model.graph, source, selection or Selection())
        if seen is None:
            continue
        for less in _steps(seen):
            way = Margin(source.name or "", seen.size, less, tuple(seen.inside), tuple(seen.windows), tuple(seen.means))
            narrowed = way.of(model)
            shrunk = {value.name: dims(value) for node in narrowed.graph for value in node.outputs}
            known = all(None not in (shrunk.get(name) or (None,))[1:] for name in way.inside)
            if known and count_macs(narrowed) <= limit:
                found.append(way)
        if found:  # what follows is the same image further on
            break
    return found


def _sources(graph: ir.Graph) -> list[ir.Value]:
    """Images as they come in: inputs, and what a first node, which may turn their axes, makes of one."""
    inputs = list(graph.inputs)
    return [*inputs, *(node.outputs[0] for node in graph if any(value in inputs for value in node.inputs))]


@dataclass
class _Followed:
    """What an image becomes on its way to averages."""

    size: tuple[int, ...]
    inside: list[str]
    windows: list[str]
    means: list[str]
    last: set[tuple[int, ...]]  # sizes of what is averaged


def _steps(seen: _Followed) -> list[Steps]:
    """By whole steps of the smallest image that is averaged, which are whole steps of the others too."""
    if not seen.means or any(size % places for each in seen.last for size, places in zip(seen.size, each, strict=True)):
        return []
    last = [min(places) for places in zip(*seen.last, strict=True)]
    free = [sorted({0, *(places // share for share in SHARES if places >= LEAST)}) for places in last]
    steps = [size // places for size, places in zip(seen.size, last, strict=True)]
    return [
        tuple(count * step for count, step in zip(counts, steps, strict=True))
        for counts in itertools.product(*free)
        if any(counts)
    ]


def _followed(graph: ir.Graph, source: ir.Value, wanted: Selection) -> _Followed | None:
    """None where anything but averages looks at the image as a whole, or where a layer is not to be touched."""
    size = _space(source)
    if size is None or source.is_graph_output():
        return None
    seen = _Followed(size, [], [], [], set())
    images = {source}
    for node in graph:
        entering = [value for value in node.inputs if value in images]
        if not entering:
            continue
        rule = rule_for(node)
        if wanted.reason_against(node.name or "", node.op_type) is not None:
            return None
        if rule.averages(node) and len(entering) == 1:
            seen.means.append(node.name or "")
            seen.last.add(_space(entering[0]) or ())
            continue
        alone = entering == [node.inputs[0]]
        is_window = alone and rule.window(node) is not None
        widens = alone and rule.widens(node)
        if not (is_window or widens or (rule.keeps_places(node) and _beside(node, images, len(size)))):
            return None
        output = node.outputs[0]
        if output.is_graph_output() or _space(output) is None:
            return None
        seen.windows += [node.name or ""] if is_window else []
        seen.inside.append(output.name or "")
        images.add(output)
    return seen


def _beside(node: ir.Node, images: set[ir.Value], rank: int) -> bool:
    """Whether all that a node reads beside the images is the same for every place."""
    pointwise = rule_for(node).pointwise
    for value in node.inputs:
        shape = dims(value)
        if value is None or value in images:
            continue
        if shape is None:
            return False
        if (len(shape) == rank + 2 or pointwise) and any(size != 1 for size in shape[-rank:]):
            return False
    return True


def _space(value: ir.Value) -> tuple[int, ...] | None:
    """The size of an image in space; None where it is none or not known."""
    shape = dims(value)
    if shape is None or len(shape) < 3:
        return None
    sizes = tuple(size for size in shape[2:] if size is not None)
    return sizes if len(sizes) == len(shape) - 2 else None
