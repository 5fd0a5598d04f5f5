"""Scores from samples: what is missed least goes first."""

from __future__ import annotations

import numpy as np
import pytest
from prune_checks import Build, Feed

from onnxqp.errors import UsageError
from onnxqp.graph import constant, set_initializer
from onnxqp.options import PruneOptions, Selection
from onnxqp.prune import plan, prune_model
from onnxqp.prune.cost import channel_macs
from onnxqp.prune.coupling import label_axes
from onnxqp.prune.groups import find_groups
from onnxqp.recover import prune_and_recover, scoring, settled
from onnxqp.recover.effects import extent
from onnxqp.recover.elimination import eliminate, reader_of, rising
from onnxqp.recover.sampling import held_out
from onnxqp.recover.scoring import score_channels


def samples(build: Build, count: int = 30) -> list[Feed]:
    random = np.random.default_rng(1)
    return [{k: random.normal(size=v.shape).astype(np.float32) for k, v in build.feed.items()} for _ in range(count)]


def two_layers(build: Build) -> str:
    hidden = build.op("Relu", build.conv(build.input(1, 3, 8, 8), 3, 8, 3))
    return build.conv(hidden, 8, 4, 3)


def test_of_twins_one_is_cheap_and_the_other_dear() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(500, 4))
    x[:, 3] = x[:, 0]
    matrix = np.ones((4, 2))
    places = {n: np.array([n]) for n in range(4)}
    scores = eliminate([reader_of(np.cov(x.T), matrix, places, 1.0, damping=1e-6)], list(range(4)))
    assert sorted(scores.tolist()) == pytest.approx([0, 2, 2, 10], abs=0.8)
    assert min(scores[0], scores[3]) < 1e-3 < 1 < max(scores[0], scores[3])


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
        ([3.0, 1.0, 5.0], [2.0, 2.0, 5.0]),
        ([4.0, 3.0, 2.0, 1.0], [2.5] * 4),
        ([0.0, 0.0, 1.0], [0.0, 0.0, 1.0]),
        ([], []),
    ],
)
def test_costs_rise_and_their_sum_stays(costs: list[float], expected: list[float]) -> None:
    found = rising(np.array(costs))
    assert found == pytest.approx(expected, rel=1e-6)
    assert (np.diff(found) >= 0).all()


def test_an_error_after_a_removal_is_that_of_least_squares() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 5)) @ random.normal(size=(5, 5))
    x -= x.mean(axis=0)
    matrix = random.normal(size=(5, 3))
    reader = reader_of(x.T @ x / len(x), matrix, {2: np.array([2, 3])}, 1.0, damping=1e-12)
    kept = x[:, [0, 1, 4]]
    target = x @ matrix
    fitted = kept @ np.linalg.lstsq(kept, target, rcond=None)[0]
    assert reader.costs([2])[0] == pytest.approx(np.square(target - fitted).sum() / len(x), rel=1e-6)
    reader.remove([2])
    np.testing.assert_allclose(x @ reader.matrix, fitted, atol=1e-6)


@pytest.mark.parametrize("kind", ["activation", "reconstruction"])
def test_a_channel_that_never_changes_goes_first(kind: str) -> None:
    build = Build()
    model = build.model(two_layers(build))
    weight = model.graph[0].inputs[1]
    array = constant(weight)
    assert array is not None
    assert weight is not None
    set_initializer(weight, np.where(np.arange(8)[:, None, None, None] == 5, 0, array).astype(np.float32))
    made = plan(model, PruneOptions(ratio=0.0), step=1)
    feeds = samples(build)
    scores = score_channels(model, made.labels, made.grouping, feeds, kind=kind)  # type: ignore[arg-type]
    (group,) = made.grouping.groups
    assert np.isfinite(scores[group.classes]).all()
    assert int(np.argmin(scores[group.classes])) == 5


def test_the_macs_of_channels_add_up_to_those_of_both_layers() -> None:
    build = Build()
    model = build.model(two_layers(build))
    made = plan(model, PruneOptions(ratio=0.0), step=1)
    macs = channel_macs(model.graph, made.labels, made.grouping.roots)
    (group,) = made.grouping.groups
    assert macs[group.classes].sum() == 8 * 8 * 9 * (3 * 8 + 8 * 4)


