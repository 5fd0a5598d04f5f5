"""Cross-layer equalisation: channels of a value scaled so that all of them use the range that they share.

Between two layers with weights and functions f with f(k x) = k f(x), k > 0, a channel can be scaled by k in the weights
of the first layer and by 1 / k in those of the second (Nagel et al. 2019, arXiv 1906.04721). There it evens out the
weights of a tensor; scales of weights are per output channel here, and what gains is the activation between, whose one
scale serves all channels. Factors follow from the largest elements of every channel in a few samples and from the
weights that read it, k = |w|^(1 - a) / |x|^a (the exponent is that of Xiao et al. 2022, SmoothQuant, arXiv 2211.10438),
with the a of least estimated error; they are powers of two, so that the float model computes the very same bits.

On the zoo it gains 2 to 3 dB on vww96 and 1 to 2 on yunet, where one scale served channels of very different size, and
nothing where no pair promises it (the larger ResNets, SqueezeNet 1.1). A clip with an upper bound, as of ReLU6, is not
passed: scaling what stayed below the bound on samples, with room to spare, gained nothing (MobileNetV1-0.25 +0.2 dB,
MobileNetV2-0.35 -1.0 dB) and moved the float outputs by -50 dB on other samples.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.calibrate.collect import collect, first_samples, samples_in
from onnxqp.graph import constant, dims, op_name, own_initializer, rank, set_initializer
from onnxqp.model import clone
from onnxqp.ops import rule_for
from onnxqp.ops.contraction import Contraction
from onnxqp.ops.operator import Affine
from onnxqp.options import Selection
from onnxqp.runtime import Session, as_array
from onnxqp.specs import Activation, Array, Feed

Doubles: TypeAlias = npt.NDArray[np.float64]
Exponents: TypeAlias = Mapping[str, tuple[int, ...]]  # by the name of the first layer: log2 of every channel's factor

SAMPLES = 16  # fewer say too little of rare channels, which then are clipped: st_yamnet, of 12, lost 4 dB
LARGEST = 1 << 20  # elements of the weights that read a value: larger ones average errors, and cost time to judge...
MOST_ELEMENTS = 1 << 23  # ...as do those of all pairs together
SHARES = (0.25, 0.5, 0.75)  # tried for a; 1 scattered most
WORTH = 0.8  # of the estimated error must not be left
MOST = 6  # log2 of the largest factor: what a few samples say of rare channels is not to be trusted
CHECKED = 2  # samples on which the scaled model must agree...
TOLERANCE = 1e-5  # ...within so much of an output's largest magnitude


@dataclass(frozen=True)
class Pair:
    """A layer, and those that read what it makes along `axis` of `value`."""

    first: ir.Node
    value: ir.Value
    axis: int
    readers: tuple[tuple[ir.Node, Contraction], ...]


@dataclass
class ChannelSizes:
    """Largest magnitude and sum of squares at each index of one axis."""

    axis: int
    magnitude: Doubles = field(default_factory=lambda: np.zeros(0))
    squares: Doubles = field(default_factory=lambda: np.zeros(0))
    count: int = 0

    def update(self, x: Array, samples: int = 1) -> None:
        rows = np.moveaxis(np.asarray(x, np.float32), self.axis, 0).reshape(x.shape[self.axis], -1)
        if not self.magnitude.size:
            self.magnitude, self.squares = np.zeros((2, len(rows)))
        largest = np.maximum(rows.max(axis=1, initial=0), -rows.min(axis=1, initial=0))
        self.magnitude = np.maximum(self.magnitude, largest)
        with np.errstate(over="ignore"):
            self.squares = self.squares + (rows[:, None] @ rows[:, :, None])[:, 0, 0]
        self.count += rows.shape[1]

    def merge(self, other: Self) -> None:
        self.magnitude = np.maximum(self.magnitude, other.magnitude)
        self.squares, self.count = self.squares + other.squares, self.count + other.count


@dataclass(frozen=True)
class Scaling:
    """What scaling the channels of one model would gain, once `sizes`, by the name of a value, have seen samples."""

    model: ir.Model
    pairs: Sequence[Pair]
    sizes: Mapping[str, ChannelSizes]

    @classmethod
    def of(cls, model: ir.Model, selection: Selection) -> Scaling:
        """Nothing was seen yet."""
        pairs = _affordable_pairs(model, selection)
        return cls(model, pairs, {pair.value.name or "": ChannelSizes(pair.axis) for pair in pairs})

    def see(self, draft: ir.Model, samples: Iterable[Feed]) -> bool:
        """Look at samples where `draft`, made from the model, does not hold the same values; whether that was so."""
        there = {value.name: (value.dtype, dims(value)) for node in draft.graph for value in node.outputs}
        if all(there.get(pair.value.name) == (pair.value.dtype, dims(pair.value)) for pair in self.pairs):
            return False
        collect(self.model, list(first_samples(self.model, samples, SAMPLES)), self.sizes)
        return True

    @functools.cached_property
    def exponents(self) -> Exponents:
        """What gains."""
        return _choose(self.pairs, self.sizes)

    def applied(self, samples: Iterable[Feed]) -> tuple[ir.Model, Exponents]:
        """A copy scaled so, and how; the model itself and nothing where it does not compute the same on the samples."""
        if self.exponents:
            scaled = scale(self.model, self.exponents)
            if _same(self.model, scaled, samples):
                return scaled, self.exponents
        return self.model, {}


def equalized(model: ir.Model, samples: Iterable[Feed], selection: Selection) -> tuple[ir.Model, Exponents]:
    """A copy with its channels scaled, and how; the model itself and nothing where nothing gains."""
    scaling = Scaling.of(model, selection)
    feeds = list(first_samples(model, samples, SAMPLES)) if scaling.pairs else []
    if sum(map(samples_in, feeds)) < SAMPLES:
        return model, {}
    collect(model, feeds, scaling.sizes)
    return scaling.applied(feeds)


def scale(model: ir.Model, exponents: Exponents) -> ir.Model:
    """A copy with the channels of these layers scaled, as `equalized` has found or a file keeps it."""
    copy = clone(model)
    for pair in find_pairs(copy, Selection()):
        powers = exponents.get(pair.first.name or "")
        if powers is not None and len(powers) == _channels(pair):
            _apply(pair, np.exp2(np.array(powers, np.float64)))
    return copy


# ---- which layers --------------------------------------------------------------------------------------------------


def find_pairs(model: ir.Model, selection: Selection) -> list[Pair]:
    """In the order of the graph, those of chosen nodes with float32 weights of their own."""
    found = (_pair(node, selection) for node in model.graph)
    return [pair for pair in found if pair is not None]


def _affordable_pairs(model: ir.Model, selection: Selection) -> list[Pair]:
    left = MOST_ELEMENTS
    chosen = []
    for pair in find_pairs(model, selection):
        size = sum(_weight(*reader).size for reader in pair.readers)
        if size <= min(LARGEST, left):
            chosen.append(pair)
            left -= size
    return chosen


def _pair(node: ir.Node, selection: Selection) -> Pair | None:
    contraction = _scalable(node, selection)
    value = node.outputs[0]
    if contraction is None or rank(value) is None:
        return None
    axis = 1 if contraction.contracted == 1 else len(value.shape or ()) - 1  # images, or rows
    while not value.is_graph_output() and value.uses():
        uses = list(value.uses())
        readers = [(use.node, _scalable(use.node, selection), use.idx) for use in uses]
        if all(c is not None and c.data == i and c.contracted % (axis + 1) == axis for _, c, i in readers):
            return Pair(node, value, axis, tuple((n, c) for n, c, _ in readers if c is not None))
        behind = uses[0].node
        if len(uses) != 1 or uses[0].idx != 0 or behind.graph is not node.graph or len(behind.outputs) != 1:
            return None
        role = rule_for(behind).quantization(behind)
        cuts_at_zero = isinstance(role, Activation) and not role.low and role.high is None
        if not cuts_at_zero and not rule_for(behind).homogeneous:
            return None
        value = behind.outputs[0]
    return None


def _scalable(node: ir.Node, selection: Selection) -> Contraction | None:
    contraction = rule_for(node).contraction(node)
    if contraction is None or selection.reason_against(node.name or "", op_name(node)) is not None:
        return None
    weight = node.inputs[contraction.weight]
    alone = weight is not None and len(weight.uses()) == 1 and weight.is_initializer()
    return contraction if alone and weight is not None and weight.dtype == ir.DataType.FLOAT else None


def _weight(node: ir.Node, contraction: Contraction) -> npt.NDArray[np.float32]:
    weight = constant(node.inputs[contraction.weight])
    assert weight is not None
    return weight


def _channels(pair: Pair) -> int:
    contraction = rule_for(pair.first).contraction(pair.first)
    if contraction is None:
        return 0
    groups, _, outputs = contraction.sizes(_weight(pair.first, contraction).shape)
    return groups * outputs


# ---- how much ------------------------------------------------------------------------------------------------------


def _choose(pairs: Sequence[Pair], sizes: Mapping[str, ChannelSizes]) -> dict[str, tuple[int, ...]]:
    """log2 of the factors of the pairs that gain. One pair does not change what another sees: ranges scale along."""
    chosen = {}
    for pair in pairs:
        seen = sizes[pair.value.name or ""]
        channels = _channels(pair)
        if seen.magnitude.size != channels or not np.isfinite(seen.magnitude).all() or not seen.magnitude.any():
            continue
        matrices = [contraction.matrix(_weight(node, contraction)) for node, contraction in pair.readers]
        if any(matrix.shape[0] * matrix.shape[1] % channels for matrix in matrices):
            continue
        columns, readers = _columns(matrices, channels), [_Reader.of(matrix) for matrix in matrices]
        tried = [_powers(seen.magnitude, columns, share) for share in SHARES]
        errors = [_error(seen, readers, np.exp2(powers)) for powers in tried]
        best = int(np.argmin(errors))
        if errors[best] < WORTH * _error(seen, readers, np.ones(channels)):
            chosen[pair.first.name or ""] = tuple(int(power) for power in tried[best])
    return chosen


def _columns(matrices: Sequence[Doubles], channels: int) -> Doubles:
    """The largest weight that reads each channel."""
    largest = [np.abs(matrix).max(axis=2).reshape(channels, -1).max(axis=1) for matrix in matrices]
    return np.asarray(np.max(largest, axis=0))


def _powers(magnitude: Doubles, columns: Doubles, share: float) -> Doubles:
    """log2 of the factors: 0 for what reaches furthest, and for channels that hold nothing."""
    live = (magnitude > 1e-6 * magnitude.max()) & (columns > 1e-6 * columns.max())
    logs = np.where(live, (1 - share) * np.log2(np.where(live, columns, 1)), 0)
    logs = logs - np.where(live, share * np.log2(np.where(live, magnitude, 1)), 0)
    furthest = np.where(live, logs + np.log2(np.where(live, magnitude, 1)), -np.inf).max(initial=-np.inf)
    shifted = np.rint(logs - furthest + np.log2(magnitude.max()))
    return np.where(live, np.clip(shifted, 0, MOST), 0)


@dataclass(frozen=True)
class _Reader:
    """Of a weight [groups, inputs, outputs] the magnitudes, and the sums of squares of each input."""

    magnitudes: npt.NDArray[np.float32]
    squares: Doubles

    @classmethod
    def of(cls, matrix: Doubles) -> _Reader:
        return cls(np.abs(matrix).astype(np.float32), np.einsum("gio,gio->gi", matrix, matrix))


def _error(seen: ChannelSizes, readers: Sequence[_Reader], factors: Doubles) -> float:
    """Estimated squared error at the readers' outputs: of rounding the value to 8 bits, and their weights."""
    step = float((seen.magnitude * factors).max()) / 255
    power = seen.squares / max(seen.count, 1) * factors**2
    total = 0.0
    for reader in readers:
        groups, inputs, _ = reader.magnitudes.shape
        taps = groups * inputs // factors.size
        each = np.repeat(factors, taps).reshape(groups, inputs)
        steps = (reader.magnitudes / each[:, :, None].astype(np.float32)).max(axis=1).astype(np.float64) / 127
        total += step**2 * float((reader.squares / each**2).sum())
        total += float((np.square(steps) * np.repeat(power, taps).reshape(groups, inputs).sum(axis=1)[:, None]).sum())
    return total


