"""Recovery of small graphs: what can be given back is given back, and nothing but weights changes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from prune_checks import Build, Feed

from onnxqp.axes import Cut
from onnxqp.graph import constant, set_initializer
from onnxqp.options import PruneOptions, Selection
from onnxqp.prune import plan
from onnxqp.prune.apply import cut_model
from onnxqp.prune.pruning import Plan
from onnxqp.recover import Refitted, recover_model
from onnxqp.recover.walk import Walk, early_order
from onnxqp.runtime import Session


def samples(build: Build, count: int = 40) -> list[Feed]:
    random = np.random.default_rng(1)
    return [{k: random.normal(size=v.shape).astype(np.float32) for k, v in build.feed.items()} for _ in range(count)]


def planned(model: ir.Model, ratio: float, *include: str) -> Plan:
    return plan(model, PruneOptions(ratio=ratio, round_to=1, selection=Selection(include=include)), step=1)


def cut_and_recover(model: ir.Model, made: Plan, feeds: list[Feed], **options: object) -> tuple[ir.Model, Refitted]:
    pruned = cut_model(model, made.labels, made.cut)
    return pruned, recover_model(model, pruned, [made.cut], feeds, **options)  # type: ignore[arg-type]


def distance(model: ir.Model, other: ir.Model, feeds: list[Feed]) -> float:
    """Relative squared error of all outputs."""
    ours, theirs = Session(model), Session(other)
    pairs = [(a, b) for feed in feeds for a, b in zip(ours.run(feed).values(), theirs.run(feed).values(), strict=True)]
    return float(sum(np.square(a - b).sum() for a, b in pairs) / sum(np.square(a).sum() for a, _ in pairs))


def residual_network(build: Build) -> ir.Model:
    """Two residual blocks, a strided shortcut with a layer of its own, a depthwise layer, a classifier."""
    x = build.op("Relu", build.conv(build.input(1, 3, 10, 10), 3, 12, 3))
    inner = build.op("Relu", build.conv(x, 12, 12, 3))
    x = build.op("Relu", build.op("Add", build.conv(inner, 12, 12, 3), x))
    inner = build.op("Relu", build.conv(x, 12, 16, 3, strides=[2, 2]))
    inner = build.op("Relu", build.conv(inner, 16, 16, 3, group=16))
    x = build.op("Relu", build.op("Add", build.conv(inner, 16, 16), build.conv(x, 12, 16, strides=[2, 2])))
    pooled = build.op("Flatten", build.op("GlobalAveragePool", x))
    return build.model(build.op("Gemm", pooled, build.weight(16, 5), build.weight(5)))


def encoder(build: Build) -> ir.Model:
    """A residual block of a transformer's second half: products with and without a bias."""
    x = build.input(1, 6, 8)
    hidden = build.op("Relu", build.linear(x, 8, 20))
    x = build.op("Add", build.linear(hidden, 20, 8), x)
    hidden = build.op("Relu", build.op("MatMul", x, build.weight(8, 20)))
    return build.model(build.op("MatMul", hidden, build.weight(20, 8)))


@pytest.mark.parametrize("network", [residual_network, encoder])
def test_recovery_brings_the_outputs_nearer(network: object) -> None:
    build = Build()
    model = network(build)  # type: ignore[operator]
    made, feeds = planned(model, 0.4), samples(build)
    pruned, found = cut_and_recover(model, made, feeds)
    _, shifted = cut_and_recover(model, made, feeds, kind="bias")
    unseen = [{k: np.roll(v, 1, axis=-1) for k, v in feed.items()} for feed in feeds]
    cut, bias, least = (distance(model, m, unseen) for m in (pruned, shifted.model, found.model))
    assert least < bias < cut
    assert least < 0.5 * cut
    assert found.recovery.consumers > 0
    assert found.recovery.kind == "least-squares"


@pytest.mark.parametrize("network", [residual_network, encoder])
def test_nothing_cut_nothing_changed(network: object) -> None:
    build = Build()
    model = network(build)  # type: ignore[operator]
    made, feeds = planned(model, 0.0), samples(build, 8)
    _, found = cut_and_recover(model, made, feeds)
    assert found.recovery.consumers == found.recovery.rejected == 0
    assert distance(model, found.model, feeds) == 0.0


def test_twins_are_not_missed() -> None:
    """Half of the channels repeat the other half: the reader of both can do with one of each."""
    build = Build()
    hidden = build.op("Relu", build.conv(build.input(1, 3, 8, 8), 3, 8, 3))
    model = build.model(build.conv(hidden, 8, 4, 3))
    for value in list(model.graph[0].inputs[1:]):
        array = constant(value)
        assert array is not None
        assert value is not None
        # one twin is weaker, as a norm has it, and stands for the same channel
        set_initializer(value, np.concatenate([array[:4], array[:4] * np.float32(0.5)]))
    made, feeds = planned(model, 0.5), samples(build)
    pruned, found = cut_and_recover(model, made, feeds)
    assert distance(model, pruned, feeds) > 1e-2
    assert distance(model, found.model, feeds) < 1e-5


