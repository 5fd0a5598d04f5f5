"""One map of channels for all places: what it is made of, what it gives back, and where there is none."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from prune_checks import Build, Feed

from onnxqp.graph import constant, set_initializer
from onnxqp.options import PruneOptions, Selection
from onnxqp.prune import plan
from onnxqp.prune.apply import cut_model
from onnxqp.prune.pruning import Plan
from onnxqp.recover import recover_model
from onnxqp.recover.channels import Channels, NoChannels, by_channels
from onnxqp.recover.layers import find_layers
from onnxqp.recover.pairs import Pairs
from onnxqp.recover.walk import Walk
from onnxqp.runtime import Session


def samples(build: Build, count: int, seed: int = 1) -> list[Feed]:
    random = np.random.default_rng(seed)
    return [{k: random.normal(size=v.shape).astype(np.float32) for k, v in build.feed.items()} for _ in range(count)]


def planned(model: ir.Model, ratio: float = 0.5) -> Plan:
    return plan(model, PruneOptions(ratio=ratio, round_to=1, selection=Selection()), step=1)


def pairs_of(model: ir.Model, made: Plan, feeds: list[Feed], operator: str) -> Pairs:
    """Of the last layer of a type, in the model that was cut."""
    pruned = cut_model(model, made.labels, made.cut)
    layer = [layer for layer in find_layers(pruned, [made.cut]) if layer.node.op_type == operator][-1]
    ours, theirs = (Walk(each, feeds, budget=2**30) for each in (pruned, model))
    source = theirs.node(layer.node.name or "")
    assert source is not None
    return Pairs(layer, source, [made.cut], ours, theirs, len(feeds), 0)


def weaken(value: ir.Value | None) -> None:
    """Make the second half of the slices of a weight twins of the first, weaker, as a norm has it."""
    array = constant(value)
    assert array is not None
    assert value is not None
    half = array[: len(array) // 2]
    set_initializer(value, np.concatenate([half, half * np.float32(0.5)]))


def flattened(build: Build, *, last: bool = False) -> ir.Model:
    """Eight channels of 8 x 8 pixels, flattened, before a product; `last`: with the channels innermost."""
    hidden = build.op("Relu", build.conv(build.input(1, 3, 8, 8), 3, 8, 3))
    if last:
        hidden = build.op("Transpose", hidden, perm=[0, 2, 3, 1])
    return build.model(build.op("Gemm", build.op("Flatten", hidden), build.weight(8 * 64, 5), build.weight(5)))


def convolved(build: Build) -> ir.Model:
    hidden = build.op("Relu", build.conv(build.input(1, 3, 8, 8), 3, 8, 3))
    return build.model(build.conv(hidden, 8, 5, 3))


def distance(model: ir.Model, other: ir.Model, feeds: list[Feed]) -> float:
    """Relative squared error of all outputs."""
    ours, theirs = Session(model), Session(other)
    pairs = [(a, b) for feed in feeds for a, b in zip(ours.run(feed).values(), theirs.run(feed).values(), strict=True)]
    return float(sum(np.square(a - b).sum() for a, b in pairs) / sum(np.square(a).sum() for a, _ in pairs))


@pytest.mark.parametrize("last", [False, True])
def test_places_are_those_of_the_layout(last: bool) -> None:
    build = Build()
    model = flattened(build, last=last)
    found = Channels.of(pairs_of(model, planned(model), samples(build, 1), "Gemm"))
    whole, left = (np.arange(count * 64) for count in (8, 4))
    assert found.taps == 1
    np.testing.assert_array_equal(found.before, whole.reshape(64, 8).T if last else whole.reshape(8, 64))
    np.testing.assert_array_equal(found.after, left.reshape(64, 4).T if last else left.reshape(4, 64))


@pytest.mark.parametrize("network", [flattened, convolved])
def test_a_map_that_changes_nothing_is_the_cut(network: object) -> None:
    build = Build()
    model = network(build)  # type: ignore[operator]
    made = planned(model)
    pairs = pairs_of(model, made, samples(build, 1), model.graph[-1].op_type)
    found = Channels.of(pairs)
    assert len(found.kept) == 4
    np.testing.assert_allclose(found.mapped(np.eye(8)[found.kept]), pairs.layer.matrix(), rtol=1e-6)


@pytest.mark.parametrize("network", [flattened, convolved])
def test_a_map_is_the_same_at_every_place(network: object) -> None:
    """Against the sum over channels written out, place by place."""
    build = Build()
    model = network(build)  # type: ignore[operator]
    pairs = pairs_of(model, planned(model), samples(build, 1), model.graph[-1].op_type)
    found = Channels.of(pairs)
    mix, original = build.random.normal(size=(4, 8)), found.source.matrix()[0]
    mapped = found.mapped(mix)[0]
    for place in range(found.places):
        np.testing.assert_allclose(
            mapped[found.after[:, place]], mix @ original[found.before[:, place]], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("network", [flattened, convolved])
def test_twins_are_not_missed_by_a_layer_too_wide(network: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the channels repeat the other half: a map of channels gives back what scale and bias cannot."""
    build = Build()
    model = network(build)  # type: ignore[operator]
    for value in model.graph[0].inputs[1:]:
        weaken(value)
    made, feeds, unseen = planned(model), samples(build, 20), samples(build, 20, seed=2)
    monkeypatch.setattr("onnxqp.recover.reconstruct.LARGEST", 30)
    pruned = cut_model(model, made.labels, made.cut)
    found = recover_model(model, pruned, [made.cut], feeds)
    scaled = recover_model(model, pruned, [made.cut], feeds, kind="bias")
    assert distance(model, found.model, unseen) < 1e-4
    assert distance(model, scaled.model, unseen) > 1e-2
    assert "one map of its 8 channels for all" in found.left[0]
    assert scaled.left[0].endswith(": scale and bias only")
    assert (found.recovery.consumers, found.recovery.rejected) == (1, 0)


