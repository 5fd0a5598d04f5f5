"""Operators that move elements: Reshape and its like, Concat, Split, Slice, Gather, Pad, Expand, Tile."""

from __future__ import annotations

import numpy as np
import pytest
from prune_checks import Build, pinned, prunes

from onnxqp.ops.reshaping import Segment, split_segments


def image(b: Build, channels: int = 8, size: int = 4) -> str:
    return b.op("Relu", b.conv(b.input(2, 3, size, size), 3, channels))


def node(result: object, name: str) -> object:
    return next(n for n in result.model.graph if n.name == name)  # type: ignore[attr-defined]


# ---- segments


def test_segments_of_equal_product() -> None:
    assert split_segments([2, 5, 24], [2, 5, 3, 2, 4]) == [
        Segment(range(1), range(1)),
        Segment(range(1, 2), range(1, 2)),
        Segment(range(2, 3), range(2, 5)),
    ]
    assert split_segments(["N", 8, "H"], ["N", 2, 4, "H"])[1] == Segment(range(1, 2), range(1, 3))
    assert split_segments(["a", 8, 4], ["b", 32])[1] == Segment(range(1, 3), range(1, 2))  # the only unknown


def test_segments_that_are_not_known() -> None:
    found = split_segments(["a", "b", 12, 32], ["c", "d", 384])
    assert found == [Segment(range(2), range(2), known=False), Segment(range(2, 4), range(2, 3))]


@pytest.mark.parametrize("merged", [4, 16])
def test_the_last_axis_behind_a_merge_with_the_batch(merged: int) -> None:
    """[S, N, 8] -> [S, N * 8 / d, d] and back: places tie over what merged, whatever the batch."""
    b = Build()
    x = b.linear(b.input(3, 4, 5, symbolic={1: "N"}), 5, 8)
    rows = b.op("Mul", b.op("Gather", b.op("Shape", x), b.const([1])), b.const([8]))
    shape = b.op("Concat", b.const([3]), b.op("Div", rows, b.const([merged])), b.const([merged]), axis=0)
    x = b.op("Transpose", b.op("Reshape", x, shape), perm=[1, 0, 2])
    x = b.op("Reshape", b.op("Relu", x), b.const([-1, 8]))
    feeds = [{"x": b.random.normal(size=(3, size, 5)).astype(np.float32)} for size in (2, 6)]
    prunes(b, b.linear(x, 8, 4), groups=[min(merged, 8)], feeds=feeds)


def test_a_last_axis_that_unknown_dimensions_spread() -> None:
    b = Build()
    x = b.linear(b.input(4, 3, 5, symbolic={0: "N", 1: "S"}), 5, 8)
    x = b.op("Reshape", x, b.const([0, -1, 6]))
    assert set(pinned(b, b.linear(x, 6, 4)).values()) >= {
        "reshaped to dimensions that are not known (Reshape 'Reshape2')"
    }


def test_multi_head_attention_with_heads_merged_into_the_batch() -> None:
    """`nn.MultiheadAttention` as exported: products of matrices over [N * heads, S, size]."""
    b = Build()
    x = b.input(3, 2, 8, symbolic={1: "N"})
    batch = b.op("Gather", b.op("Shape", x), b.const([1]))
    heads = b.op("Concat", b.const([3]), b.op("Mul", batch, b.const([2])), b.const([4]), axis=0)
    q, k, v = (b.op("Reshape", b.linear(x, 8, 8), heads) for _ in range(3))
    q, k, v = (b.op("Transpose", y, perm=perm) for y, perm in ((q, [1, 0, 2]), (k, [1, 2, 0]), (v, [1, 0, 2])))
    mixed = b.op("Transpose", b.op("MatMul", b.op("Softmax", b.op("MatMul", q, k)), v), perm=[1, 0, 2])
    whole = b.op("Concat", b.op("Mul", batch, b.const([3])), b.const([8]), axis=0)
    feeds = [{"x": b.random.normal(size=(3, 5, 8)).astype(np.float32)}]
    prunes(b, b.linear(b.op("Reshape", mixed, whole), 8, 6), groups=[4, 4], feeds=feeds)


# ---- reshape and friends


@pytest.mark.parametrize("literal", [[2, -1], [0, 128], [-1, 128], [0, -1]])
def test_flattening_repeats_labels_over_space(literal: list[int]) -> None:
    b = Build()
    x = b.op("Reshape", image(b), b.const(literal))
    prunes(b, b.linear(x, 128, 4), groups=[8])


