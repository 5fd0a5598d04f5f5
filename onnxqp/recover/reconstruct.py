"""Give back accuracy that a cut took: refit every layer behind it to what it computed before.

Layers are refitted in the order of running. The inputs of each are those of the pruned model as it is by then, its
target is what the original model computes there, so that errors of the layers before are corrected too. Where a layer
ends in a sum (a residual connection), the target is the original's sum less the pruned model's other operands. A weight
that several layers share stays one (`shared`). Only initializers change, and biases are added; shapes and nodes stay,
so that the proof of the cut holds for the graph.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy.typing as npt
import onnx_ir as ir

from onnxqp.axes import Cut
from onnxqp.model import clone
from onnxqp.recover.channels import by_channels
from onnxqp.recover.clipped import refit_clipped
from onnxqp.recover.layers import Layer, drop_idle, find_layers
from onnxqp.recover.least_squares import DAMPINGS, Kind, Refit, refit
from onnxqp.recover.pairs import Pairs
from onnxqp.recover.sampling import FEW, affordable
from onnxqp.recover.scales import refit_wide
from onnxqp.recover.shared import Together, sharing
from onnxqp.recover.walk import Walk
from onnxqp.report.records import Recovery
from onnxqp.specs import Feed

Array: TypeAlias = npt.NDArray[Any]
Progress: TypeAlias = Callable[[int, int | None], None]

BUDGET = 384 * 2**20  # bytes of samples, and of kept activations for each of the two models
LARGEST = 4608  # inputs times taps of a layer that is refitted


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
    jointly: set[ir.Node] = set()
    places = [layers[node] for node in ours.order if node in layers]
    common = sharing(places)
    together = Together(model, original, cuts, ours, theirs, samples, seed)
    for done, layer in enumerate(places):
        if progress is not None:
            progress(done, len(places))
        source, width = theirs.node(layer.node.name or ""), layer.shape()[1]
        if source is None:
            left.append(f"{layer.node.name} is not in the original")
            continue
        sharers = common.get(layer.node)  # where there are any, the bias is the layer's own and the weight that of all
        pairs = Pairs(layer, source, cuts, ours, theirs, len(samples), seed)
        if width > LARGEST:
            found, said = refit_wide(pairs, mixed=kind == "least-squares", fixed=sharers is not None)
            _write(layer, found)
            left.append(f"{layer.node.name} has {width} inputs times taps, more than {LARGEST}: {said}")
            fitted, rejected = fitted + (found.kind == kind), rejected + (found.kind is None)
            continue
        if kind == "least-squares" and sharers and sharers[0] is layer and together.refit(sharers):
            jointly.update(sharer.node for sharer in sharers)
        refitted = _refit(pairs, kind, fixed=sharers is not None)
        if refitted is None:
            rejected += 1
            left.append(f"{layer.node.name} has {width} inputs, more than the samples have time steps to refit it by")
            continue
        _write(layer, refitted)
        helped = layer.node in jointly or refitted.kind == kind
        fitted += helped
        rejected += not helped
    drop_idle(list(layers.values()))
    return Refitted(model, Recovery(kind, fitted, rejected, round(time.perf_counter() - begun, 3)), tuple(left))


def _refit(pairs: Pairs, kind: Kind, *, fixed: bool) -> Refit | None:
    """The refit of a layer, of which a `fixed` weight stays; None for a recurrent one that samples say too little of:
    what is wrong comes back at every step (DTLN lost 2 to 3 dB)."""
    layer, free = pairs.layer, kind == "least-squares" and not fixed
    few = free and layer.shape()[1] > FEW * pairs.samples
    mixed = by_channels(pairs, flattened=True)[0] if few else None
    fit, held = pairs.moments(pairs.rows())
    if pairs.gates and pairs.least > 1:
        return None
    towards = [] if mixed is None else [mixed]
    matrix, bias = layer.matrix(), layer.bias()
    found = refit(fit, held, matrix, bias, kind=kind, least=pairs.least, fixed=fixed, towards=towards)
    if free and pairs.clipping is not None and pairs.kept[0]:
        begin = found if found.damping is not None else replace(found, damping=max(DAMPINGS[-1], pairs.least))
        rows, apart = pairs.kept
        found = refit_clipped(begin, fit.merged(held), [*rows, *apart], apart, pairs.clipping.bounds)
    return found


def _write(layer: Layer, found: Refit) -> None:
    if found.kind is not None:
        layer.set(found.matrix if found.reweighted else None, found.bias)