def test_only_initializers_change_and_shapes_stay() -> None:
    build = Build()
    model = residual_network(build)
    made, feeds = planned(model, 0.4), samples(build, 8)
    pruned, found = cut_and_recover(model, made, feeds)
    assert [(n.name, n.op_type, len(n.inputs)) for n in pruned.graph] == [
        (n.name, n.op_type, len(n.inputs)) for n in found.model.graph
    ]
    shapes = {name: list(value.shape or ()) for name, value in pruned.graph.initializers.items()}
    assert {name: list(value.shape or ()) for name, value in found.model.graph.initializers.items()} == shapes
    assert pruned.graph is not found.model.graph


def test_a_product_without_a_bias_gets_one_only_where_it_helps() -> None:
    build = Build()
    model = encoder(build)
    made, feeds = planned(model, 0.4), samples(build)
    pruned, found = cut_and_recover(model, made, feeds)
    assert [o.name for o in found.model.graph.outputs] == [o.name for o in model.graph.outputs]
    added = len(list(found.model.graph)) - len(list(pruned.graph))
    assert added == 2  # one is the output of the graph: it keeps its name
    _, same = cut_and_recover(model, planned(model, 0.0), feeds)
    assert len(list(same.model.graph)) == len(list(model.graph))


def test_weights_shared_by_two_layers_part() -> None:
    build = Build()
    x, weight = build.input(1, 8), build.weight(8, 8)
    first = build.op("Relu", build.op("MatMul", x, weight))
    model = build.model(build.op("MatMul", build.op("Relu", build.op("MatMul", first, weight)), build.weight(8, 3)))
    made, feeds = planned(model, 0.25), samples(build)
    pruned, found = cut_and_recover(model, made, feeds)
    assert distance(model, found.model, feeds) <= distance(model, pruned, feeds)


def test_a_cut_after_a_cut_is_recovered_from_the_first_model() -> None:
    build = Build()
    model = residual_network(build)
    feeds = samples(build)
    first = planned(model, 0.2)
    once = recover_model(model, cut_model(model, first.labels, first.cut), [first.cut], feeds).model
    second = planned(once, 0.2)
    twice = cut_model(once, second.labels, second.cut)
    cuts: list[Cut] = [first.cut, second.cut]
    found = recover_model(model, twice, cuts, feeds).model
    assert distance(model, found, feeds) < 0.7 * distance(model, twice, feeds)


def test_a_layer_too_wide_to_refit_is_named_scaled_and_shifted(monkeypatch: pytest.MonkeyPatch) -> None:
    build = Build()
    hidden = build.op("Relu", build.conv(build.input(1, 3, 8, 8), 3, 8, 3))
    model = build.model(build.op("Gemm", build.op("Flatten", hidden), build.weight(8 * 64, 5), build.weight(5)))
    made, feeds = planned(model, 0.5), samples(build)
    monkeypatch.setattr("onnxqp.recover.reconstruct.LARGEST", 50)
    pruned, found = cut_and_recover(model, made, feeds, kind="bias")
    assert found.left == (f"{model.graph[-1].name} has 256 inputs times taps, more than 50: scale and bias only",)
    before, after = (constant(graph[-1].inputs[1]) for graph in (pruned.graph, found.model.graph))
    assert before is not None
    assert after is not None
    ratio = after / before
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:1], ratio.shape), rtol=1e-3)
    unseen = samples(build, 80)[40:]
    assert distance(model, found.model, unseen) < 0.8 * distance(model, pruned, unseen)


def test_the_same_seed_gives_the_same_weights_and_any_budget_too() -> None:
    build = Build()
    model = residual_network(build)
    made, feeds = planned(model, 0.4), samples(build, 10)
    one, two = (cut_and_recover(model, made, feeds, seed=3, budget=budget)[1].model for budget in (2**30, 0))
    for name, value in one.graph.initializers.items():
        left, right = constant(value), constant(two.graph.initializers[name])
        assert left is not None
        assert right is not None
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)


def test_few_samples_are_split_by_rows() -> None:
    build = Build()
    model = residual_network(build)
    feeds = samples(build, 2)
    pruned, found = cut_and_recover(model, planned(model, 0.4), feeds)
    assert distance(model, found.model, feeds) < distance(model, pruned, feeds)


# ---- walking ---------------------------------------------------------------------------------------------------


def test_shortcuts_run_before_the_layers_that_they_are_added_to() -> None:
    build = Build()
    x = build.input(1, 4, 6, 6)
    branch = build.conv(x, 4, 4, 3)
    shortcut = build.op("Relu", x)  # written behind the layer, needed by its target
    model = build.model(build.op("Add", branch, shortcut))
    assert [node.op_type for node in early_order(model.graph)] == ["Relu", "Conv", "Add"]


@pytest.mark.parametrize("budget", [0, 2**30])
def test_pieces_compute_what_the_whole_computes(budget: int) -> None:
    build = Build()
    model = residual_network(build)
    feeds = samples(build, 3)
    values = [node.outputs[0] for node in model.graph]
    whole = Session(model, taps=[str(value.name) for value in values])
    walk = Walk(model, feeds, budget=budget)
    for node in walk.order:
        value = node.outputs[0]
        for feed, found in zip(feeds, walk.run(node, [value], through=True), strict=True):
            np.testing.assert_allclose(found[str(value.name)], whole.run(feed)[str(value.name)], atol=1e-5)