@pytest.mark.parametrize("axis", [1, 2, -3])
def test_flatten(axis: int) -> None:
    b = Build()
    x = b.op("Flatten", image(b), axis=axis)
    if axis == 2:
        x = b.op("Transpose", b.op("Reshape", x, b.const([2, 8, 16])), perm=[0, 2, 1])
        prunes(b, b.linear(x, 8, 4), groups=[8])
    else:
        prunes(b, b.linear(x, 128, 4), groups=[8])


def test_channels_last_flattening() -> None:
    b = Build()
    x = b.op("Flatten", b.op("Transpose", image(b), perm=[0, 2, 3, 1]))
    prunes(b, b.linear(x, 128, 4), groups=[8])


def test_space_to_a_sequence() -> None:
    b = Build()
    x = b.op("Transpose", b.op("Reshape", image(b), b.const([0, 8, -1])), perm=[0, 2, 1])
    prunes(b, b.linear(x, 8, 4), groups=[8])


def test_linear_to_image() -> None:
    """`view(-1, C, 4, 4)` after a linear layer: a channel is a block of 16 columns."""
    b = Build()
    x = b.linear(b.input(2, 5, symbolic={0: "N"}), 5, 128)
    x = b.op("Reshape", x, b.const([-1, 8, 4, 4]))
    prunes(b, b.conv(x, 8, 4), groups=[8])


def test_a_shared_shape_literal_is_copied() -> None:
    b = Build()
    x = image(b)
    literal = b.const([2, 8, 16])
    left = b.op("Reshape", x, literal)
    right = b.op("Reshape", b.conv(b.input(2, 3, 4, 4, name="y"), 3, 8), literal)  # ends in an output: not cut
    prunes(b, b.linear(b.op("Transpose", left, perm=[0, 2, 1]), 8, 4), right, groups=[8])


def test_computed_shape_operand() -> None:
    """A channel count that is joined to a symbolic batch is a constant, and rewritten as one: no node more runs."""
    b = Build()
    x = b.op("Relu", b.conv(b.input(2, 3, 4, 4, symbolic={0: "N"}), 3, 8))
    batch = b.op("Gather", b.op("Shape", x), b.const([0]))
    shape = b.op("Concat", batch, b.const([8, 16]), axis=0)
    x = b.op("Transpose", b.op("Reshape", x, shape), perm=[0, 2, 1])
    result = prunes(b, b.linear(x, 8, 4), groups=[8], feeds=[{"x": b.feed["x"][:1]}])
    assert not any(n.op_type == "Where" for n in result.model.graph)


def test_a_joined_shape_of_two_readers() -> None:
    """One of them is not cut: the other gets a Concat of its own."""
    b = Build()
    x = b.op("Relu", b.conv(b.input(2, 3, 4, 4, symbolic={0: "N"}), 3, 8))
    shape = b.op("Concat", b.op("Gather", b.op("Shape", x), b.const([0])), b.const([8, 16]), axis=0)
    left = b.op("Transpose", b.op("Reshape", x, shape), perm=[0, 2, 1])
    right = b.op("Reshape", b.conv("x", 3, 8), shape)  # ends in an output
    result = prunes(b, b.linear(left, 8, 4), right, groups=[8], feeds=[{"x": b.feed["x"][:1]}])
    assert not any(n.op_type == "Where" for n in result.model.graph)


def test_a_shape_that_is_computed_as_a_whole() -> None:
    """Its channel count is replaced on the way."""
    b = Build()
    x = b.op("Relu", b.conv(b.input(2, 3, 4, 4, symbolic={0: "N"}), 3, 8))
    batch = b.op("Gather", b.op("Shape", x), b.const([0]))
    shape = b.op("Mul", b.op("Concat", batch, b.const([4, 8]), axis=0), b.const([1, 2, 2]))
    x = b.op("Transpose", b.op("Reshape", x, shape), perm=[0, 2, 1])
    result = prunes(b, b.linear(x, 8, 4), groups=[8], feeds=[{"x": b.feed["x"][:1]}])
    assert any(n.op_type == "Where" for n in result.model.graph)


def test_arithmetic_on_a_shape_keeps_its_numbers() -> None:
    """x / sqrt(C) with C read from the tensor's own shape: the cut must not change the divisor."""
    b = Build()
    x = b.op("Relu", b.conv(b.input(2, 3, 4, 4, symbolic={0: "N"}), 3, 8))
    sizes = b.op("Cast", b.op("Shape", x), to=1)
    share = b.op("ReduceProd", sizes, keepdims=0)  # N * C * H * W
    prunes(b, b.conv(b.op("Div", x, b.op("Sqrt", share)), 8, 4), groups=[8])


