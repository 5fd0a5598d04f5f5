"""How much every channel is missed, measured on samples: what its readers lose."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.axes import AxisLabels, Labels
from onnxqp.ops import rule_for
from onnxqp.prune.groups import Grouping
from onnxqp.recover.elimination import Reader, eliminate, reader_of
from onnxqp.recover.layers import Layer, shortcuts
from onnxqp.recover.moments import Moments
from onnxqp.recover.sampling import Batch, affordable, choose_positions
from onnxqp.recover.walk import Walk
from onnxqp.specs import Feed

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
Score: TypeAlias = Literal["activation", "reconstruction"]

BUDGET = 384 * 2**20
LARGEST = 2304  # inputs times taps of a layer whose covariance is inverted


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
    walk = Walk(model, samples, budget=BUDGET)
    group_of = {int(c): n for n, group in enumerate(grouping.groups) for c in group.classes}
    consuming = {use.node for use in labels.consumptions.values()}
    readers: dict[int, list[Reader]] = {}
    for node in walk.order:
        contraction = rule_for(node).contraction(node)
        data = None if contraction is None else node.inputs[contraction.data]
        if contraction is None or data is None or data.shape is None:
            continue
        axis = contraction.contracted % len(data.shape)
        family = labels.family(data, axis)
        if family is None or len(family.axes) > 1:
            continue
        layer = Layer(node, contraction, None)
        classes = grouping.roots[family.labels]
        if node.name not in consuming:
            continue  # channels pass: what they are worth shows further on
        groups = {group_of[c] for c in classes.tolist() if c in group_of}
        if not groups:
            continue
        moments = _moments(layer, walk, len(samples), seed)
        for reader in _readers(layer, moments, classes, kind):
            for number in groups:
                readers.setdefault(number, []).append(reader)
    scores = np.full(len(grouping.roots), np.nan)
    for number, group in enumerate(grouping.groups):
        if number in readers:
            classes = group.classes.tolist()
            if kind == "activation":
                scores[group.classes] = np.sum([reader.costs(classes) for reader in readers[number]], axis=0)
            else:
                own = [_only(reader, set(classes)) for reader in readers[number]]
                scores[group.classes] = eliminate([reader for reader in own if reader.places], classes)
    return scores


def _only(reader: Reader, classes: set[int]) -> Reader:
    """A copy for one group's elimination."""
    places = {c: p for c, p in reader.places.items() if c in classes}
    return Reader(reader.inverse.copy(), reader.matrix.copy(), places, reader.weight)


def _moments(layer: Layer, walk: Walk, samples: int, seed: int) -> Moments:
    """Of the inputs of a layer, with what its output becomes part of as target."""
    random = np.random.default_rng(seed)
    others = [value for value in shortcuts(layer) if walk.before(value, layer.node)]
    taps = [layer.data, layer.output, *others]
    batch: Batch | None = None
    for found in walk.run(layer.node, taps, through=True):
        landing = found[str(layer.output.name)]
        for value in others:
            if found[str(value.name)].shape == landing.shape:
                landing = landing + found[str(value.name)]
        chosen = choose_positions(layer, layer.contraction.positions(landing.shape), samples, random)
        x = layer.contraction.rows(found[str(layer.data.name)], landing.shape, chosen)
        y = layer.contraction.targets(landing, chosen)
        if batch is None:
            batch = Batch(Moments.about(x.mean(axis=1, dtype=np.float64), y.mean(axis=1, dtype=np.float64)))
        batch.add(x, y)
    assert batch is not None
    batch.flush()
    return batch.moments


def _readers(layer: Layer, moments: Moments, classes: Labels, kind: Score) -> list[Reader]:
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
            found.append(reader_of(covariance[number], matrix[number], places, weight))
    return found