def test_channels_cost_less_once_their_neighbours_are_gone() -> None:
    build = Build()
    hidden = build.op("Relu", build.conv(build.input(1, 3, 8, 8), 3, 8, 3))
    model = build.model(build.conv(build.op("Relu", build.conv(hidden, 8, 6, 3)), 6, 4, 3))
    labels = label_axes(model.graph)
    grouping = find_groups(model.graph, labels, Selection())
    first, second = (group.classes for group in grouping.groups)
    gone = np.isin(grouping.roots, first[:4])
    whole, left = (channel_macs(model.graph, labels, grouping.roots, each) for each in (None, gone))
    assert whole[second] == pytest.approx(8 * 8 * 9 * (8 + 4))  # made of 8 channels, made into 4
    assert left[second] == pytest.approx(8 * 8 * 9 * (4 + 4))
    assert left[first] == pytest.approx(whole[first])  # nothing went on the other sides of these


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_a_share_of_the_macs_is_kept(allocation: str) -> None:
    build = Build()
    model = build.model(two_layers(build))
    feeds = samples(build)
    options = PruneOptions(macs_ratio=0.5, round_to=1, criterion="activation", allocation=allocation)  # type: ignore[arg-type]
    done = prune_and_recover(model, feeds[:2], feeds, options, kind="least-squares", step=1)
    assert done.pruning.macs_ratio == pytest.approx(0.5)
    assert done.pruning.proof is not None
    assert done.pruning.proof.checked
    assert done.pruning.recovery is not None
    assert {group.score_kind for group in done.pruning.groups} == {"activation"}


def test_steps_end_where_one_cut_ends() -> None:
    build = Build()
    model = build.model(two_layers(build))
    feeds = samples(build)
    options = PruneOptions(ratio=0.5, round_to=1, criterion="activation", steps=3)
    done = prune_and_recover(model, feeds[:2], feeds, options, kind="least-squares", step=1).pruning
    once = prune_model(model, feeds[:2], PruneOptions(ratio=0.5, round_to=1), step=1).pruning
    assert [(group.before, group.after) for group in done.groups] == [(8, 4)]
    assert (done.channels_before, done.channels_after) == (once.channels_before, once.channels_after)
    assert done.macs_ratio == pytest.approx(once.macs_ratio)
    assert done.params_ratio == pytest.approx(once.params_ratio)


def test_steps_need_a_ratio() -> None:
    build = Build()
    model = build.model(two_layers(build))
    options = PruneOptions(threshold=0.5, steps=2)
    with pytest.raises(UsageError, match="--steps"):
        prune_and_recover(model, [build.feed], samples(build, 2), options, kind=None)


def test_noise_does_not_say_what_channels_are_worth_nor_made_up_pictures_what_weights_are() -> None:
    assert settled(PruneOptions(ratio=0.5), "data").criterion == "reconstruction"
    assert settled(PruneOptions(ratio=0.5), "pictures").criterion == "reconstruction"
    assert settled(PruneOptions(ratio=0.5), "noise").criterion == "l1"
    assert settled(PruneOptions(ratio=0.5, pattern="unstructured"), "data").criterion == "activation"
    assert settled(PruneOptions(ratio=0.5, pattern="unstructured"), "pictures").criterion == "l1"
    assert settled(PruneOptions(ratio=0.5, criterion="l2"), "data").criterion == "l2"


def test_channels_compete_under_a_budget_of_arithmetic_alone() -> None:
    assert settled(PruneOptions(macs_ratio=0.5), "data").allocation == "global"
    assert settled(PruneOptions(ratio=0.5), "data").allocation == "uniform"
    assert settled(PruneOptions(macs_ratio=0.5), "pictures").allocation == "global"
    assert settled(PruneOptions(macs_ratio=0.5), "noise").allocation == "uniform"
    assert settled(PruneOptions(macs_ratio=0.5, allocation="uniform"), "data").allocation == "uniform"