@pytest.mark.parametrize("groups", [2, 4])
def test_channel_shuffle(groups: int) -> None:
    b = Build()
    x = image(b, 16)
    x = b.op("Reshape", x, b.const([2, groups, 16 // groups, 4, 4]))
    x = b.op("Reshape", b.op("Transpose", x, perm=[0, 2, 1, 3, 4]), b.const([2, 16, 4, 4]))
    result = prunes(b, b.conv(x, 16, 5), groups=[16])
    assert result.pruning.groups[0].after == 8


def test_shuffled_grouped_convolutions() -> None:
    """ShuffleNet: the blocks of one grouped convolution lie across those of the next."""
    b = Build(seed=2)
    x = b.conv(image(b, 24), 24, 24, group=3)
    x = b.op("Reshape", x, b.const([2, 3, 8, 4, 4]))
    x = b.op("Reshape", b.op("Transpose", x, perm=[0, 2, 1, 3, 4]), b.const([2, 24, 4, 4]))
    x = b.conv(b.conv(x, 24, 24, 3, group=24), 24, 24, group=3)
    prunes(b, b.conv(x, 24, 4), groups=[24, 24, 24])


def test_shuffle_units_that_pass_half_on() -> None:
    """ShuffleNet V2, three units: half of the channels pass, the other half is convolved, then all are shuffled."""
    b = Build(seed=1)
    x = image(b, 16)
    for _ in range(3):
        passed, used = b.op("Split", x, b.const([8, 8]), count=2, axis=1)
        used = b.op("Relu", b.conv(b.op("Relu", b.conv(used, 8, 12)), 12, 8))
        x = b.op("Reshape", b.op("Concat", passed, used, axis=1), b.const([2, 2, 8, 4, 4]))
        x = b.op("Reshape", b.op("Transpose", x, perm=[0, 2, 1, 3, 4]), b.const([2, 16, 4, 4]))
    result = prunes(b, b.conv(x, 16, 4))
    sizes = {group.before: group.after for group in result.pruning.groups}
    assert sizes[12] == 6
    assert sum(group.after for group in result.pruning.groups) <= 0.6 * sum(g.before for g in result.pruning.groups)


def test_squeeze_and_unsqueeze() -> None:
    b = Build()
    x = b.op("GlobalAveragePool", image(b))
    x = b.op("Unsqueeze", b.op("Squeeze", x, b.const([2, 3])), b.const([0, -1]))
    prunes(b, b.linear(b.op("Squeeze", x), 8, 4), groups=[8])


def test_window_partition() -> None:
    """Swin: windows of the image become the batch, and back."""
    b = Build()
    x = b.op("Transpose", image(b), perm=[0, 2, 3, 1])
    x = b.op("Transpose", b.op("Reshape", x, b.const([2, 2, 2, 2, 2, 8])), perm=[0, 1, 3, 2, 4, 5])
    x = b.linear(b.op("Reshape", x, b.const([-1, 4, 8])), 8, 12)
    x = b.op("Transpose", b.op("Reshape", x, b.const([2, 2, 2, 2, 2, 12])), perm=[0, 1, 3, 2, 4, 5])
    prunes(b, b.linear(b.op("Reshape", x, b.const([2, 4, 4, 12])), 12, 5), groups=[8, 12])


def test_two_channel_axes_that_merge() -> None:
    b = Build()
    x = b.op("Transpose", b.linear(b.input(1, 6, 5), 5, 8), perm=[0, 2, 1])
    x = b.op("Reshape", b.linear(x, 6, 4), b.const([1, 32]))
    assert "merges with another channel axis" in " ".join(pinned(b, b.linear(x, 32, 3)).values())


# ---- concat, split, slice, gather


def test_concat_of_channels() -> None:
    b = Build()
    x = b.input(2, 3, 4, 4)
    joined = b.op("Concat", b.conv(x, 3, 8), b.op("Relu", b.conv(x, 3, 6)), axis=1)
    prunes(b, b.conv(joined, 14, 4), groups=[8, 6])


def test_concat_with_an_input() -> None:
    b = Build()
    x = b.input(2, 3, 4, 4)
    result = prunes(b, b.conv(b.op("Concat", x, b.conv(x, 3, 8), axis=1), 11, 4), groups=[8])
    assert list(node(result, "Conv2").inputs[1].shape)[1] == 3 + 4  # type: ignore[attr-defined]


def test_dense_connections() -> None:
    b = Build()
    x = image(b, 6)
    for n in range(3):
        x = b.op("Concat", x, b.op("Relu", b.conv(x, 6 + 4 * n, 4, 3)), axis=1)
    prunes(b, b.conv(x, 18, 4), groups=[6, 4, 4, 4])


def test_concat_along_another_axis_ties() -> None:
    """A class token: [1, 1, C] in front of the patches."""
    b = Build()
    x = b.linear(b.input(2, 5, 6), 6, 8)
    token = b.op("Expand", b.weight(1, 1, 8), b.const([2, 1, 1]))
    prunes(b, b.linear(b.op("Concat", token, x, axis=1), 8, 4), groups=[8])


def test_class_token_of_a_symbolic_batch() -> None:
    b = Build()
    x = b.linear(b.input(2, 5, 6, symbolic={0: "N"}), 6, 8)
    batch = b.op("Gather", b.op("Shape", x), b.const([0]))
    token = b.op("Expand", b.weight(1, 1, 8), b.op("Concat", batch, b.const([1, 8]), axis=0))
    joined = b.op("Concat", token, x, axis=1)
    prunes(b, b.linear(joined, 8, 4), groups=[8], feeds=[{"x": b.feed["x"][:1]}])


@pytest.mark.parametrize("sizes", [[4, 4], [3, 5], None])
def test_split(sizes: list[int] | None) -> None:
    b = Build()
    operands = [image(b), b.const(sizes)] if sizes else [image(b)]
    left, right = b.op("Split", *operands, count=2, axis=1)
    first, second = sizes or [4, 4]
    prunes(b, b.conv(left, first, 4), b.conv(right, second, 4), groups=[first, second])


def test_split_into_a_number_of_parts() -> None:
    b = Build(opset=18)
    parts = b.op("Split", image(b, 9), count=3, axis=1, num_outputs=3)
    prunes(b, *(b.conv(part, 3, 4) for part in parts), groups=[3, 3, 3])


def test_split_of_a_single_channel_pins_it() -> None:
    b = Build()
    left, right = b.op("Split", image(b), b.const([1, 7]), count=2, axis=1)
    assert "taken alone" in " ".join(pinned(b, b.conv(left, 1, 4), b.conv(right, 7, 4)).values())


@pytest.mark.parametrize("bounds", [(0, 4, 1), (2, 7, 1), (-3, 9999, 1), (0, 8, 2), (7, -9, -1), (6, 1, -2)])
def test_slice(bounds: tuple[int, int, int]) -> None:
    b = Build(seed=4)
    start, end, step = bounds
    x = image(b)
    part = b.op("Slice", x, b.const([start]), b.const([end]), b.const([1]), b.const([step]))
    width = len(np.arange(8)[start:end:step]) if (start, end) != (7, -9) else 8
    prunes(b, b.conv(part, width, 4), b.conv(x, 8, 4))


def test_slice_of_space_and_of_channels_at_once() -> None:
    b = Build()
    part = b.op("Slice", image(b), b.const([1, 2]), b.const([3, 8]), b.const([2, 1]))
    prunes(b, b.conv(part, 6, 4), groups=[6, 2])  # two channels are read by nobody


def test_focus_slices_of_space() -> None:
    """YOLOX Focus: every second pixel, four times, joined on the channels."""
    b = Build()
    x = image(b)
    parts = [
        b.op("Slice", x, b.const([row, column]), b.const([9, 9]), b.const([2, 3]), b.const([2, 2]))
        for row in (0, 1)
        for column in (0, 1)
    ]
    prunes(b, b.conv(b.op("Concat", *parts, axis=1), 32, 4), groups=[8])


@pytest.mark.parametrize("indices", [[7, 2, 5, 0, 1, 3, 4, 6], [0, 2, 4, 6], [1, 1, 3, 3, 5, 5], [-1, -2, -3, 0]])
def test_gather_of_channels(indices: list[int]) -> None:
    b = Build()
    x = image(b)
    prunes(b, b.conv(b.op("Gather", x, b.const(indices), axis=1), len(indices), 4), b.conv(x, 8, 4))


def test_gather_by_a_table() -> None:
    b = Build()
    x = b.op("Gather", b.linear(b.input(3, 5), 5, 8), b.const([[0, 2, 4, 6], [1, 3, 5, 7]]), axis=1)
    prunes(b, b.linear(x, 4, 3), groups=[4])


def test_gather_of_one_channel_pins_it() -> None:
    b = Build()
    x = image(b)
    one = b.op("Gather", x, b.const(3), axis=1)
    reasons = pinned(b, b.conv(x, 8, 4), one)
    assert "taken alone (Gather 'Gather2')" in reasons.values()


def test_gather_with_dynamic_indices_pins_the_axis() -> None:
    b = Build()
    chosen = b.input(name="chosen", array=np.array([1, 2]))
    reasons = pinned(b, b.conv(b.op("Gather", image(b), chosen, axis=1), 2, 4))
    assert "mixes the positions" in reasons["Conv0"]


# ---- pad, expand, tile


def test_padded_channels() -> None:
    """ResNet option A: a shortcut that strides in space and pads the channels with zeros."""
    b = Build()
    x = image(b, 8)
    short = b.op("Slice", x, b.const([0, 0]), b.const([4, 4]), b.const([2, 3]), b.const([2, 2]))
    short = b.op("Pad", short, b.const([0, 4, 0, 0, 0, 4, 0, 0]))
    x = b.op("Add", short, b.conv(x, 8, 16, 3, strides=[2, 2]))
    result = prunes(b, b.conv(b.op("Relu", x), 16, 4), groups=[8, 8])
    assert sum(group.after for group in result.pruning.groups) == 8


def test_padding_of_space_passes_channels() -> None:
    for mode in ("constant", "reflect", "edge"):
        b = Build()
        x = b.op("Pad", image(b), b.const([0, 0, 1, 1, 0, 0, 1, 1]), mode=mode)
        prunes(b, b.conv(x, 8, 4), groups=[8])


def test_padding_by_axes() -> None:
    b = Build(opset=18)
    x = b.op("Pad", image(b), b.const([2, 1, 2, 1]), "", b.const([1, 3]))
    prunes(b, b.conv(x, 12, 4), groups=[8, 4])  # the channels of padding can go too


def test_reflected_channels_are_pinned() -> None:
    b = Build()
    x = b.op("Pad", image(b), b.const([0, 1, 0, 0, 0, 1, 0, 0]), mode="reflect")
    assert "mixes the positions" in pinned(b, b.conv(x, 10, 4))["Conv0"]


def test_expand_of_key_heads() -> None:
    """Grouped-query attention: key heads are repeated by Unsqueeze, Expand, Reshape; the copies share labels."""
    b = Build()
    x = b.input(2, 5, 6)
    q = b.op("Transpose", b.op("Reshape", b.linear(x, 6, 32), b.const([2, 5, 4, 8])), perm=[0, 2, 1, 3])
    k = b.op("Transpose", b.op("Reshape", b.linear(x, 6, 16), b.const([2, 5, 2, 8])), perm=[0, 2, 3, 1])
    k = b.op("Expand", b.op("Unsqueeze", k, b.const([2])), b.const([2, 2, 2, 8, 5]))
    prunes(b, b.op("MatMul", q, b.op("Reshape", k, b.const([2, 4, 8, 5]))), groups=[16])


def test_expand_of_the_batch() -> None:
    b = Build()
    x = b.op("Expand", b.linear(b.input(1, 5, 6), 6, 8), b.const([3, 1, 8]))
    prunes(b, b.linear(x, 8, 4), groups=[8])


@pytest.mark.parametrize("repeats", [[1, 3, 1, 1], [1, 1, 2, 2]])
def test_tile(repeats: list[int]) -> None:
    b = Build()
    x = b.op("Tile", image(b), b.const(repeats))
    prunes(b, b.conv(x, 8 * repeats[1], 4), groups=[8])


def test_filled_tensor_of_a_computed_shape() -> None:
    b = Build()
    x = b.op("Relu", b.conv(b.input(2, 3, 4, 4, symbolic={0: "N"}), 3, 8))
    zeros = b.op("ConstantOfShape", b.op("Shape", x))
    joined = b.op("Concat", x, b.op("Add", zeros, b.conv("x", 3, 8)), axis=1)
    prunes(b, b.conv(joined, 16, 4), groups=[8, 8], feeds=[{"x": b.feed["x"][:1]}])


@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (1, 1, 8), (8, 1)])
def test_channels_gathered_into_a_new_shape(shape: tuple[int, ...]) -> None:
    """`as_strided`, as PyTorch's newer exporter writes views: the channels are not the last axis of the indices."""
    b = Build()
    rows = b.op("Relu", b.linear(b.input(1, 5), 5, 8))
    taken = b.op("Gather", b.op("Reshape", rows, b.const([8])), b.const(np.arange(8).reshape(shape)), axis=0)
    prunes(b, b.linear(b.op("Reshape", b.op("Relu", taken), b.const([1, -1])), 8, 4), groups=[8])
