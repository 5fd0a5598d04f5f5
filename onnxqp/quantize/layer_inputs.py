"""Moments of what layers read, over a few samples: what their weights are rounded by."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.calibrate.collect import TAP_BYTES, first_samples, samples_in, split, value_bytes
from onnxqp.graph import constant, dims, iterate
from onnxqp.ops import rule_for
from onnxqp.ops.contraction import Contraction
from onnxqp.quantize.rounding import LayerRounding
from onnxqp.recover.moments import Moments
from onnxqp.runtime import Session
from onnxqp.specs import Feed

SAMPLES = 32  # the first of those that calibrate; on the zoo 96 gave no more
ROWS_PER_INPUT = 8  # where the samples have so many...
LEAST_ROWS = 2048
LAYER_WORK = 4e9  # ...within so many multiply-accumulates for the moments of one layer...
MODEL_WORK = 4e10  # ...and of all layers, the cheapest first
FEWEST_PER_INPUT = 2  # a layer for which that leaves fewer rows is rounded to nearest
BATCH = 1 << 20  # elements of rows that are multiplied at once
NODE_WORK = 1e6  # what every input of a layer costs besides, in such units


@dataclass
class _Layer:
    node: ir.Node
    contraction: Contraction
    groups: int
    inputs: int
    moments: Moments | None = None
    waiting: list[npt.NDArray[np.generic]] = field(default_factory=list)
    _chosen: dict[int, npt.NDArray[np.intp]] = field(default_factory=dict)

    @property
    def wanted(self) -> int:
        """Rows."""
        affordable = int(LAYER_WORK / (self.groups * self.inputs * self.inputs))
        return min(max(ROWS_PER_INPUT * self.inputs, LEAST_ROWS), affordable)

    @property
    def work(self) -> float:
        return float(self.groups * self.inputs**2 * (self.wanted + self.inputs) + NODE_WORK * self.inputs)

    @property
    def data(self) -> ir.Value:
        value = self.node.inputs[self.contraction.data]
        assert value is not None
        return value

    def update(self, data: npt.NDArray[np.generic], output: tuple[int, ...], samples: int) -> None:
        """Take in the rows of some positions, the same of every sample: seeded by the name, for any batching alike."""
        positions = self.contraction.positions(output) // samples
        chosen = (np.arange(samples)[:, None] * positions + self._positions(positions)).reshape(-1)
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


def layer_roundings(model: ir.Model, feeds: Iterable[Feed], *, corrects: bool = True) -> dict[str, LayerRounding]:
    """By the name of the node, for the layers with float32 weights of their own whose moments are affordable.

    `corrects`: they correct biases too.
    """
    layers = _affordable(_layers(model))
    first = next(iter(feeds), None)
    if first is None or not layers:
        return {}
    sizes = value_bytes(model, first)
    inputs = {value.name for value in model.graph.inputs}
    by_value: dict[str, list[_Layer]] = {}
    for layer in layers:
        by_value.setdefault(str(layer.data.name), []).append(layer)
    for names in split(list(by_value), sizes, TAP_BYTES // 2):
        found = [layer for name in names for layer in by_value[name]]
        open_ = [str(layer.node.outputs[0].name) for layer in found if _output_shape(layer.node, 1) is None]
        taps = [name for name in dict.fromkeys([*names, *open_]) if name not in inputs]
        session = Session(model, taps=taps, brief=True) if taps else None
        some = first_samples(model, feeds, SAMPLES)
        for feed, results in session.run_each(some, taps) if session is not None else ((feed, {}) for feed in some):
            for layer in found:
                _observe(layer, feed | results, samples_in(feed))
        for layer in found:
            layer.flush()
    return {
        str(layer.node.name): LayerRounding(layer.contraction, layer.moments, corrects)
        for layer in layers
        if layer.moments is not None and layer.moments.count
    }


def _layers(model: ir.Model) -> Iterator[_Layer]:
    for node in iterate(model):
        contraction = rule_for(node).contraction(node) if node.graph is model.graph else None
        if contraction is None or len(node.inputs) <= contraction.weight or node.inputs[contraction.data] is None:
            continue
        value = node.inputs[contraction.weight]
        weight = constant(value)
        if value is None or weight is None or weight.dtype != np.float32 or len(value.uses()) > 1 or not weight.size:
            continue
        groups, inputs, _ = contraction.matrix(np.broadcast_to(np.float32(0), weight.shape)).shape
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


def _observe(layer: _Layer, results: Feed, samples: int) -> None:
    data = results[str(layer.data.name)]
    name = str(layer.node.outputs[0].name)
    across = layer.contraction.contracted == 0  # transA: what stands first is no batch
    output = _output_shape(layer.node, data.shape[-1 if across else 0]) or results[name].shape
    if across or data.shape[0] % samples:
        samples = 1
    layer.update(data, output, samples)


def _output_shape(node: ir.Node, batch: int) -> tuple[int, ...] | None:
    """Where it is known but for the batch."""
    shape = dims(node.outputs[0])
    if not shape or None in shape[1:]:
        return None
    return (batch, *(size for size in shape[1:] if size is not None))
