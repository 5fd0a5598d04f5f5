"""Scores of channels, each against what it means on a graph made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from prune_checks import Build

import onnxqp
from onnxqp.errors import UnsupportedError
from onnxqp.options import Criterion, PruneOptions
from onnxqp.prune import plan, prune_model
from onnxqp.prune.pruning import Plan
from onnxqp.recover import channel_scorer

RANDOM = np.random.default_rng(3)


def two_layers(
    weight: np.ndarray, scale: np.ndarray | None = None, reader: np.ndarray | None = None
) -> tuple[ir.Model, Build]:
    """A convolution of eight filters, perhaps a batch normalisation, Relu, and a reader."""
    build = Build()
    x = build.op("Conv", build.input(1, 2, 6, 6), build.const(weight, np.float32), pads=[1] * 4)
    if scale is not None:
        ones, zeros = build.const(np.ones(8), np.float32), build.const(np.zeros(8), np.float32)
        x = build.op("BatchNormalization", x, build.const(scale, np.float32), zeros, zeros, ones)
    x = build.op("Relu", x)
    reads = RANDOM.normal(size=(3, 8, 1, 1)) if reader is None else reader
    return build.model(build.op("Conv", x, build.const(reads, np.float32))), build


def removed(model: ir.Model, feeds: list[Any], criterion: Criterion, count: int = 2, **options: Any) -> list[int]:
    """The filters that go, by number."""
    how = PruneOptions(ratio=count / 8, criterion=criterion, round_to=1, **options)
    made: Plan = plan(model, how, step=1, scorer=channel_scorer(how, feeds, 0))
    (family,) = [f for f in made.labels.families(made.labels.weights[0].value) if f.inner == 0]
    gone = {int(c) for bundles in made.chosen for bundle in bundles for c in bundle.classes}
    return [n for n, c in enumerate(made.grouping.roots[family.labels].tolist()) if c in gone]


def even() -> np.ndarray:
    """Filters of equal norm."""
    weight = RANDOM.normal(size=(8, 2, 3, 3))
    return weight / np.abs(weight).sum(axis=(1, 2, 3), keepdims=True)


def constant_reader() -> np.ndarray:
    return np.ones((3, 8, 1, 1))


@pytest.mark.parametrize("criterion", ["l1", "l2"])
def test_norms_of_all_coupled_weights(criterion: Criterion) -> None:
    weight, reader = even(), constant_reader()
    weight[5] *= 0.1
    reader[:, 2] *= 0.2
    model, build = two_layers(weight, reader=reader)
    assert removed(model, [build.feed], criterion) == [2, 5]


def test_what_lies_in_the_middle_of_the_others_goes() -> None:
    weight = even() * 4
    weight[3] = weight.mean(axis=0)
    weight[6] = weight.mean(axis=0) + 0.001
    model, build = two_layers(weight, reader=constant_reader())
    assert removed(model, [build.feed], "geometric-median") == [3, 6]
    norms = np.abs(np.delete(weight, [3, 6], axis=0)).sum(axis=(1, 2, 3))
    assert np.ptp(norms) < 1e-6  # no norm could have told the others apart


def test_small_scales_go_also_when_they_are_folded() -> None:
    scale = np.array([1.0, 0.5, -0.01, 2.0, 0.8, 1.1, -0.02, 0.7])
    model, build = two_layers(even() / np.abs(scale)[:, None, None, None], scale)
    assert not any(node.op_type == "BatchNormalization" for node in model.graph)
    assert removed(model, [build.feed], "bn-scale") == [2, 6]
    steps = onnxqp.prune(
        model,
        options=PruneOptions(ratio=0.5, criterion="bn-scale", round_to=1, steps=2, recover="none"),
        data=[build.feed],
    )
    assert steps.report.pruning is not None
    assert [group.after for group in steps.report.pruning.groups] == [4]


def test_no_batch_normalisation_is_said() -> None:
    model, build = two_layers(even())
    with pytest.raises(UnsupportedError, match="no channel has a batch normalisation"):
        removed(model, [build.feed], "bn-scale")


def test_mean_activation_is_what_readers_see() -> None:
    weight = np.abs(even())
    weight[4] *= -1  # Relu lets nothing of it through
    model, build = two_layers(weight)
    feed = {"x": np.abs(build.feed["x"])}
    assert removed(model, [feed], "mean-activation", 1) == [4]


@pytest.mark.parametrize("criterion", ["activation", "reconstruction"])
def test_what_readers_lose(criterion: Criterion) -> None:
    reader = constant_reader()
    reader[:, 7] = 0
    model, build = two_layers(even(), reader=reader)
    assert removed(model, [build.feed] * 2, criterion, 1) == [7]


def test_chance_follows_the_seed() -> None:
    model, build = two_layers(even())
    how = PruneOptions(ratio=0.5, criterion="random", round_to=1)
    chosen = []
    for seed in (0, 0, 1, 2, 3):
        made = plan(model, how, step=1, scorer=channel_scorer(how, [build.feed], seed))
        chosen.append(tuple(int(c) for bundles in made.chosen for bundle in bundles for c in bundle.classes))
    assert chosen[0] == chosen[1]
    assert len(set(chosen)) > 2


@pytest.mark.parametrize(
    "criterion",
    ["l1", "l2", "geometric-median", "bn-scale", "mean-activation", "activation", "reconstruction", "random"],
)
@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_every_criterion_prunes_a_coupled_network(criterion: Criterion, allocation: Any) -> None:
    build = Build()
    x = build.op("Relu", build.conv(build.input(2, 3, 8, 8), 3, 16, 3))
    for _ in range(2):
        y = build.conv(x, 16, 12, 3)
        stats = [build.weight(12, positive=True) for _ in range(4)]
        y = build.op("Relu", build.op("BatchNormalization", y, *stats))
        x = build.op("Relu", build.op("Add", x, build.conv(y, 12, 16, 3)))
    model = build.model(build.op("Gemm", build.op("Flatten", build.op("GlobalAveragePool", x)), build.weight(16, 5)))
    how = PruneOptions(ratio=0.5, criterion=criterion, allocation=allocation, round_to=1)
    scorer = channel_scorer(how, [build.feed], 0)
    result = prune_model(model, [build.feed], how, step=1, scorer=scorer)
    assert result.pruning.proof is not None
    assert result.pruning.proof.checked
    assert {group.score_kind for group in result.pruning.groups} == {criterion}
    assert min(group.after for group in result.pruning.groups) >= 1
    assert result.pruning.channels_after <= 0.6 * result.pruning.channels_before
