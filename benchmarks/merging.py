"""Channels merged instead of deleted (model folding, ICLR 2025), without data and with: what stays of the predictions.

    python benchmarks/merging.py --only residual_cnn --shares 0.75 0.5      # pictures are made up, 64 of them
    python benchmarks/merging.py --zoo ../shared/zoo --only resnet20_cifar10 --data

One row per way, one column per share of the multiply-accumulates. A cell is the mean over the seeds of the predictions
that stay on the half of the samples that is not used, in percent, and of the squared error of the class scores relative
to their variance, each with half the distance between the best and the worst. How many channels each group keeps is
what `prune` would decide, by reconstruction with all groups competing, so deleted and merged cost the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from recover import Subject, _scores, _spread, _subjects

from onnxqp.axes import Cut
from onnxqp.data import synthesize
from onnxqp.graph import constant, iterate, set_initializer
from onnxqp.model import clone, load
from onnxqp.normalize import normalize
from onnxqp.options import PruneOptions
from onnxqp.prune import plan
from onnxqp.prune.apply import cut_model
from onnxqp.prune.pruning import Plan
from onnxqp.recover.reconstruct import recover_model
from onnxqp.recover.scorers import channel_scorer
from onnxqp.runtime import Session
from onnxqp.specs import Feed

Array = npt.NDArray[Any]
PICTURES = 64
WAYS = tuple((merge, refit) for refit in (False, True) for merge in (False, True))


@dataclass(frozen=True)
class Merged:
    """Which channel every class becomes part of, and its share in the filter there, `[classes]` each; the rest goes."""

    made: Plan
    into: npt.NDArray[np.int64]
    share: npt.NDArray[np.float64]
    gone: npt.NDArray[np.bool_]

    @property
    def removed(self) -> npt.NDArray[np.bool_]:
        """True for every label that goes."""
        return self.gone[self.made.grouping.roots]

    def along(self, array: Array, axis: int, classes: Array, *, read: bool) -> Array:
        """Slices of merged classes added up where the first of them is: whole ones where `read`, else the mean."""
        order = np.argsort(classes, kind="stable")
        ranked, target = classes[order], np.empty_like(order)
        nth = np.arange(len(order)) - np.searchsorted(ranked, ranked)
        target[order] = order[np.searchsorted(ranked, self.into[ranked]) + nth]
        weight = np.ones(len(classes)) if read else self.share[classes]
        slices = np.moveaxis(array, axis, 0).astype(np.float64)
        total = np.zeros_like(slices)
        np.add.at(total, target, (slices.T * weight).T)
        return np.ascontiguousarray(np.moveaxis(total, 0, axis), array.dtype)

    def model(self) -> ir.Model:
        """The original with merged filters, in which those that go are still there."""
        model = clone(self.made.model)
        for node in iterate(model):
            for value, axis, classes, read in _slices(self.made, node):
                array = constant(value)
                if array is not None and (self.into[classes] != classes).any():
                    set_initializer(value, self.along(array, axis, classes, read=read))
        return model


class Target(Cut):
    """What a refit leads to: a channel should compute the mean of those that it was merged from."""

    def __init__(self, merged: Merged) -> None:
        super().__init__(merged.made.labels, merged.removed)
        self.merged = merged

    def compact(self, value: ir.Value | str | None, array: Array) -> Array:
        roots = self.merged.made.grouping.roots
        for family in self._labels.families(value):
            if isinstance(axis := family.inner, int) and not family.outer:
                array = self.merged.along(array, axis, roots[family.labels], read=False)
        return super().compact(value, array)


def _slices(made: Plan, node: ir.Node) -> Iterator[tuple[ir.Value, int, Array, bool]]:
    """Constants of a node with an axis of channels, the classes along it, and whether they are read or made there."""
    consumed = {(weight.value, weight.consumed) for weight in made.labels.weights}
    for index, value in enumerate(node.inputs):
        if value is None or (array := constant(value)) is None or array.dtype.kind != "f":
            continue
        for family in made.labels.families(value):
            if isinstance(axis := family.inner, int) and not family.outer:
                used_up = (node.name or "", index, axis) in made.labels.consumptions
                read = used_up or (value.name, axis) in consumed
                yield value, axis, made.grouping.roots[family.labels], read


def merged(made: Plan, *, merge: bool) -> Merged:
    """As many channels as the plan keeps: those it keeps, or clusters of filters (Ward) weighted by who reads them."""
    into, share = np.arange(len(made.grouping.roots)), np.ones(len(made.grouping.roots))
    gone = np.zeros(len(into), np.bool_)
    for group, bundles in zip(made.grouping.groups, made.chosen, strict=True):
        going = sum(len(bundle.classes) for bundle in bundles)
        filters, mass = _filters(made, group.classes)
        if not merge or not filters.size or any(bundle.bound or len(bundle.classes) > 1 for bundle in group.bundles):
            gone[[int(c) for bundle in bundles for c in bundle.classes]] = True
            continue
        for members in _clusters(filters, mass, group.size - going) if going else []:
            into[group.classes[members]] = group.classes[members[0]]
            share[group.classes[members]] = mass[members] / mass[members].sum()
            gone[group.classes[members[1:]]] = True
    return Merged(made, into, share, gone)


def _filters(made: Plan, classes: Array) -> tuple[Array, Array]:
    """What makes each channel, `[channels, weights]`, every node with mean norm 1; and how loud it is read, with mean
    1 for each reader, `[channels]`."""
    parts, mass = list[Array](), np.full(len(classes), 1e-9)
    for node in iterate(made.model):
        own = list[Array]()
        for value, axis, found, read in _slices(made, node):
            places = [np.flatnonzero(found == c) for c in classes]
            array = constant(value)
            if array is None or not places[0].size or len({len(each) for each in places}) > 1:
                continue
            rows = np.moveaxis(array, axis, 0)[np.stack(places)].reshape(len(classes), -1).astype(np.float64)
            if read:
                energy = np.square(rows).sum(axis=1)
                mass += energy / max(energy.mean(), 1e-12)
            else:
                own.append(rows)
        if own:
            joined = np.concatenate(own, axis=1)
            parts.append(joined / max(np.linalg.norm(joined, axis=1).mean(), 1e-12))
    return np.concatenate(parts, axis=1) if parts else np.zeros((len(classes), 0)), mass


def _clusters(points: Array, mass: Array, count: int) -> list[list[int]]:
    """`count` clusters of `points` `[n, features]`: two become one, whichever adds least to the squared distances from
    the means (Ward 1963)."""
    centres, weight, members = points.copy(), mass.copy(), [[n] for n in range(len(points))]
    squares = np.square(points).sum(axis=1)
    apart = squares[:, None] + squares - 2 * points @ points.T
    cost = np.maximum(apart, 0.0) * (weight[:, None] * weight / (weight[:, None] + weight))
    np.fill_diagonal(cost, np.inf)
    for _ in range(len(points) - count):
        one, two = (int(n) for n in np.unravel_index(np.argmin(cost), cost.shape))
        both = weight[one] + weight[two]
        centres[one] = (weight[one] * centres[one] + weight[two] * centres[two]) / both
        weight[one], members[one], members[two] = both, members[one] + members[two], []
        cost[two], cost[:, two] = np.inf, np.inf
        fresh = np.square(centres - centres[one]).sum(axis=1) * weight * both / (weight + both)
        alive = np.isfinite(cost[one])
        cost[one] = cost[:, one] = np.where(alive, fresh, np.inf)
    return [each for each in members if each]


def main() -> None:
    asked = _arguments()
    for subject in _subjects(asked.zoo, asked.only):
        model = load(subject.model)
        normalize(model)
        print(f"\n{subject.name}: {'samples' if asked.data else 'made-up pictures'}\n")
        print(f"| way | {' | '.join(f'MACs x{share:g}' for share in asked.shares)} |")
        print(f"|---|{'---:|' * len(asked.shares)}")
        columns = [_column(subject, model, share, asked.seeds, data=asked.data) for share in asked.shares]
        for (merge, refit), *cells in zip(WAYS, *columns, strict=True):
            name = f"{'merged' if merge else 'deleted'}{', least squares' if refit else ''}"
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _column(subject: Subject, model: ir.Model, share: float, seeds: int, *, data: bool) -> list[str]:
    """A cell for every way."""
    found: list[list[tuple[float, float]]] = [[] for _ in WAYS]
    for seed in range(seeds):
        feeds = [feed for feed, _ in subject.feeds(subject.data, None, 0, labelled=False)]
        order = np.random.default_rng(seed).permutation(len(feeds))
        half = len(feeds) // 2
        held = [feeds[n] for n in order[:half]]
        samples: Sequence[Feed] = [feeds[n] for n in order[half:]]
        if not data:
            samples = list(synthesize(Session(subject.model).inputs, samples=PICTURES, seed=seed))
        options = PruneOptions(macs_ratio=share, criterion="reconstruction", allocation="global")
        made = plan(model, options, scorer=channel_scorer(options, samples, seed), samples=samples)
        known = _scores(Session(model), held)
        for (merge, refit), cell in zip(WAYS, found, strict=True):
            done = merged(made, merge=merge)
            pruned = cut_model(done.model(), made.labels, Cut(made.labels, done.removed))
            if refit:
                pruned = recover_model(model, pruned, [Target(done)], samples, seed=seed).model
            scores = _scores(Session(pruned), held)
            same = float(np.mean(scores.argmax(axis=1) == known.argmax(axis=1)))
            error = np.square(scores - known).sum() / np.square(known - known.mean(axis=0)).sum()
            cell.append((100 * same, float(error)))
    return [", ".join(_spread(values) for values in zip(*cell, strict=True)) for cell in found]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, help="a folder as the zoo is laid out")
    parser.add_argument("--only", default="*", help="a glob on names of models")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.75, 0.5])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--data", action="store_true", help="choose and refit on samples of the model's own data")
    return parser.parse_args()


if __name__ == "__main__":
    main()
