"""Whole layers that go."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from prune_checks import Build

import onnxqp
from onnxqp.errors import UnsupportedError
from onnxqp.evaluate.noise import Reference
from onnxqp.model import to_bytes
from onnxqp.options import PruneOptions, Selection
from onnxqp.prune import drop_layers
from onnxqp.prune.dropping import find_layers
from onnxqp.recover import prune_and_recover
from onnxqp.recover.least_squares import Kind
from onnxqp.runtime import Session


def residual(scales: tuple[float, ...] = (1.0, 0.001, 0.5, 0.01)) -> tuple[ir.Model, Build]:
    """Residual blocks whose branches matter as `scales` have it."""
    build = Build()
    x = build.op("Relu", build.conv(build.input(1, 3, 8, 8, symbolic={0: "n"}), 3, 8, 3))
    for scale in scales:
        y = build.op("Relu", build.conv(x, 8, 16, 3))
        weight = build.const(scale * build.random.normal(size=(8, 16, 1, 1)), np.float32)
        x = build.op("Relu", build.op("Add", x, build.op("Conv", y, weight)))
    return build.model(build.op("Flatten", build.op("GlobalAveragePool", x))), build


def feeds_like(build: Build, count: int = 4) -> list[dict[str, np.ndarray]]:
    return [
        {k: build.random.normal(size=a.shape).astype(np.float32) for k, a in build.feed.items()} for _ in range(count)
    ]


def test_branches_are_found_with_what_computes_for_them() -> None:
    model, _ = residual()
    found = find_layers(model.graph)
    assert len(found) == 4
    assert all(len(layer.members) == 4 for layer in found)  # Conv, Relu, Conv, and the sum
    assert len({name for layer in found for name in layer.members}) == 16


def test_the_cheapest_go_first() -> None:
    model, build = residual()
    done = drop_layers(model, [build.feed], feeds_like(build), 2)
    assert [layer.id for layer in done.dropped] == [find_layers(model.graph)[n].id for n in (1, 3)]
    costs = [layer.cost for layer in done.dropped]
    assert costs == sorted(costs)
    assert done.pruning.proof is not None
    assert done.pruning.proof.checked
    assert len(done.model.graph) == len(model.graph) - 2 * 4
    assert done.pruning.macs_ratio is not None
    assert done.pruning.macs_ratio < 0.6
    session = Session(to_bytes(done.model))
    session.run({"x": np.zeros((3, 3, 8, 8), np.float32)})  # the batch stays open


def test_all_of_them_leave_the_stem() -> None:
    model, build = residual()
    done = drop_layers(model, [build.feed], feeds_like(build), 4)
    assert [node.op_type for node in done.model.graph if node.op_type in ("Conv", "Add")] == ["Conv"]
    with pytest.raises(UnsupportedError, match="5 layers cannot be dropped: 4 could go"):
        drop_layers(model, [build.feed], feeds_like(build), 5)


def test_a_share_and_an_exclusion() -> None:
    model, build = residual()
    done = drop_layers(model, [build.feed], feeds_like(build), 0.75)
    assert len(done.dropped) == 3
    first = find_layers(model.graph)[1].id
    kept = drop_layers(model, [build.feed], feeds_like(build), 1, selection=Selection(exclude=(first,)))
    assert kept.dropped[0].id != first


def test_layers_of_a_chain() -> None:
    build = Build()
    x = build.op("Relu", build.conv(build.input(1, 3, 8, 8), 3, 8, 3))
    for _ in range(2):
        x = build.op("Relu", build.conv(x, 8, 8, 3))
    x = build.op("Relu", build.conv(x, 8, 12, 3))
    model = build.model(build.op("GlobalAveragePool", x))
    found = find_layers(model.graph)
    assert [len(layer.members) for layer in found] == [2, 2]
    done = drop_layers(model, [build.feed], feeds_like(build), 2)
    assert sum(node.op_type == "Conv" for node in done.model.graph) == 2


def test_a_gate_is_no_branch_and_a_projection_no_shortcut() -> None:
    build = Build()
    x = build.op("Relu", build.conv(build.input(1, 3, 8, 8), 3, 8, 3))
    gated = build.op("Mul", x, build.op("Sigmoid", build.conv(x, 8, 8)))
    both = build.op("Add", build.conv(gated, 8, 12), build.conv(gated, 8, 12))
    model = build.model(build.op("GlobalAveragePool", both))
    assert [layer.members[0] for layer in find_layers(model.graph)] == ["Conv2"]  # alone in a chain of its own


def test_with_a_ratio_and_alone() -> None:
    model, build = residual()
    data = feeds_like(build, 10)
    alone = onnxqp.prune(model, options=PruneOptions(drop_layers=1), data=data).report.pruning
    assert alone is not None
    assert alone.dropped is not None
    assert len(alone.dropped) == 1
    assert alone.groups == []
    both = onnxqp.prune(model, options=PruneOptions(drop_layers=1, ratio=0.5), data=data).report.pruning
    assert both is not None
    assert both.dropped == alone.dropped
    assert both.channels_after < both.channels_before
    assert both.macs_ratio is not None
    assert alone.macs_ratio is not None
    assert both.macs_ratio < alone.macs_ratio
    zero = onnxqp.prune(model, options=PruneOptions(drop_layers=1, ratio=0.0), data=data).report.pruning
    assert zero is not None
    assert zero.dropped == alone.dropped


def test_what_is_left_is_recovered() -> None:
    """The layers behind a branch that is missed are refitted towards the model with it."""
    model, build = residual((1.0, 0.3, 0.5))
    samples, held = feeds_like(build, 40), feeds_like(build, 8)
    noise = []
    kinds: tuple[Kind | None, ...] = (None, "least-squares")
    for kind in kinds:
        done = prune_and_recover(model, samples[:2], samples, PruneOptions(drop_layers=1), kind=kind)
        noise.append(Reference(model, held).noise_of(done.model))
    assert done.pruning.recovery is not None
    assert done.pruning.recovery.consumers > 0
    assert noise[1] < 0.5 * noise[0]