# ---- doing it ------------------------------------------------------------------------------------------------------


def _apply(pair: Pair, factors: Doubles) -> None:
    node = pair.first
    if not rule_for(node).absorb(node, Affine(0, pair.axis, factors, np.zeros(factors.size))):
        return
    for reader, contraction in pair.readers:
        weight = _weight(reader, contraction)
        ones = contraction.matrix(np.ones(weight.shape))
        groups, inputs, _ = ones.shape
        spread = np.repeat(factors, groups * inputs // factors.size).reshape(groups, inputs, 1)
        inverse = contraction.weight_of(ones / spread, weight.shape)
        set_initializer(own_initializer(reader, contraction.weight), (weight * inverse).astype(np.float32))


def _same(model: ir.Model, scaled: ir.Model, samples: Iterable[Feed]) -> bool:
    """Whether both compute the same outputs, on the samples that the factors are from."""
    ours, theirs = (Session(each, threads=2, brief=True) for each in (model, scaled))
    for feed in first_samples(model, samples, CHECKED):
        before, after = ours.run(feed), theirs.run(feed)
        for name, output in before.items():
            array = as_array(output)
            if array.dtype.kind != "f" or not array.size:
                continue
            limit = TOLERANCE * float(np.abs(array).max())
            if not np.allclose(as_array(after[name]), array, rtol=0, atol=limit, equal_nan=True):
                return False
    return True
