"""Operators that look elements up, put them elsewhere, or choose them at run time."""

from __future__ import annotations

import numpy as np
import pytest
from installed import RUNTIME
from prune_checks import Build, pinned, prunes

from onnxqp.options import PruneOptions
from onnxqp.prune import prune_model


def image(b: Build, channels: int = 8) -> str:
    return b.conv(b.input(2, 3, 6, 6, symbolic={0: "N"}), 3, channels)


def test_gather_elements_passes_the_other_axes() -> None:
    b = Build()
    x = b.linear(b.input(2, 5, 6), 6, 8)
    _, order = b.op("TopK", x, b.const([3]), axis=1, count=2)
    y = b.op("GatherElements", x, order, axis=1)
    prunes(b, b.linear(y, 8, 3), groups=[8])


def test_gather_elements_along_the_channels() -> None:
    b = Build()
    x = b.linear(b.input(2, 5, 6), 6, 8)
    _, order = b.op("TopK", x, b.const([3]), axis=2, count=2)
    assert "mixes" in pinned(b, b.linear(b.op("GatherElements", x, order, axis=2), 3, 3))["MatMul0"]


def test_scatter_elements_passes_the_other_axes() -> None:
    b = Build()
    x = b.linear(b.input(2, 5, 6), 6, 8)
    largest, order = b.op("TopK", x, b.const([3]), axis=1, count=2)
    y = b.op("ScatterElements", b.op("Relu", x), order, b.op("Tanh", largest), axis=1)
    prunes(b, b.linear(y, 8, 3), groups=[8])


def test_gather_nd_passes_what_is_not_indexed() -> None:
    b = Build()
    x = b.linear(b.input(2, 5, 6), 6, 8)
    indices = b.input(name="indices", array=np.array([[0, 3], [1, 1], [0, 0]]))
    prunes(b, b.linear(b.op("GatherND", x, indices), 8, 3), groups=[8])


def test_scatter_nd_ties_what_is_not_indexed() -> None:
    b = Build()
    x = b.linear(b.input(2, 5, 6), 6, 8)
    indices = b.input(name="indices", array=np.array([[0, 3], [1, 1], [0, 0]]))
    y = b.op("ScatterND", x, indices, b.linear(b.input(3, 6, name="rows"), 6, 8))
    prunes(b, b.linear(y, 8, 3), groups=[8])


def test_scatter_nd_pins_what_is_indexed_together() -> None:
    b = Build()
    x = b.conv(b.input(2, 3, 6, 6), 3, 8)
    indices = b.const([[0, 3], [1, 1]])
    y = b.op("ScatterND", x, indices, b.weight(2, 6, 6))
    assert "mixes" in pinned(b, b.conv(y, 8, 4))["Conv0"]


def test_chosen_steps() -> None:
    b = Build()
    x = b.linear(b.input(2, 5, 6), 6, 8)
    choice = b.input(name="choice", array=np.array([True, False, True, True, False]))
    prunes(b, b.linear(b.op("Compress", x, choice, axis=1), 8, 3), groups=[8])


def test_one_hot_makes_an_axis_that_stays() -> None:
    b = Build()
    x = b.op("Cast", b.op("Abs", b.linear(b.input(2, 6), 6, 8)), to=7)
    y = b.op("OneHot", x, b.const(4), b.const([0, 1], np.float32), axis=-1)
    y = b.op("Transpose", b.linear(y, 4, 4), perm=[0, 2, 1])
    prunes(b, b.linear(y, 8, 3), groups=[8])


def test_reversed_sequences() -> None:
    b = Build()
    x = b.linear(b.input(5, 2, 6), 6, 8)
    prunes(b, b.linear(b.op("ReverseSequence", x, b.const([3, 5])), 8, 3), groups=[8])


def test_triangles_and_determinants_pass_what_is_before() -> None:
    b = Build()
    x = image(b)
    y = b.op("Det", b.op("Trilu", b.conv(x, 8, 6)))
    prunes(b, b.linear(y, 6, 3), groups=[8, 6])


@pytest.mark.parametrize("kind", ["NonZero", "Unique"])
def test_sizes_known_only_at_run_time(kind: str) -> None:
    b = Build()
    y = b.op(kind, image(b))
    assert "has no channels" in pinned(b, b.op("Cast", y, to=1))["Conv0"]


def test_regions_of_an_image() -> None:
    b = Build()
    regions = b.input(name="regions", array=np.array([[0, 0, 3, 3], [1, 1, 5, 5]], np.float32))
    y = b.op("RoiAlign", image(b), regions, b.const([0, 1]), output_height=2, output_width=2)
    prunes(b, b.conv(y, 8, 4), groups=[8])


