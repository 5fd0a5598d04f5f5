"""Give back accuracy that a cut took: refit every layer behind it to what it computed before.

Layers are refitted in the order of running. The inputs of each are those of the pruned model as it is by then, its
target is what the original model computes there, so that errors of the layers before are corrected too. Where a layer
ends in a sum (a residual connection), the target is the original's sum less the pruned model's other operands. Only
initializers change, and biases are added; shapes and nodes stay, so that the proof of the cut holds for the graph.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.axes import Cut
from onnxqp.model import clone
from onnxqp.recover.clipped import Row, refit_clipped
from onnxqp.recover.layers import Layer, clipping, drop_idle, find_layers, shortcuts
from onnxqp.recover.least_squares import Kind, refit
from onnxqp.recover.moments import Moments
from onnxqp.recover.sampling import Batch, affordable, choose_positions, held_out, least_damping
from onnxqp.recover.walk import Walk
from onnxqp.report.records import Recovery
from onnxqp.specs import Feed

Array: TypeAlias = npt.NDArray[Any]
Progress: TypeAlias = Callable[[int, int | None], None]

BUDGET = 384 * 2**20  # bytes of samples, and of kept activations for each of the two models
LARGEST = 4608  # inputs times taps of a layer that is refitted
KEPT = 160 * 2**20  # bytes of rows that are looked at again, where a layer ends in a clipping activation
_HELD = 5  # of fewer samples than this, every fifth row is held out


@dataclass(frozen=True)
class Refitted:
    """The model with new weights, what was done, and the layers left as they were cut, with reasons."""

    model: ir.Model
    recovery: Recovery
    left: tuple[str, ...]


def recover_model(
    original: ir.Model,
    pruned: ir.Model,
    cuts: Sequence[Cut],
    feeds: Iterable[Feed],
    *,
    kind: Kind = "least-squares",
    seed: int = 0,
    budget: int = BUDGET,
    progress: Progress | None = None,
    changed: Collection[str] = (),
) -> Refitted:
    """Refit the layers of `pruned`, which `cuts`, one after the other, made of `original`; both normalised.

    `changed`: values, by name, that the layers behind them find other than in the original, though nothing was cut.

    `feeds` are unlabelled samples; a fifth of them judges each refit and rejects those that do not help. Peak memory
    is bounded by `budget` and the largest layer; no activation is written anywhere. `pruned` is left as it is.
    """
    begun = time.perf_counter()
    model = clone(pruned)
    layers = {layer.node: layer for layer in find_layers(model, cuts, changed)}
    samples = affordable(feeds, BUDGET)
    ours, theirs = Walk(model, samples, budget=budget), Walk(original, samples, budget=budget)
    fitted = rejected = 0
    left: list[str] = []
    places = [layers[node] for node in ours.order if node in layers]
    for done, layer in enumerate(places):
        if progress is not None:
            progress(done, len(places))
        source, width = theirs.node(layer.node.name or ""), layer.matrix().shape[1]
        if source is None or width > LARGEST:
            why = "is not in the original" if source is None else f"has {width} inputs times taps, more than {LARGEST}"
            left.append(f"{layer.node.name} {why}")
            continue
        pairs = _Pairs(layer, source, cuts, ours, theirs, len(samples), seed)
        fit, held = pairs.moments()
        found = refit(fit, held, layer.matrix(), layer.bias(), kind=kind, least=pairs.least)
        if found.damping is not None and pairs.clipping is not None and pairs.kept[0]:
            rows, apart = pairs.kept
            found = refit_clipped(found, fit.merged(held), [*rows, *apart], apart, pairs.clipping.bounds)
        if found.kind is not None:
            layer.set(found.matrix if found.kind == "least-squares" else None, found.bias)
        fitted += found.kind == kind
        rejected += found.kind != kind
    drop_idle(list(layers.values()))
    return Refitted(model, Recovery(kind, fitted, rejected, round(time.perf_counter() - begun, 3)), tuple(left))


class _Pairs:
    """Rows of a layer's inputs in the pruned model, with its targets from the original."""

    def __init__(
        self, layer: Layer, source: ir.Node, cuts: Sequence[Cut], ours: Walk, theirs: Walk, samples: int, seed: int
    ) -> None:
        self.layer = layer
        self.source = source
        self.cuts = cuts
        self.ours = ours
        self.theirs = theirs
        self.samples = samples
        self.random = np.random.default_rng(seed)
        values = {str(value.name): value for node in theirs.order for value in (*node.inputs, *node.outputs) if value}
        self.others = [
            (value, values[str(value.name)])
            for value in shortcuts(layer)
            if value.name in values
            and ours.before(value, layer.node)
            and theirs.before(values[str(value.name)], source)
        ]
        self.clipping = clipping(layer)
        self.least = 0.0  # damping
        self.kept: tuple[list[Row], list[Row]] = ([], [])  # rows to fit on and held out, while they fit KEPT bytes
        if len(self.others) != len(shortcuts(layer)):
            self.others, self.clipping = [], None

    def moments(self) -> tuple[Moments, Moments]:
        """Of the samples to fit on, and of those held out."""
        sets: tuple[Moments, ...] = ()
        for number, (x, y, added) in enumerate(self.rows()):
            if not sets:
                origins = x.mean(axis=1, dtype=np.float64), y.mean(axis=1, dtype=np.float64)
                sets = Moments.about(*origins), Moments.about(*origins)
                waiting = Batch(sets[0]), Batch(sets[1])
                if (x.nbytes + 2 * y.nbytes) * self.samples > KEPT:
                    self.clipping = None
            if self.samples >= _HELD:
                self._add(waiting, held_out(number, self.samples), (x, y, added))
            else:
                away = np.arange(x.shape[1]) % _HELD == _HELD - 1
                self._add(waiting, False, (x[:, ~away], y[:, ~away], added[:, ~away]))
                self._add(waiting, True, (x[:, away], y[:, away], added[:, away]))
        for batch in waiting:
            batch.flush()
        return sets[0], sets[1]

    def _add(self, waiting: tuple[Batch, Batch], apart: bool, row: Row) -> None:
        waiting[apart].add(*row[:2])
        if self.clipping is None:
            self.kept = ([], [])
        else:
            self.kept[apart].append(row)

    def rows(self) -> Iterator[Row]:
        """Inputs, targets, and what is added to the output before it is clipped, sample by sample."""
        contraction = self.layer.contraction
        output = self.source.outputs[0]
        entering = [self.layer.data, *(ours for ours, _ in self.others)]
        leaving = [output, *(theirs for _, theirs in self.others)]
        mine = self.ours.run(self.layer.node, entering)
        before = self.theirs.run(self.source, leaving, through=True)
        for found, expected in zip(mine, before, strict=True):
            target = self.compact(output, expected[str(output.name)])
            added = np.zeros_like(target)
            for value, source in self.others:
                there, here = self.compact(source, expected[str(source.name)]), found[str(value.name)]
                if there.shape == here.shape == target.shape:
                    target, added = target + (there - here), added + here
                else:
                    self.clipping = None
            data = found[str(self.layer.data.name)]
            positions = contraction.positions(target.shape)
            self.least = least_damping(self.layer, positions, self.samples)
            chosen = self.choose(positions)
            rows, plain = contraction.rows(data, target.shape, chosen), contraction.targets(target, chosen)
            yield rows, plain, self.shifted(contraction.targets(added, chosen))

    def shifted(self, added: Array) -> Array:
        """With the constants that are added behind the layer, `[groups, rows, outputs]`."""
        shift = self.clipping.shift if self.clipping is not None else np.zeros(1)
        if not shift.any():
            return added
        groups, _, outputs = added.shape
        spread = np.broadcast_to(shift, (groups * outputs,)).reshape(groups, 1, outputs)
        return np.asarray(added + spread.astype(added.dtype))

    def compact(self, value: ir.Value, array: Array) -> Array:
        """An array of the original model as the pruned model would have it."""
        for cut in self.cuts:
            array = cut.compact(value, array)
        return array

    def choose(self, positions: int) -> npt.NDArray[np.int64]:
        """Flat positions of one sample's output that become rows, a random few where there are many."""
        return choose_positions(self.layer, positions, self.samples, self.random)
