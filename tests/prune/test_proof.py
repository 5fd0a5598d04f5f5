"""The proof: what it compares, and what it catches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from prune_checks import Build

from onnxqp.axes import AxisLabels
from onnxqp.errors import DataError, UnsupportedError, UsageError
from onnxqp.ops import RULES
from onnxqp.options import PruneOptions, Selection
from onnxqp.prune import plan, prune_model
from onnxqp.prune.apply import cut_model
from onnxqp.prune.masked import mask_model
from onnxqp.prune.proof import prove, random_feeds, relative_difference
from onnxqp.runtime import Session


def two_branches(seed: int = 0) -> Build:
    b = Build(seed)
    x = b.input(2, 3, 6, 6)
    b.left = b.conv(b.op("Relu", b.conv(x, 3, 8, 3)), 8, 4)  # type: ignore[attr-defined]
    b.right = b.conv(b.op("Sigmoid", b.conv(x, 3, 8, 3)), 8, 4)  # type: ignore[attr-defined]
    return b


def outputs(b: Build) -> tuple[str, str]:
    return b.left, b.right  # type: ignore[attr-defined]


def test_difference_is_relative_to_the_range() -> None:
    expected = np.array([0.0, 5.0, 10.0], np.float32)
    assert relative_difference(expected, expected) == 0
    assert relative_difference(expected, np.array([0.0, 5.0, 10.1])) == pytest.approx(0.01)
    assert relative_difference(np.full(3, 2.0), np.full(3, 2.5)) == pytest.approx(0.25)
    assert relative_difference(np.zeros(0), np.zeros(0)) == 0


def test_difference_of_what_is_not_finite() -> None:
    expected = np.array([np.nan, np.inf, 1.0, 2.0])
    assert relative_difference(expected, expected.copy()) == 0
    assert relative_difference(expected, np.array([np.nan, -np.inf, 1.0, 2.0])) == np.inf
    assert relative_difference(np.array([1.0, 2.0]), np.array([1.0, np.nan])) == np.inf
    assert relative_difference(np.zeros(3), np.zeros(4)) == np.inf


def test_difference_of_integers_is_a_share() -> None:
    assert relative_difference(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 7])) == 0.25


def test_random_feeds_look_like_the_given_ones() -> None:
    feeds = [{"x": np.random.default_rng(1).normal(5, 2, (50, 50)).astype(np.float32), "ids": np.arange(7)}]
    made = random_feeds(feeds, seed=3)[0]
    assert made["x"].dtype == np.float32
    assert abs(made["x"].mean() - 5) < 0.2
    assert sorted(made["ids"]) == list(range(7))
    assert (random_feeds(feeds, seed=3)[0]["x"] == made["x"]).all()


def test_masked_model_keeps_its_shapes_and_differs_from_the_original() -> None:
    b = two_branches()
    model = b.model(*outputs(b))
    made = plan(model, PruneOptions(ratio=0.5), step=1)
    masked = mask_model(model, made.labels, made.cut)
    assert {n: list(v.shape) for n, v in masked.graph.initializers.items() if n in model.graph.initializers} == {
        n: list(v.shape) for n, v in model.graph.initializers.items()
    }
    original, found = Session(model).run(b.feed), Session(masked).run(b.feed)
    assert all(relative_difference(original[name], found[name]) > 0.01 for name in original)


def test_producers_are_never_zeroed() -> None:
    """A sigmoid of a zeroed channel is 0.5, which its reader would see: only the reader's weights are touched."""
    b = two_branches()
    model = b.model(*outputs(b))
    made = plan(model, PruneOptions(ratio=0.5), step=1)
    masked = mask_model(model, made.labels, made.cut)
    for name in ("c0", "c1", "c4", "c5"):
        before, after = (m.graph.initializers[name].const_value for m in (model, masked))
        assert before is not None
        assert after is not None
        assert (before.numpy() == after.numpy()).all()


