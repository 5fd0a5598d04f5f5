"""Budgets of parameters and time: the share that is kept is the one that was asked for."""

import numpy as np
import pytest
from prune_checks import Build

from onnxqp.errors import UsageError
from onnxqp.options import PruneOptions
from onnxqp.prune import plan, prune_model
from onnxqp.prune.budgets import count_macs, wall_clock


def layers(width=64, depth=3):
    b = Build()
    x = b.input(1, 3, 16, 16)
    size = 3
    for _ in range(depth):
        x, size = b.op("Relu", b.conv(x, size, width, 3)), width
    return b, b.model(b.conv(x, width, 4))


@pytest.mark.parametrize("wanted", [0.3, 0.6, 0.9])
def test_parameters_are_kept_as_asked(wanted):
    b, model = layers()
    result = prune_model(model, [b.feed], PruneOptions(params_ratio=wanted, round_to=1), step=1)
    assert result.pruning.params_ratio == pytest.approx(wanted, abs=0.03)


def test_macs_and_parameters_are_different_budgets():
    b, model = layers()
    by_macs = prune_model(model, [b.feed], PruneOptions(macs_ratio=0.5, round_to=1), step=1).pruning
    assert by_macs.macs_ratio == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("wanted", [0.35, 0.7])
def test_the_clock_is_believed(wanted):
    """With a clock that reads the square root of the multiply-accumulates, the cut has the square of the budget."""
    b, model = layers()
    whole = count_macs(model)
    asked = []

    def clock(pruned):
        asked.append(pruned)
        return float(np.sqrt(count_macs(pruned) / whole))

    done = prune_model(model, [b.feed], PruneOptions(latency_ratio=wanted, round_to=1), step=1, clock=clock)
    assert np.sqrt(done.pruning.macs_ratio) == pytest.approx(wanted, abs=0.05)
    assert 1 <= len(asked) <= 20


def test_time_without_a_clock_is_a_usage_error():
    _, model = layers()
    with pytest.raises(UsageError, match="--latency-ratio needs inputs"):
        plan(model, PruneOptions(latency_ratio=0.5), step=1)


def test_the_wall_clock_tells_a_small_model_from_a_large_one():
    b, model = layers(width=96)
    small = prune_model(model, [b.feed], PruneOptions(ratio=0.75), step=8).model
    clock = wall_clock(model, [b.feed])
    assert clock(small) < 0.8
    assert 0.5 < clock(model) < 2.0


@pytest.mark.parametrize("name", ["macs_ratio", "params_ratio", "latency_ratio"])
def test_shares_are_above_nothing_and_at_most_all(name):
    _, model = layers(depth=1)
    for share in (0.0, 1.5):
        with pytest.raises(UsageError, match="must lie above 0"):
            plan(model, PruneOptions(**{name: share}), step=1)


def side_branch():
    """Two wide layers and a narrow one that costs little."""
    b = Build()
    x = b.op("Relu", b.conv(b.input(1, 3, 16, 16), 3, 64, 3))
    x = b.op("Relu", b.conv(x, 64, 64, 3))
    y = b.op("Relu", b.conv(b.op("GlobalAveragePool", "x"), 3, 16))
    return b, b.model(b.conv(x, 64, 4), b.conv(y, 16, 4))


@pytest.mark.parametrize("felt", [False, True])
def test_a_cut_that_makes_nothing_faster_is_not_made(felt):
    """The clock sees the wide layers, and the narrow one only where it is `felt`."""
    _, model = side_branch()
    whole = count_macs(model)

    def clock(pruned):
        narrow = min(value.shape[1] for node in pruned.graph for value in node.outputs if node.op_type == "Relu")
        return count_macs(pruned) / whole + (0.001 * 16 * narrow if felt else 0.0)

    made = plan(model, PruneOptions(latency_ratio=0.5, round_to=1), step=1, clock=clock)
    left = {
        group.size: sum(len(bundle.classes) for bundle in bundles)
        for group, bundles in zip(made.grouping.groups, made.chosen, strict=True)
    }
    assert left[64] > 0
    assert (left[16] > 0) == felt
    assert made.removes
