"""Moments of what layers read, over a few samples: what their weights are rounded by."""

from __future__ import annotations

import zlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.calibrate.collect import (
    TAP_BYTES,
    Chosen,
    collect,
    even_places,
    sample_count,
    samples_in,
    split,
    value_bytes,
)
from onnxqp.calibrate.moments import Moments
from onnxqp.calibrate.observers import Observer, together
from onnxqp.graph import constant, dims, iterate
from onnxqp.ops import rule_for
from onnxqp.ops.contraction import Contraction
from onnxqp.quantize.rounding import LayerRounding
from onnxqp.runtime import Session
from onnxqp.specs import Feed

SAMPLES = 16  # on the zoo 32 and 96 gave no more, of as many rows
ROWS_PER_INPUT = 8  # where the samples have so many...
LEAST_ROWS = 2048  # ...within so many elements, which depthwise layers exceed...
LEAST_ELEMENTS = 1 << 23
LAYER_WORK = 4e9  # ...within so many multiply-accumulates for the moments of one layer...
MODEL_WORK = 4e10  # ...and of all layers, the cheapest first
FEWEST_PER_INPUT = 2  # a layer for which that leaves fewer rows is rounded to nearest
BATCH = 1 << 17  # elements of rows that are multiplied at once
NODE_WORK = 1e6  # what every input of a layer costs besides, in such units