def test_a_score_says_what_the_outputs_lose() -> None:
    """Of two branches the one whose output is all but ignored behind them scores a fraction of the other."""
    build = Build()
    given = build.input(1, 3, 8, 8)
    branches = [build.conv(build.op("Relu", build.conv(given, 3, 8, 3)), 8, 4, 3) for _ in range(2)]
    quiet = build.op("Mul", branches[1], build.const(0.01, np.float32))
    model = build.model(build.op("Concat", build.op("Relu", branches[0]), build.op("Relu", quiet), axis=1))
    labels = label_axes(model.graph)
    grouping = find_groups(model.graph, labels, Selection())
    scores = score_channels(model, labels, grouping, samples(build))
    loud, silent = (scores[group.classes].sum() for group in grouping.groups)
    assert silent < loud * 0.01


def test_what_judges_comes_in_one_piece() -> None:
    assert [n for n in range(20) if held_out(n, 20)] == [8, 9, 10, 11]
    assert sum(held_out(n, 512) for n in range(512)) in (102, 103)
    assert not any(held_out(n, 1) for n in range(1))


def test_a_channel_goes_that_only_a_silent_channel_reads() -> None:
    """Two hidden channels of the same size: one makes an output that the last layer hardly looks at."""
    build = Build()
    first = build.conv(build.input(1, 2, 8, 8), 2, 4, 1)
    second = build.conv(build.op("Relu", first), 4, 4, 1)
    model = build.model(build.conv(build.op("Relu", second), 4, 3, 1))
    names = [node.inputs[1] for node in model.graph if node.op_type == "Conv"]
    middle, last = np.eye(4)[:, :, None, None], np.ones((3, 4, 1, 1)) * np.array([1, 1, 0.01, 1])[:, None, None]
    for weight, array in zip(names[1:], (middle, last), strict=True):
        assert weight is not None
        set_initializer(weight, array.astype(np.float32))
    made = plan(model, PruneOptions(ratio=0.0), step=1)
    group = made.grouping.groups[0]
    scores = score_channels(model, made.labels, made.grouping, samples(build))
    assert int(np.argmin(scores[group.classes])) == 2


@pytest.mark.parametrize(
    ("macs", "places", "samples"),
    [(0, 4, 48), (10**9, 4, 48), (10**10, 4, 20), (3 * 10**10, 2, 13), (10**11, 1, 8), (10**12, 1, 3)],
)
def test_large_models_are_compared_at_fewer_places_and_on_fewer_samples(macs: int, places: int, samples: int) -> None:
    shares, count = extent(macs)
    assert (len(shares), count) == (places, samples)


def test_many_removals_leave_the_inverse_and_the_weight_of_what_is_left() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 60)) @ random.normal(size=(60, 60))
    covariance = np.cov(x.T)
    matrix = random.normal(size=(60, 4))
    places = {n: np.arange(2 * n, 2 * n + 2) for n in range(30)}
    reader = reader_of(covariance, matrix, places, 1.0, damping=1e-3)
    damped = covariance + 1e-3 * np.trace(covariance) / 60 * np.eye(60)
    gone = [3, 28, 0, 7, 11, 12, 29, 5, 20]
    for channel in gone:
        reader.remove([channel])
    out = np.concatenate([places[n] for n in gone])
    left = np.setdiff1d(np.arange(60), out)
    fitted = matrix[left] + np.linalg.solve(damped[np.ix_(left, left)], damped[np.ix_(left, out)] @ matrix[out])
    np.testing.assert_allclose(reader.matrix[left], fitted, rtol=1e-6, atol=1e-8)
    assert not reader.matrix[out].any()
    inverse = np.linalg.inv(damped[np.ix_(left, left)])
    for n in (1, 19):
        at = np.searchsorted(left, places[n])
        expected = np.einsum("ko,ko->", fitted[at], np.linalg.solve(inverse[np.ix_(at, at)], fitted[at]))
        assert reader.costs([n])[0] == pytest.approx(expected, rel=1e-6)


def test_a_layer_too_wide_for_its_moments_does_not_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    build = Build()
    model = build.model(two_layers(build))
    labels = label_axes(model.graph)
    grouping = find_groups(model.graph, labels, Selection())
    (group,) = grouping.groups
    assert np.isfinite(score_channels(model, labels, grouping, samples(build))[group.classes]).all()
    monkeypatch.setattr(scoring, "WIDEST", 1)
    assert np.isnan(score_channels(model, labels, grouping, samples(build))[group.classes]).all()
