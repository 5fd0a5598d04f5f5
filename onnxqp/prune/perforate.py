"""Fewer places in space where only their mean is asked for: perforation.

What a global average pool reads is computed at every place of an image, to be averaged away. At every second place the
mean is nearly the same, and the layers in front cost half of it: the strides of the last convolutions with a window
grow, and what follows place by place (activations, sums, 1x1 convolutions) shrinks with them. Weights stay as they are.
After Figurnov et al., "PerforatedCNNs" (2016), who interpolate what is left out; a mean needs no interpolation.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from onnxqp.graph import dims, unique_name
from onnxqp.model import clone
from onnxqp.ops import rule_for
from onnxqp.ops.windows import multiply_strides
from onnxqp.options import Selection
from onnxqp.prune.budgets import count_macs
from onnxqp.report.records import Perforated, Pruning

Steps = tuple[int, ...]

LEAST = 4  # places along an axis of which some may go
WORTH = 0.02  # of the multiply-accumulates: regions that cannot save more are left alone


@dataclass
class Region:
    """What is averaged over the places of one image, by name; filled while the graph is walked backwards.

    `means`: the nodes that average. `windows`: nodes whose strides can grow. `inside`: values that shrink with them.
    `edges`: values, with their readers, that must be sampled on the way in, for others need all of them.
    """

    size: tuple[int, ...]  # of the image in space
    means: list[str] = field(default_factory=list)
    windows: list[str] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)
    edges: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    nodes: set[str] = field(default_factory=set)

    def steps(self) -> list[Steps]:
        """The ways to leave out every second place."""
        free = [(1, 2) if size >= LEAST else (1,) for size in self.size]
        return [steps for steps in itertools.product(*free) if any(step > 1 for step in steps)]


@dataclass(frozen=True)
class Perforation:
    """Which regions keep how many places: every `steps`-th along each axis of space."""

    regions: tuple[Region, ...]
    steps: Steps

    def of(self, model: ir.Model) -> ir.Model:
        """A copy of a model, or of one that was cut from it, that computes at those places only."""
        copy = clone(model)
        for region in self.regions:
            _perforate(copy.graph, region, self.steps)
        return copy

    def recorded(self, pruning: Pruning, cost: float) -> Pruning:
        """The record with this way in it."""
        found = [Perforated(each.means, sorted(each.windows), list(self.steps), cost) for each in self.regions]
        return replace(pruning, perforated=found)

    @property
    def warning(self) -> str | None:
        """Nothing: every part of an image still counts."""
        return None

    def asked_of(self, model: ir.Model) -> ir.Model:
        """A copy that computes all places and averages over those only: what the other must equal."""
        copy = clone(model)
        means = {name for region in self.regions for name in region.means}
        for node in [each for each in copy.graph if each.name in means]:
            source = node.inputs[0]
            assert source is not None
            rule_for(node).plain(node)
            _sample(copy.graph, source, [(node, 0)], self.steps)
        return copy


# ---- finding ---------------------------------------------------------------------------------------------------------


def find_regions(graph: ir.Graph, selection: Selection | None = None) -> list[Region]:
    """What can be perforated, the last first; nothing where a window that would grow is not selected."""
    wanted, found, taken = selection or Selection(), list[Region](), set[str]()
    for node in reversed(graph):
        source = node.inputs[0] if rule_for(node).averages(node) else None
        if source is None or source.name in taken:
            continue
        region = _grown(graph, source)
        if region is None:
            continue
        taken.update(region.inside)
        kept = [each for each in graph if each.name in region.windows]
        if not any(wanted.reason_against(each.name or "", each.op_type) for each in kept):
            found.append(region)
    return found


def _grown(graph: ir.Graph, source: ir.Value) -> Region | None:
    shape = dims(source)
    if shape is None or None in shape[2:]:
        return None
    region = Region(tuple(size or 0 for size in shape[2:]))
    asked: dict[str, ir.Value] = {source.name or "": source}
    for node in reversed(graph):
        value = node.outputs[0] if node.outputs else None
        if value is None or value.name not in asked:
            continue
        del asked[value.name]
        if not _only_for(value, region):
            _cut_off(region, value)
            continue
        entering = _entering(node, region)
        if entering is not None and all(_only_for(each, region, node) for each in entering if _is_window(node)):
            region.nodes.add(node.name or "")
            asked.update({each.name or "": each for each in entering})
        elif rule_for(node).window(node) is not None:
            region.windows.append(node.name or "")
        else:
            _cut_off(region, value)
            continue
        region.inside.append(value.name)
    for value in asked.values():  # inputs of the graph, constants
        _cut_off(region, value)
    _stride_points(graph, region)
    region.means = [each.name or "" for each in graph if rule_for(each).averages(each) and _reads(each, region)]
    return region if region.windows and region.steps() else None


def _reads(node: ir.Node, region: Region) -> bool:
    return node.inputs[0] is not None and node.inputs[0].name in region.inside


def _is_window(node: ir.Node) -> bool:
    return rule_for(node).window(node) is not None


def _only_for(value: ir.Value, region: Region, reader: ir.Node | None = None) -> bool:
    """Whether nobody but the region, averages and perhaps one reader more look at a value."""
    readers = [node for node in value.consumers() if node is not reader]
    return not value.is_graph_output() and all(
        node.name in region.nodes or (rule_for(node).averages(node) and node.graph is value.graph) for node in readers
    )


def _entering(node: ir.Node, region: Region) -> list[ir.Value] | None:
    """The images that a node takes place by place; None where it does not, or takes them otherwise."""
    rule = rule_for(node)
    window = rule.window(node)
    if not (rule.keeps_places(node) if window is None else window.is_point):
        return None
    found = []
    for value in node.inputs[: None if window is None else 1]:
        shape = dims(value)
        if value is None:
            continue
        if shape is None:
            return None
        if len(shape) == len(region.size) + 2 and shape[2:] == region.size:
            found.append(value)
        elif rule.pointwise and any(size != 1 for size in shape[-len(region.size) :]):
            return None
    return found


def _cut_off(region: Region, value: ir.Value) -> None:
    """Others need all of a value: what the region reads of it is sampled on the way."""
    region.edges[value.name or ""] = [
        (node.name or "", index) for node, index in value.uses() if node.name in region.nodes
    ]


def _stride_points(graph: ir.Graph, region: Region) -> None:
    """A 1x1 convolution at the edge samples by its own stride."""
    points = {node.name for node in graph if node.name in region.nodes and _is_window(node)}
    for name, readers in list(region.edges.items()):
        strided = [reader for reader in readers if reader[0] in points]
        region.windows += [node for node, _ in strided]
        region.nodes -= {node for node, _ in strided}
        region.edges[name] = [reader for reader in readers if reader not in strided]
        if not region.edges[name]:
            del region.edges[name]


# ---- rewriting -------------------------------------------------------------------------------------------------------


def _perforate(graph: ir.Graph, region: Region, steps: Steps) -> None:
    nodes = {node.name or "": node for node in graph}
    values = {value.name: value for node in graph for value in (*node.inputs, *node.outputs) if value is not None}
    for name in region.means:
        rule_for(nodes[name]).plain(nodes[name])
    for name in region.windows:
        window = rule_for(nodes[name]).window(nodes[name])
        assert window is not None
        multiply_strides(nodes[name], window, steps)
    for name, readers in region.edges.items():
        _sample(graph, values[name], [(nodes[node], index) for node, index in readers], steps)
    for name in region.inside:
        _shrink(values[name], values[name], steps)


def _sample(graph: ir.Graph, value: ir.Value, readers: Sequence[tuple[ir.Node, int]], steps: Steps) -> None:
    """Every n-th place of a value, for some of its readers: the maximum of windows of one place."""
    attributes = [
        ir.AttrInt64s("kernel_shape", [1] * len(steps)),
        ir.AttrInt64s("strides", list(steps)),
    ]
    name = unique_name(graph, f"{value.name}_every_{'x'.join(map(str, steps))}")
    node = ir.Node("", "MaxPool", [value], attributes, name=name)
    output = node.outputs[0]
    output.name, output.type = name, value.type
    _shrink(output, value, steps)
    first = min((reader for reader, _ in readers), key=list(graph).index)
    graph.insert_before(first, node)
    for reader, index in readers:
        reader.replace_input_with(index, output)


def _shrink(value: ir.Value, like: ir.Value, steps: Steps) -> None:
    """The shape of every n-th place of `like`."""
    assert like.shape is not None
    space = [-(-(size or 0) // step) for size, step in zip((dims(like) or ())[2:], steps, strict=True)]
    value.shape = ir.Shape([*list(like.shape)[:2], *space])


# ---- what it is worth ------------------------------------------------------------------------------------------------


def perforations(model: ir.Model, selection: Selection | None = None) -> list[Perforation]:
    """The ways to perforate a normalised model that save something, all regions alike."""
    regions = find_regions(model.graph, selection)
    ways = sorted({steps for region in regions for steps in region.steps()})
    found = [Perforation(tuple(each for each in regions if steps in each.steps()), steps) for steps in ways]
    limit = (1 - WORTH) * count_macs(model)
    return [each for each in found if count_macs(each.of(model)) <= limit]