def test_few_samples_tell_of_flattened_channels_what_they_do_not_of_every_pixel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = Build()
    model = flattened(build)
    for value in model.graph[0].inputs[1:]:
        weaken(value)
    made, feeds, unseen = planned(model), samples(build, 20), samples(build, 20, seed=2)
    pruned = cut_model(model, made.labels, made.cut)
    assert distance(model, recover_model(model, pruned, [made.cut], feeds).model, unseen) < 1e-4
    monkeypatch.setattr("onnxqp.recover.reconstruct.FEW", np.inf)
    assert distance(model, recover_model(model, pruned, [made.cut], feeds).model, unseen) > 1e-3


def test_channels_that_say_nothing_of_each_other_are_left_as_they_are() -> None:
    """Without an activation that makes them alike, noise goes through the convolution to unrelated channels."""
    build = Build()
    made_of = build.conv(build.input(1, 8, 8, 8), 8, 8)
    model = build.model(build.op("Gemm", build.op("Flatten", made_of), build.weight(8 * 64, 5), build.weight(5)))
    value = model.graph[0].inputs[1]
    assert value is not None
    scales = np.arange(1, 9, dtype=np.float32)[:, None, None, None]
    set_initializer(value, np.eye(8, dtype=np.float32)[:, :, None, None] * scales)
    matrix, why = by_channels(pairs_of(model, planned(model), samples(build, 20), "Gemm"))
    assert matrix is None
    assert why == "its channels say nothing of each other"


def test_a_product_of_plain_features_has_no_places() -> None:
    build = Build()
    model = build.model(build.linear(build.op("Relu", build.linear(build.input(2, 6), 6, 8)), 8, 3))
    with pytest.raises(NoChannels, match="one place"):
        Channels.of(pairs_of(model, planned(model), samples(build, 1), model.graph[3].op_type))


def test_channels_of_maps_of_different_sizes_have_no_common_places() -> None:
    build = Build()
    x = build.input(1, 3, 8, 8)
    large = build.op("Flatten", build.op("Relu", build.conv(x, 3, 4, 3)))
    small = build.op("Flatten", build.op("Relu", build.conv(x, 3, 4, 3, strides=[2, 2])))
    joined = build.op("Concat", large, small, axis=1)
    model = build.model(build.op("Gemm", joined, build.weight(4 * 64 + 4 * 16, 5), build.weight(5)))
    matrix, why = by_channels(pairs_of(model, planned(model), samples(build, 1), "Gemm"))
    assert matrix is None
    assert why == "some of its channels have more places than others"


def test_a_second_cut_is_read_from_the_first_model() -> None:
    build = Build()
    model = flattened(build)
    first = planned(model, 0.25)
    once = cut_model(model, first.labels, first.cut)
    second = planned(once, 0.34)
    feeds, twice = samples(build, 4), cut_model(once, second.labels, second.cut)
    layer = find_layers(twice, [first.cut, second.cut])[-1]
    ours, theirs = (Walk(each, feeds, budget=2**30) for each in (twice, model))
    source = theirs.node(layer.node.name or "")
    assert source is not None
    found = Channels.of(Pairs(layer, source, [first.cut, second.cut], ours, theirs, 4, 0))
    assert found.after.shape == (4, 64)
    np.testing.assert_allclose(found.mapped(np.eye(8)[found.kept]), layer.matrix(), rtol=1e-6)
