"""How much every channel is missed, measured on samples: what its readers lose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.axes import AxisLabels, Labels
from onnxqp.calibrate.moments import Moments
from onnxqp.ops import rule_for
from onnxqp.prune.groups import Grouping
from onnxqp.recover.effects import Effects
from onnxqp.recover.elimination import WORK, WORK_OF_ALL, Reader, eliminate, reader_of, rising
from onnxqp.recover.layers import Layer, shortcuts
from onnxqp.recover.loudness import Passage, loudness
from onnxqp.recover.sampling import Batch, affordable, choose_positions, held_out, least_damping
from onnxqp.recover.unseen import classes_per_seen, protection
from onnxqp.recover.walk import Walk
from onnxqp.specs import Feed

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
Score: TypeAlias = Literal["activation", "reconstruction"]

BUDGET = 384 * 2**20
_LEAST = 1e-12
_DAMPING = 0.1  # 0.01 chose worse where classes are missing from the samples, and no better elsewhere
LARGEST = 2304  # inputs times taps of a layer whose covariance is inverted
WIDEST = 9216  # of one that is looked at: second moments of more take gigabytes (28224 inputs: 22)


def score_channels(
    model: ir.Model,
    labels: AxisLabels,
    grouping: Grouping,
    feeds: Iterable[Feed],
    *,
    kind: Score = "reconstruction",
    seed: int = 0,
) -> FloatArray:
    """A score for every class of `grouping`, by label; NaN where no layer with a constant weight reads it."""
    samples = affordable(feeds, BUDGET)
    count = len(samples)
    apart = [feed for n, feed in enumerate(samples) if held_out(n, count)] if kind == "reconstruction" else []
    effects = Effects(model, apart or samples, len(grouping.groups)) if kind == "reconstruction" else None
    rarity = classes_per_seen(model, samples) if kind == "reconstruction" else 1.0
    if apart:  # what a refit does to the outputs shows on samples that it was not made from
        samples = [feed for n, feed in enumerate(samples) if not held_out(n, count)]
    layers = list(_read(model, labels, grouping, samples, kind, seed))
    if kind == "reconstruction":
        weights = loudness([layer.passage for layer in layers], len(grouping.roots))
        layers = [layer.weighted(each) for layer, each in zip(layers, weights, strict=True)]
    scores = np.full(len(grouping.roots), np.nan)
    for number, group in enumerate(grouping.groups):
        places = [place for layer in layers if number in layer.groups for place in layer.places]
        classes = group.classes.tolist()
        if not places:
            continue
        if effects is None:
            scores[group.classes] = np.sum([place.reader.costs(classes) for place in places], axis=0)
        else:
            own = [place.of(classes) for place in places]
            costs = _eliminated([place for place in own if place.reader.places], classes, effects)
            depth = max(n for n, layer in enumerate(layers) if number in layer.groups) / max(len(layers) - 1, 1)
            scores[group.classes] = costs * protection(rarity, depth)
    return scores


@dataclass(frozen=True)
class _Place:
    """A reader, which is part (group) `part` of a layer; `mean` is that of its inputs."""

    layer: Layer
    part: int
    reader: Reader
    mean: FloatArray
    scale: FloatArray | None = None  # of the reader's outputs, where their errors do not count alike

    def matrix(self) -> FloatArray:
        """The reader's weight as the layer has it."""
        return self.reader.matrix if self.scale is None else self.reader.matrix / self.scale

    def weighted(self, weights: FloatArray) -> _Place:
        """The same with errors that count as much as `weights` say, by output."""
        scale, reader = np.sqrt(weights), self.reader
        return replace(self, reader=Reader(reader.inverse, reader.matrix * scale, reader.places, 1.0), scale=scale)

    def of(self, classes: Sequence[int]) -> _Place:
        """A copy for one group's elimination."""
        wanted, reader = set(classes), self.reader
        places = {c: p for c, p in reader.places.items() if c in wanted}
        copy = Reader(reader.inverse.copy(), reader.matrix.copy(), places, reader.weight)
        return replace(self, reader=copy)


@dataclass(frozen=True)
class _Read:
    """A layer that reads channels of `groups` (by number)."""

    groups: frozenset[int]
    places: tuple[_Place, ...]
    passage: Passage

    def weighted(self, weights: FloatArray) -> _Read:
        places = (place.weighted(each) for place, each in zip(self.places, weights, strict=True))
        return replace(self, places=tuple(places))


def _read(
    model: ir.Model, labels: AxisLabels, grouping: Grouping, samples: Sequence[Feed], kind: Score, seed: int
) -> Iterator[_Read]:
    """The layers that read channels of groups, in the order of running."""
    walk = Walk(model, samples, budget=BUDGET)
    group_of = {int(c): n for n, group in enumerate(grouping.groups) for c in group.classes}
    consuming = {use.node for use in labels.consumptions.values()}  # through others channels pass
    for node in walk.order:
        contraction = rule_for(node).contraction(node)
        data = None if contraction is None else node.inputs[contraction.data]
        if contraction is None or data is None or data.shape is None or node.name not in consuming:
            continue
        family = labels.family(data, contraction.contracted % len(data.shape))
        if family is None or len(family.axes) > 1:
            continue
        classes = grouping.roots[family.labels]
        groups = frozenset(group_of[c] for c in classes.tolist() if c in group_of)
        if not groups:
            continue
        layer = Layer(node, contraction, None)
        if layer.matrix().shape[1] > WIDEST:
            continue
        moments, positions = _moments(layer, walk, len(samples), seed)
        least = least_damping(layer, positions, len(samples))
        readers = _readers(layer, moments, least, classes, kind)
        places = tuple(_Place(layer, n, reader, moments.x_mean[n]) for n, reader in enumerate(readers))
        leaving = _leaving(labels, grouping, node.name or "", moments.y.shape)
        yield _Read(groups, places, _passage(layer, moments, classes, leaving))