@dataclass
class _Layer:
    """Observes what one layer reads. Of every sample (or of those at `places`) it takes the rows of some positions."""

    node: ir.Node
    contraction: Contraction
    groups: int
    inputs: int
    places: Container[int] | None = None
    moments: Moments | None = None
    waiting: list[npt.NDArray[np.generic]] = field(default_factory=list)
    seen: int = 0
    _chosen: dict[int, npt.NDArray[np.intp]] = field(default_factory=dict)

    @property
    def wanted(self) -> int:
        """Rows."""
        affordable = int(LAYER_WORK / (self.groups * self.inputs * self.inputs))
        least = min(LEAST_ROWS, LEAST_ELEMENTS // (self.groups * self.inputs))
        return min(max(ROWS_PER_INPUT * self.inputs, least), affordable)

    @property
    def work(self) -> float:
        return float(self.groups * self.inputs**2 * (self.wanted + self.inputs) + NODE_WORK * self.inputs)

    @property
    def data(self) -> ir.Value:
        value = self.node.inputs[self.contraction.data]
        assert value is not None
        return value

    @property
    def across(self) -> bool:
        """transA: what stands first in the data is no batch."""
        return self.contraction.contracted == 0

    @property
    def is_open(self) -> bool:
        """Whether the shape of the output, but for the batch, shows only when the model runs."""
        return _output_shape(self.node, 1) is None

    def update(self, x: npt.NDArray[np.generic], samples: int = 1) -> None:
        """Take in rows of what so many samples make together; the output must not be open."""
        output = _output_shape(self.node, x.shape[-1 if self.across else 0])
        assert output is not None
        self.take(x, output, samples)

    def merge(self, other: Self) -> None:
        """Take in the moments that another has found."""
        for layer in (self, other):
            layer.flush()
        if self.moments is not None and other.moments is not None:
            self.moments = self.moments.merged(other.moments)
        self.moments = self.moments or other.moments

    def take(self, data: npt.NDArray[np.generic], output: tuple[int, ...], samples: int) -> None:
        """Take in the rows of some positions, the same of every sample: seeded by the name, for any batching alike."""
        parts = 1 if self.across or data.shape[0] % samples else samples
        taken = [part for part in range(parts) if self.places is None or self.seen + part in self.places]
        self.seen += samples
        if not taken:
            return
        positions = self.contraction.positions(output) // parts
        chosen = (np.array(taken)[:, None] * positions + self._positions(positions)).reshape(-1)
        rows = self.contraction.rows(data, output, chosen)
        if not np.isfinite(rows.sum(dtype=np.float64)):
            return
        self.waiting.append(rows)
        if sum(rows.size for rows in self.waiting) >= BATCH:
            self.flush()

    def _positions(self, positions: int) -> npt.NDArray[np.intp]:
        """Out of so many of one sample, in order."""
        count = -(-self.wanted // SAMPLES)
        if positions not in self._chosen:
            random = np.random.default_rng([zlib.crc32(str(self.node.name).encode()), positions])
            few = random.choice(positions, count, replace=False) if positions > count else np.arange(positions)
            self._chosen[positions] = np.sort(few)
        return self._chosen[positions]

    def flush(self) -> None:
        """Add up the rows that wait."""
        if not self.waiting:
            return
        rows = np.concatenate(self.waiting, axis=1)
        if self.moments is None:
            self.moments = Moments.about(rows.mean(axis=1, dtype=np.float64), np.zeros((self.groups, 0)))
        self.moments.update(rows, np.zeros((*rows.shape[:2], 0), rows.dtype))
        self.waiting = []


class LayerInputs:
    """What the layers of a model with float32 weights of their own read, for those whose moments are affordable."""

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._layers = _affordable(_layers(model))
        self._asked = False
        self._known: dict[str, tuple[int, LayerRounding]] = {}  # by the name of the node, and how many rows it is from

    def take(self, places: Container[int] | None) -> None:
        """From now on, moments are from the samples at these places among all that are seen; None: from every one."""
        for layer in self._layers:
            layer.places = places

    def adopt(self, other: LayerInputs, changed: Container[str], reweighted: Container[str]) -> dict[int, _Layer]:
        """Take over what layers of the same name have seen of values that are not `changed`, and how weights that are
        not `reweighted` were rounded. By the identity of a layer here, what it was there."""
        theirs = {str(layer.node.name): layer for layer in other._layers}
        adopted = {}
        for layer in self._layers:
            name, old = str(layer.node.name), theirs.get(str(layer.node.name))
            if old is None or str(layer.data.name) in changed:
                continue
            layer.moments, layer.waiting, layer.seen = old.moments, old.waiting, old.seen
            adopted[id(layer)] = old
            if name in other._known and name not in reweighted:
                self._known[name] = other._known[name]
        return adopted

    @property
    def nodes(self) -> set[str]:
        """The names of the layers, without the open ones."""
        return {str(layer.node.name) for layer in self._layers if not layer.is_open}

    def observers(self) -> list[tuple[str, Observer]]:
        """One for every layer but the open ones, with the name of the value that it wants to see."""
        return [(str(layer.data.name), layer) for layer in self._layers if not layer.is_open]

    def observe_open(self, feeds: Iterable[Feed]) -> None:
        """Those layers whose sizes show only when they run, over some samples of `feeds`, once."""
        layers = [layer for layer in self._layers if layer.is_open and not self._asked]
        self._asked = True
        first = next(iter(feeds), None)
        if first is not None and layers:
            _observe_open(self._model, layers, feeds, value_bytes(self._model, first))

    def roundings(self, *, corrects: bool = True) -> dict[str, LayerRounding]:
        """By the name of the node, by what was seen so far. `corrects`: they correct biases too.

        Where nothing new was seen they are those of the last time, which know what they have rounded.
        """
        for layer in self._layers:
            layer.flush()
            name, moments = str(layer.node.name), layer.moments
            if moments is not None and moments.count != self._known.get(name, (0,))[0]:
                self._known[name] = moments.count, LayerRounding(layer.contraction, moments, corrects)
        return {name: rounding for name, (_, rounding) in self._known.items()}


def layer_roundings(model: ir.Model, feeds: Iterable[Feed], *, corrects: bool = True) -> dict[str, LayerRounding]:
    """Of every affordable layer, by the name of the node, from some samples of `feeds`, from all over."""
    layers = LayerInputs(model)
    if next(iter(feeds), None) is None:
        return {}
    if layers.nodes:
        collect(model, _some(model, feeds), together(layers.observers()))
    layers.observe_open(feeds)
    return layers.roundings(corrects=corrects)


def _observe_open(model: ir.Model, layers: Sequence[_Layer], feeds: Iterable[Feed], sizes: Mapping[str, int]) -> None:
    inputs = {value.name for value in model.graph.inputs}
    by_value: dict[str, list[_Layer]] = {}
    for layer in layers:
        layer.places = None
        by_value.setdefault(str(layer.data.name), []).append(layer)
    for names in split(list(by_value), sizes, TAP_BYTES // 2):
        found = [layer for name in names for layer in by_value[name]]
        outputs = [str(layer.node.outputs[0].name) for layer in found]
        taps = [name for name in dict.fromkeys([*names, *outputs]) if name not in inputs]
        session = Session(model, taps=taps, brief=True)
        for feed, results in session.run_each(_some(model, feeds), taps):
            for layer, output in zip(found, outputs, strict=True):
                data = (feed | results)[str(layer.data.name)]
                layer.take(data, results[output].shape, samples_in(feed))


def _some(model: ir.Model, feeds: Iterable[Feed]) -> Iterable[Feed]:
    """Sources are often sorted."""
    return Chosen(model, feeds, frozenset(even_places(sample_count(feeds), SAMPLES)))


def _layers(model: ir.Model) -> Iterator[_Layer]:
    for node in iterate(model):
        contraction = rule_for(node).contraction(node) if node.graph is model.graph else None
        if contraction is None or len(node.inputs) <= contraction.weight or node.inputs[contraction.data] is None:
            continue
        value = node.inputs[contraction.weight]
        weight = constant(value)
        if value is None or weight is None or weight.dtype != np.float32 or len(value.uses()) > 1 or not weight.size:
            continue
        groups, inputs, _ = contraction.sizes(weight.shape)
        yield _Layer(node, contraction, groups, inputs)


def _affordable(layers: Iterable[_Layer]) -> list[_Layer]:
    chosen = []
    left = MODEL_WORK
    for layer in sorted(layers, key=lambda layer: layer.work):
        if layer.wanted < FEWEST_PER_INPUT * layer.inputs:
            continue
        if layer.work > left:
            break
        left -= layer.work
        chosen.append(layer)
    return chosen


def _output_shape(node: ir.Node, batch: int) -> tuple[int, ...] | None:
    """Where it is known but for the batch."""
    shape = dims(node.outputs[0])
    if not shape or None in shape[1:]:
        return None
    return (batch, *(size for size in shape[1:] if size is not None))
