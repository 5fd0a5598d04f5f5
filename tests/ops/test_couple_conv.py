"""Convolutions in all group forms."""

from __future__ import annotations

import pytest
from prune_checks import Build, pinned, prunes


def test_plain() -> None:
    b = Build()
    x = b.op("Relu", b.conv(b.input(2, 3, 6, 6), 3, 8, 3))
    result = prunes(b, b.conv(x, 8, 5), groups=[8])
    assert result.pruning.groups[0].members == ["Conv0", "Conv2"]
    assert (result.pruning.channels_before, result.pruning.channels_after) == (8, 4)


def test_free_axes_stay_free() -> None:
    b = Build()
    x = b.input(2, 3, 6, 6, symbolic={0: "N", 2: "H", 3: "W"})
    prunes(b, b.conv(b.op("Relu", b.conv(x, 3, 8, 3)), 8, 5), groups=[8], feeds=[{"x": b.feed["x"][:1, :, :4]}])


def test_residual_ties_both_branches() -> None:
    b = Build()
    x = b.conv(b.input(1, 3, 6, 6), 3, 8)
    y = b.conv(b.op("Relu", b.conv(x, 8, 6, 3)), 6, 8, 3)
    prunes(b, b.conv(b.op("Add", x, y), 8, 4), groups=[8, 6])


@pytest.mark.parametrize("multiplier", [1, 2, 3])
def test_depthwise(multiplier: int) -> None:
    b = Build()
    x = b.conv(b.input(2, 3, 6, 6), 3, 8)
    x = b.conv(b.op("Relu", x), 8, 8 * multiplier, 3, group=8)
    result = prunes(b, b.conv(b.op("Relu", x), 8 * multiplier, 4), groups=[8])
    depthwise = next(node for node in result.model.graph if node.name == "Conv2")
    assert depthwise.attributes["group"].as_int() == 4


@pytest.mark.parametrize("group", [2, 4])
def test_grouped(group: int) -> None:
    b = Build()
    x = b.conv(b.input(2, 3, 6, 6), 3, 16)
    x = b.conv(b.op("Relu", x), 16, 16, 3, group=group)
    result = prunes(b, b.conv(x, 16, 4), groups=[16, 16])
    grouped = next(node for node in result.model.graph if node.name == "Conv2")
    assert grouped.attributes["group"].as_int() == group
    assert list(grouped.inputs[1].shape) == [8, 8 // group, 3, 3]


def test_grouped_blocks_may_lose_different_positions() -> None:
    b = Build(seed=3)
    x = b.conv(b.input(1, 3, 6, 6), 3, 16)
    result = prunes(b, b.conv(b.conv(x, 16, 16, group=2), 16, 4), ratio=0.25)
    assert [group.after for group in result.pruning.groups] == [12, 12]


def test_groups_of_one_output_cannot_lose_it() -> None:
    b = Build()
    reasons = pinned(b, b.conv(b.conv(b.input(1, 16, 6, 6), 16, 4, group=4), 4, 4))
    assert reasons["Conv0"] == "every block must lose as many, and one cannot"


@pytest.mark.parametrize("group", [1, 2, 8])
def test_transposed(group: int) -> None:
    b = Build()
    x = b.conv(b.input(2, 3, 5, 5), 3, 8)
    weight = b.weight(8, 8 // group, 3, 3)
    x = b.op("ConvTranspose", x, weight, b.weight(8), group=group, strides=[2, 2])
    prunes(b, b.conv(b.op("Relu", x), 8, 4), groups=[8] if group == 8 else [8, 8])


def test_one_dimension_and_three() -> None:
    for space in ([9], [4, 5, 4]):
        b = Build()
        x = b.op("Conv", b.input(1, 3, *space), b.weight(8, 3, *[1] * len(space)))
        prunes(b, b.op("Conv", b.op("Relu", x), b.weight(4, 8, *[1] * len(space))), groups=[8])


def test_shared_weight_ties_its_readers() -> None:
    b = Build()
    x = b.conv(b.input(1, 3, 6, 6), 3, 8)
    shared = b.weight(8, 8, 1, 1)
    x = b.op("Conv", b.op("Relu", b.op("Conv", x, shared)), shared)
    prunes(b, b.conv(x, 8, 4), groups=[8])


def test_weight_that_is_computed_is_left_alone() -> None:
    b = Build()
    x = b.conv(b.input(1, 3, 6, 6), 3, 8)
    kernel = b.input(4, 8, 1, 1, name="kernel")
    assert "graph input 'kernel'" in pinned(b, b.op("Conv", x, kernel))["Conv0"]


def test_outputs_are_pinned() -> None:
    b = Build()
    x = b.conv(b.input(1, 3, 6, 6), 3, 8)
    assert pinned(b, x, b.conv(x, 8, 4)) == {"Conv0": "graph output 'v0_0'", "Conv1": "graph output 'v1_0'"}
