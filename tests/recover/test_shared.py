"""Weights that several layers share: refitted for all of them, and still one in the file."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from prune_checks import Build
from test_reconstruct import cut_and_recover, distance, planned, samples

from onnxqp.graph import constant
from onnxqp.model import parameters


def pyramid(build: Build, *, read: bool = False) -> ir.Model:
    """Three levels under one head of two convolutions; `read`: something else reads the last weight, too."""
    first, bias, last = build.weight(16, 12, 3, 3), build.weight(16), build.weight(4, 16, 1, 1)
    outputs = []
    for number in range(3):
        level = build.op("Relu", build.conv(build.input(1, 3, 8, 8, name=f"x{number}"), 3, 12, 3))
        hidden = build.op("Relu", build.op("Conv", level, first, bias, pads=[1] * 4))
        outputs.append(build.op("Conv", hidden, last))
    if read:
        outputs.append(build.op("Mul", last, build.input(4, 16, 1, 1, name="z")))
    return build.model(*outputs)


def recurring(build: Build) -> ir.Model:
    """One block of a transformer's second half, three times over."""
    x, up, down = build.input(1, 6, 8), build.weight(8, 24), build.weight(24, 8)
    for _ in range(3):
        x = build.op("Add", x, build.op("MatMul", build.op("Relu", build.op("MatMul", x, up)), down))
    return build.model(build.op("MatMul", x, build.weight(8, 5)))


@pytest.mark.parametrize("network", [pyramid, recurring])
def test_a_shared_weight_stays_one_and_brings_the_outputs_nearer(network: object) -> None:
    build = Build()
    model = network(build)  # type: ignore[operator]
    made, feeds = planned(model, 0.4), samples(build)
    pruned, found = cut_and_recover(model, made, feeds)
    _, shifted = cut_and_recover(model, made, feeds, kind="bias")
    assert parameters(found.model) <= parameters(pruned) + 3 * (16 + 24 + 8)  # each reader has its own bias
    shared = [value for value in pruned.graph.initializers.values() if len(value.uses()) == 3 and len(value.shape) > 1]
    assert len(shared) == 2
    assert all(len(found.model.graph.initializers[value.name].uses()) == 3 for value in shared)
    assert found.recovery.consumers >= 3
    assert distance(model, found.model, feeds) < 0.8 * distance(model, shifted.model, feeds)
    assert distance(model, found.model, feeds) < 0.8 * distance(model, pruned, feeds)


def test_a_weight_that_something_else_reads_keeps_its_values() -> None:
    build = Build()
    model = pyramid(build, read=True)
    made, feeds = planned(model, 0.4), samples(build, 10)
    pruned, found = cut_and_recover(model, made, feeds)
    (last,) = (name for name, value in pruned.graph.initializers.items() if list(value.shape) == [4, 16, 1, 1])
    kept, same = (each.graph.initializers[last] for each in (pruned, found.model))
    assert np.array_equal(constant(kept), constant(same))
    assert len(same.uses()) == len(kept.uses()) == 4
    assert distance(model, found.model, feeds) < distance(model, pruned, feeds)