def _leaving(labels: AxisLabels, grouping: Grouping, node: str, shape: tuple[int, ...]) -> IntArray | None:
    """The channels that a layer makes, `[groups, outputs]`, as `shape` says."""
    weight = next((weight for weight in labels.weights if weight.node == node and weight.produced is not None), None)
    family = None if weight is None else labels.family(weight.value, weight.produced or 0)
    if family is None or family.labels.size != np.prod(shape):
        return None
    return np.asarray(grouping.roots[family.labels].reshape(shape), np.int64)


def _passage(layer: Layer, moments: Moments, classes: Labels, leaving: IntArray | None) -> Passage:
    matrix, count = layer.matrix(), max(moments.count, 1)
    groups, inputs, _ = matrix.shape
    entering = np.repeat(classes.reshape(groups, -1), groups * inputs // classes.size, axis=1)
    variance = np.maximum(moments.yy / count - np.square(moments.y / count), 0.0)
    spread = np.diagonal(moments.covariance, axis1=1, axis2=2)
    return Passage(matrix, entering.astype(np.int64), leaving, spread, variance)


def _eliminated(places: Sequence[_Place], classes: Sequence[int], effects: Effects) -> FloatArray:
    """What each channel costs at the outputs of the model, when they go one by one, the cheapest first.

    What the readers lose is known for every one of them. What that does to the outputs is measured at a few places on
    the way, with the readers refitted; in between it is taken to grow as their loss does.
    """
    count = len(classes)
    stops = sorted({min(max(round(share * count), 1), count - 1) for share in effects.places} - {0})
    gone, lost, effect = [0], [0.0], [0.0]

    def watch(number: int, cost: float) -> None:
        if stops and number >= stops[0]:
            stops[:] = [stop for stop in stops if stop > number]
            changed = [(place.layer, place.part, place.matrix(), place.mean) for place in places]
            gone.append(number)
            lost.append(cost)
            effect.append(max(effects.of(changed), effect[-1]))

    work = min(WORK, WORK_OF_ALL / effects.groups)
    costs = eliminate([place.reader for place in places], classes, work=work, watch=watch)
    if len(gone) < 2:
        return costs
    order = np.argsort(costs, kind="stable")
    slopes = np.diff(effect) / np.maximum(np.diff(lost), _LEAST)
    piece = np.minimum(np.searchsorted(gone[1:], np.arange(count), side="right"), len(slopes) - 1)
    scores = np.empty(count)
    scores[order] = rising(costs[order] * slopes[piece])
    return scores


def _moments(layer: Layer, walk: Walk, samples: int, seed: int) -> tuple[Moments, int]:
    """Of the inputs of a layer, with what its output becomes part of as target; and how many rows a sample has."""
    random = np.random.default_rng(seed)
    others = [value for value in shortcuts(layer) if walk.before(value, layer.node)]
    taps = [layer.data, layer.output, *others]
    batch: Batch | None = None
    for found in walk.run(layer.node, taps, through=True):
        landing = found[str(layer.output.name)]
        for value in others:
            if found[str(value.name)].shape == landing.shape:
                landing = landing + found[str(value.name)]
        positions = layer.contraction.positions(landing.shape)
        chosen = choose_positions(layer, positions, samples, random)
        x = layer.contraction.rows(found[str(layer.data.name)], landing.shape, chosen)
        y = layer.contraction.targets(landing, chosen)
        if batch is None:
            batch = Batch(Moments.about(x.mean(axis=1, dtype=np.float64), y.mean(axis=1, dtype=np.float64)))
        batch.add(x, y)
    assert batch is not None
    batch.flush()
    return batch.moments, positions


def _readers(layer: Layer, moments: Moments, least: float, classes: Labels, kind: Score) -> list[Reader]:
    """One reader for each group of the layer."""
    matrix, covariance = layer.matrix(), moments.covariance
    count = max(moments.count, 1)
    variance = float((moments.yy / count - np.square(moments.y / count)).sum())
    weight = 1 / variance if variance > 0 else 0.0
    groups, inputs, _ = matrix.shape
    taps = groups * inputs // len(classes)
    found = []
    for number, own in enumerate(classes.reshape(groups, -1)):
        columns = np.repeat(own, taps)
        places = {int(c): np.flatnonzero(columns == c) for c in np.unique(own)}
        if kind == "activation" or inputs > LARGEST:
            diagonal = np.diag(covariance[number])
            inverse = np.diag(1 / np.maximum(diagonal, 1e-12 * max(diagonal.max(), 1e-30)))
            found.append(Reader(inverse, matrix[number].copy(), places, weight))
        else:
            found.append(reader_of(covariance[number], matrix[number], places, weight, max(_DAMPING, least)))
    return found