def test_proof_tells_a_wrong_cut() -> None:
    b = two_branches()
    model = b.model(*outputs(b))
    made = plan(model, PruneOptions(ratio=0.5), step=1)
    pruned, masked = cut_model(model, made.labels, made.cut), mask_model(model, made.labels, made.cut)
    assert prove(masked, pruned, [b.feed]).checked
    weight = pruned.graph.initializers["c2"]
    assert weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy()[:, ::-1].copy(), name="c2")  # right shape, wrong order
    proof = prove(masked, pruned, [b.feed])
    assert not proof.checked
    assert proof.skipped_reason is not None
    assert "differ" in proof.skipped_reason


def wrong_sigmoid(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that is wrong: channels come out in reverse order, says Sigmoid."""
    rule = RULES["Sigmoid"]

    def couple(node: ir.Node, labels: AxisLabels) -> None:
        (family,) = labels.families(node.inputs[0])
        labels.give(node.outputs[0], [replace(family, labels=family.labels[::-1])])

    monkeypatch.setattr(rule, "couple", couple)


def test_a_wrong_rule_costs_its_group_only(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong_sigmoid(monkeypatch)
    b = two_branches()
    result = prune_model(b.model(*outputs(b)), [b.feed], PruneOptions(ratio=0.5), step=1)
    assert [group.id for group in result.pruning.groups] == ["Conv0"]
    assert {entry.id: entry.reason for entry in result.pruning.pinned}["Conv3"] == "pruned and masked disagree"
    assert result.pruning.proof is not None
    assert result.pruning.proof.checked
    (warning,) = result.warnings
    assert "'Conv3'" in warning


def test_a_model_that_no_longer_runs_is_bisected_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def couple(node: ir.Node, labels: AxisLabels) -> None:
        (family,) = labels.families(node.inputs[0])
        labels.give(node.outputs[0], [replace(family, labels=labels.fresh(*family.labels.shape))])

    monkeypatch.setattr(RULES["Sigmoid"], "couple", couple)
    b = two_branches()
    result = prune_model(b.model(*outputs(b)), [b.feed], PruneOptions(ratio=0.5), step=1)
    assert [group.id for group in result.pruning.groups] == ["Conv0"]
    assert result.warnings


def test_nothing_left_after_bisection(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong_sigmoid(monkeypatch)
    b = Build(seed=1)
    y = b.conv(b.op("Sigmoid", b.conv(b.input(1, 3, 6, 6), 3, 8)), 8, 4)
    with pytest.raises(UnsupportedError, match="pruned and masked disagree"):
        prune_model(b.model(y), [b.feed], PruneOptions(ratio=0.25), step=1)


def test_inputs_that_do_not_fit_are_not_the_prunings_fault() -> None:
    b = two_branches()
    wrong = {"x": np.zeros((2, 5, 6, 6), np.float32)}
    with pytest.raises(DataError):
        prune_model(b.model(*outputs(b)), [wrong], PruneOptions(ratio=0.5), step=1)


def test_nothing_is_proven_without_inputs() -> None:
    b = two_branches()
    with pytest.raises(DataError, match="no inputs"):
        prune_model(b.model(*outputs(b)), [], PruneOptions(ratio=0.5))


@pytest.mark.parametrize(
    "options",
    [
        PruneOptions(),
        PruneOptions(ratio=0.5, threshold=0.5),
        PruneOptions(ratio=1.0),
        PruneOptions(ratio=-0.1),
        PruneOptions(threshold=-1.0),
        PruneOptions(ratio=0.5, min_channels=0),
        PruneOptions(ratio=0.5, round_to=0),
    ],
)
def test_options_that_make_no_sense(options: PruneOptions) -> None:
    b = two_branches()
    with pytest.raises(UsageError) as caught:
        prune_model(b.model(*outputs(b)), [b.feed], options)
    assert caught.value.hint


def test_nothing_to_remove() -> None:
    b = two_branches()
    model = b.model(*outputs(b))
    with pytest.raises(UnsupportedError, match="removes nothing: 2 groups could be cut"):
        prune_model(model, [b.feed], PruneOptions(ratio=0.0))
    with pytest.raises(UnsupportedError, match=r"threshold 0\.01 removes nothing"):
        prune_model(model, [b.feed], PruneOptions(threshold=0.01))


def test_no_channel_can_be_cut() -> None:
    b = Build()
    y = b.conv(b.input(1, 3, 6, 6), 3, 8)
    with pytest.raises(UnsupportedError, match="no channel can be cut: graph output"):
        prune_model(b.model(y), [b.feed], PruneOptions(ratio=0.5))
    b = Build()
    y = b.op("Relu", b.input(1, 3))
    with pytest.raises(UnsupportedError, match="no weights to prune"):
        prune_model(b.model(y), [b.feed], PruneOptions(ratio=0.5))


def test_excluded_nodes_keep_their_channels() -> None:
    b = two_branches()
    model = b.model(*outputs(b))
    result = prune_model(model, [b.feed], PruneOptions(ratio=0.5, selection=Selection(exclude=("Conv0",))), step=1)
    assert [group.id for group in result.pruning.groups] == ["Conv3"]
    assert {entry.id: entry.reason for entry in result.pruning.pinned}["Conv0"].startswith(
        "excluded by --exclude Conv0"
    )
    result = prune_model(model, [b.feed], PruneOptions(ratio=0.5, selection=Selection(include=("Conv0",))), step=1)
    assert [group.id for group in result.pruning.groups] == ["Conv0"]
    with pytest.raises(UnsupportedError, match="--op-type"):
        prune_model(model, [b.feed], PruneOptions(ratio=0.5, selection=Selection(op_types=("Gemm",))), step=1)


def test_a_part_that_would_keep_nothing_is_spared() -> None:
    """Half of a Split is so weak that a threshold would take all of it."""
    b = Build()
    weight = b.random.normal(size=(8, 3, 1, 1)).astype(np.float32)
    weight[:4] *= 1e-4
    x = b.op("Conv", b.input(1, 3, 4, 4), b.const(weight, np.float32))
    left, right = b.op("Split", x, b.const([4, 4]), count=2, axis=1)
    total = b.op("Concat", b.op("Sigmoid", left), b.op("Tanh", right), axis=1)
    result = prune_model(b.model(b.conv(total, 8, 4)), [b.feed], PruneOptions(threshold=0.8, round_to=1), step=1)
    split = next(node for node in result.model.graph if node.op_type == "Split")
    assert all(size >= 1 for size in split.inputs[1].const_value.numpy())  # type: ignore[union-attr]


def test_the_original_is_left_alone() -> None:
    b = two_branches()
    model = b.model(*outputs(b))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    prune_model(model, [b.feed], PruneOptions(ratio=0.5), step=1)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_plan_is_a_report_without_cutting() -> None:
    b = two_branches()
    record = plan(b.model(*outputs(b)), PruneOptions(ratio=0.5), step=1).record
    assert [(group.before, group.after) for group in record.groups] == [(8, 4), (8, 4)]
    assert [entry.reason for entry in record.pinned] == ["graph output 'v2_0'", "graph output 'v5_0'"]
    assert record.proof is None
    assert plan(b.model(*outputs(b)), PruneOptions(ratio=0.0), step=1).record.channels_before == 16


def test_scores_prefer_weak_filters() -> None:
    b = Build()
    weight = b.random.normal(size=(8, 3, 1, 1)).astype(np.float32)
    weight[[1, 4]] *= 0.01
    x = b.op("Relu", b.op("Conv", b.input(1, 3, 4, 4), b.const(weight, np.float32)))
    made = plan(b.model(b.conv(x, 8, 4)), PruneOptions(ratio=0.25, round_to=1), step=1)
    gone = np.flatnonzero(~made.cut.masks("c0")[0][1])
    assert gone.tolist() == [1, 4]