def test_pixels_from_a_grid() -> None:
    b = Build()
    grid = b.input(name="grid", array=np.random.default_rng(1).uniform(-1, 1, (2, 4, 4, 2)).astype(np.float32))
    prunes(b, b.conv(b.op("GridSample", image(b), grid), 8, 4), groups=[8])


def test_where_pixels_come_from_is_not_cut() -> None:
    b = Build()
    x = image(b)
    grid = b.op("Transpose", b.op("Tanh", b.conv(x, 8, 2)), perm=[0, 2, 3, 1])
    y = b.conv(b.op("GridSample", x, grid), 8, 4)
    prunes(b, y, groups=[8])
    assert any("GridSample mixes the positions of this axis" in reason for reason in pinned(b, y).values())


@pytest.mark.skipif(RUNTIME < (1, 25), reason="this onnxruntime has no DeformConv")
def test_deformed_convolution() -> None:
    b = Build(opset=19)
    x = b.op("Relu", b.conv(b.input(2, 3, 6, 6), 3, 8))
    offset = b.input(2, 2 * 2 * 9, 6, 6, name="offset")
    y = b.op("DeformConv", x, b.weight(10, 8, 3, 3), offset, b.weight(10), pads=[1] * 4, offset_group=2)
    prunes(b, b.conv(y, 10, 4), groups=[8, 10])


def test_columns_to_image() -> None:
    b = Build(opset=18)
    x = b.op("Transpose", b.linear(b.input(2, 9, 6), 6, 16), perm=[0, 2, 1])
    y = b.op("Col2Im", x, b.const([6, 6]), b.const([2, 2]), strides=[2, 2])
    prunes(b, b.conv(y, 4, 3), groups=[4])


def test_unpooling_is_left_alone() -> None:
    b = Build()
    x, where = b.op("MaxPool", image(b), count=2, kernel_shape=[2, 2], strides=[2, 2])
    y = b.op("MaxUnpool", x, where, kernel_shape=[2, 2], strides=[2, 2])
    assert "count across channels" in pinned(b, b.conv(y, 8, 4))["Conv0"]


def test_one_scale_for_each_group_of_a_normalization() -> None:
    b = Build(opset=18)
    y = b.op("GroupNormalization", image(b, 12), b.weight(3), b.weight(3), num_groups=3)
    result = prune_model(b.model(b.conv(y, 12, 4)), [b.feed], PruneOptions(ratio=0.5, round_to=1), step=1)
    assert not result.warnings  # onnx's checker knows this form no more
    assert [(group.before, group.after) for group in result.pruning.groups] == [(12, 6)]


def test_an_ellipsis_in_an_einsum() -> None:
    b = Build()
    x = b.op("Einsum", b.input(2, 5, 6), b.weight(6, 8), equation="...i,ij->...j")
    prunes(b, b.op("Einsum", x, b.weight(8, 3), equation="...j,jk"), groups=[8])


def grid(*ranges: list[int]) -> np.ndarray:
    return np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1)


@pytest.mark.parametrize("places", [[2, 3, 4, 5], [7, 0, 4, 2]])
def test_channels_written_to_constant_places(places: list[int]) -> None:
    """x[:, places] = y, with indices for every element; what is written goes with the place that it is written to."""
    b = Build()
    x = b.conv(b.input(2, 3, 4, 4), 3, 8)
    y = b.conv(b.op("Relu", b.conv("x", 3, 6)), 6, 4, 3)
    indices = b.const(grid(list(range(2)), places, list(range(4)), list(range(4))))
    put = b.op("ScatterND", x, indices, b.op("Tanh", y))
    prunes(b, b.conv(put, 8, 3), groups=[4, 4, 6])


def test_rows_written_to_constant_places() -> None:
    """Indices of one axis alone; another axis has a fixed place."""
    b = Build()
    x = b.op("Transpose", b.linear(b.input(5, 6), 6, 8), perm=[1, 0])
    y = b.op("Transpose", b.linear(b.input(5, 6, name="y"), 6, 3), perm=[1, 0])
    put = b.op("ScatterND", x, b.const([[6], [1], [3]]), y)
    prunes(b, b.linear(b.op("Transpose", put, perm=[1, 0]), 8, 4), groups=[5, 3])


def test_places_that_are_added_to_stay() -> None:
    b = Build()
    x = b.op("Transpose", b.linear(b.input(5, 6), 6, 8), perm=[1, 0])
    y = b.op("Transpose", b.linear(b.input(5, 6, name="y"), 6, 3), perm=[1, 0])
    put = b.op("ScatterND", x, b.const([[6], [1], [3]]), y, reduction="add")
    assert "mixes the positions" in pinned(b, b.linear(b.op("Transpose", put, perm=[1, 0]), 8, 4))["MatMul0"]
