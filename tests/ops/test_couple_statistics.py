"""Normalisation, reductions, pools, resampling, Softmax: what is computed over many positions at once."""

from __future__ import annotations

import numpy as np
import pytest
from prune_checks import Build, pinned, prunes


def image(b: Build, channels: int = 8, size: int = 4) -> str:
    return b.op("Tanh", b.conv(b.input(2, 3, size, size), 3, channels))


# ---- normalisation


def test_batch_norm_that_nothing_absorbs() -> None:
    b = Build()
    x = b.op("BatchNormalization", image(b), *(b.weight(8, positive=True) for _ in range(4)))
    prunes(b, b.conv(b.op("Relu", x), 8, 4, 3), groups=[8])


def test_instance_norm() -> None:
    b = Build()
    x = b.op("InstanceNormalization", image(b), b.weight(8), b.weight(8))
    prunes(b, b.conv(x, 8, 4), groups=[8])


@pytest.mark.parametrize("op_type", ["LayerNormalization", "RMSNormalization"])
def test_layer_norm(op_type: str) -> None:
    b = Build(opset=23 if op_type == "RMSNormalization" else 17)
    x = b.linear(b.input(2, 5, 6, symbolic={0: "N"}), 6, 8)
    operands = [b.weight(8, positive=True), b.weight(8)] if op_type == "LayerNormalization" else [b.weight(8)]
    y = b.op(op_type, x, *operands, axis=-1)
    prunes(b, b.linear(b.op("Add", y, x), 8, 4), groups=[8], feeds=[{"x": b.feed["x"][:1]}])


def test_layer_norm_over_an_image() -> None:
    b = Build()
    x = b.op("LayerNormalization", image(b), b.weight(8, 4, 4), b.weight(8, 4, 4), axis=1)
    prunes(b, b.conv(x, 8, 4), groups=[8])


def test_layer_norm_within_heads() -> None:
    """Normalised queries: every head's positions are scaled by the same vector."""
    b = Build()
    y = b.op("Reshape", b.linear(b.input(2, 5, 6), 6, 32), b.const([2, 5, 4, 8]))
    y = b.op("LayerNormalization", y, b.weight(8), b.weight(8))
    prunes(b, b.linear(b.op("Reshape", y, b.const([2, 5, 32])), 32, 3), groups=[8])


def decomposed_norm(b: Build, x: str, axes: list[int], centred: bool = True) -> str:
    if centred:
        x = b.op("Sub", x, b.op("ReduceMean", x, axes=axes))
    variance = b.op("ReduceMean", b.op("Pow", x, b.const(2.0, np.float32)), axes=axes)
    return str(b.op("Div", x, b.op("Sqrt", b.op("Add", variance, b.const(1e-5, np.float32)))))


@pytest.mark.parametrize("centred", [True, False])
def test_layer_norm_by_hand(centred: bool) -> None:
    b = Build()
    x = b.linear(b.input(2, 5, 6, symbolic={0: "N", 1: "S"}), 6, 8)
    y = b.op("Add", b.op("Mul", decomposed_norm(b, x, [-1], centred), b.weight(8)), b.weight(8))
    prunes(b, b.linear(b.op("Add", y, x), 8, 4), groups=[8], feeds=[{"x": b.feed["x"][:1, :2]}])


def test_group_norm_by_instance_norm() -> None:
    """As PyTorch exports it: groups become channels, everything else becomes space."""
    b = Build()
    x = image(b, 16)
    y = b.op("Reshape", x, b.const([0, 4, -1]))
    y = b.op("InstanceNormalization", y, b.const(np.ones(4), np.float32), b.const(np.zeros(4), np.float32))
    y = b.op("Reshape", y, b.const([2, 16, 4, 4]))
    y = b.op("Add", b.op("Mul", y, b.weight(16, 1, 1)), b.weight(16, 1, 1))
    prunes(b, b.conv(y, 16, 4), groups=[16])


def test_group_norm_by_instance_norm_of_a_symbolic_batch() -> None:
    b = Build()
    x = b.op("Tanh", b.conv(b.input(2, 3, 4, 4, symbolic={0: "N"}), 3, 16))
    y = b.op("Reshape", x, b.const([0, 4, -1]))
    y = b.op("InstanceNormalization", y, b.const(np.ones(4), np.float32), b.const(np.zeros(4), np.float32))
    y = b.op("Reshape", y, b.const([-1, 16, 4, 4]))
    prunes(b, b.conv(y, 16, 4), groups=[16], feeds=[{"x": b.feed["x"][:1]}])


@pytest.mark.parametrize("back", ["Shape", "Concat"])
def test_group_norm_by_instance_norm_of_an_open_height_and_width(back: str) -> None:
    """Whole groups of four: which of its positions are whose cannot be told further."""
    b = Build()
    x = b.op("Tanh", b.conv(b.input(2, 3, 4, 4, symbolic={0: "N", 2: "H", 3: "W"}), 3, 16))
    y = b.op("Reshape", x, b.const([0, 4, -1]))
    y = b.op("InstanceNormalization", y, b.const(np.ones(4), np.float32), b.const(np.zeros(4), np.float32))
    sizes = b.op("Shape", x)
    if back == "Concat":
        first, last = (b.op("Gather", sizes, b.const(places)) for places in ([0], [2, 3]))
        sizes = b.op("Concat", first, b.const([16]), last, axis=0)
    y = b.op("Add", b.op("Mul", b.op("Reshape", y, sizes), b.weight(16, 1, 1)), b.weight(16, 1, 1))
    other = np.random.default_rng(4).normal(size=(1, 3, 6, 5)).astype(np.float32)
    result = prunes(b, b.conv(b.op("Add", x, y), 16, 4), groups=[4], feeds=[{"x": other}])
    assert result.pruning.params_ratio < 0.7


def test_group_norm() -> None:
    b = Build(opset=21)
    x = b.op("GroupNormalization", image(b, 16), b.weight(16), b.weight(16), num_groups=4)
    prunes(b, b.conv(x, 16, 4), groups=[16])


@pytest.mark.parametrize("op_type", ["LpNormalization", "MeanVarianceNormalization"])
def test_norms_without_weights(op_type: str) -> None:
    b = Build()
    attributes = {"axis": 1} if op_type == "LpNormalization" else {"axes": [0, 1, 2, 3]}
    prunes(b, b.conv(b.op(op_type, image(b), **attributes), 8, 4), groups=[8])


def test_local_response_norm_is_pinned() -> None:
    b = Build()
    assert "LRN mixes" in pinned(b, b.conv(b.op("LRN", image(b), size=3), 8, 4))["Conv0"]


# ---- reductions

_REDUCTIONS = [
    *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"),
    *("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"),
]


def reduce(b: Build, op_type: str, x: str, axes: list[int], keepdims: int = 1) -> str:
    if op_type == "ReduceSum":
        return str(b.op(op_type, x, b.const(axes), keepdims=keepdims))
    return str(b.op(op_type, x, axes=axes, keepdims=keepdims))


@pytest.mark.parametrize("op_type", _REDUCTIONS)
def test_reduction_over_channels(op_type: str) -> None:
    """Spatial attention (CBAM): the channels are summed up, and gate themselves."""
    b = Build()
    x = b.op("Exp", image(b))
    gate = b.op("Sigmoid", reduce(b, op_type, x, [1]))
    prunes(b, b.conv(b.op("Mul", x, gate), 8, 4), groups=[8])


@pytest.mark.parametrize("op_type", _REDUCTIONS)
def test_reduction_over_space(op_type: str) -> None:
    b = Build()
    x = reduce(b, op_type, b.op("Exp", image(b)), [2, 3], keepdims=0)
    prunes(b, b.linear(x, 8, 4), groups=[8])


def test_reduction_by_axes_operand() -> None:
    b = Build(opset=18)
    x = image(b)
    prunes(b, b.op("ReduceMean", x, b.const([1, -1])), b.op("ReduceMax", x), groups=[8])


def test_reduction_over_blocks_and_their_positions() -> None:
    for axes in ([2], [1], [1, 2]):
        b = Build()
        y = b.op("Reshape", b.linear(b.input(6, 5), 5, 32), b.const([6, 4, 8]))
        y = b.op("Sub", y, b.op("ReduceMean", y, axes=axes))
        prunes(b, b.linear(b.op("Reshape", y, b.const([6, 32])), 32, 3), groups=[8 if axes == [1] else 32])


@pytest.mark.parametrize("op_type", ["ArgMax", "ArgMin"])
def test_argmax(op_type: str) -> None:
    b = Build()
    x = image(b)
    assert f"{op_type} mixes" in pinned(b, b.op(op_type, x, axis=1))["Conv0"]
    b = Build()
    prunes(b, b.conv(b.op("Cast", b.op(op_type, image(b), axis=2), to=1), 8, 4), groups=[8])


def test_topk_and_cumsum() -> None:
    b = Build()
    values, _ = b.op("TopK", image(b), b.const([2]), count=2, axis=3)
    prunes(b, b.conv(b.op("CumSum", values, b.const(2)), 8, 4), groups=[8])
    b = Build()
    assert "CumSum mixes" in pinned(b, b.conv(b.op("CumSum", image(b), b.const(1)), 8, 4))["Conv0"]


# ---- pools and resampling


@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool", "LpPool"])
def test_pools(op_type: str) -> None:
    b = Build()
    x = b.op(op_type, image(b), kernel_shape=[2, 2], strides=[2, 2])
    prunes(b, b.conv(x, 8, 4), groups=[8])


@pytest.mark.parametrize("op_type", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
def test_global_pools(op_type: str) -> None:
    b = Build()
    x = b.op("Flatten", b.op(op_type, image(b)))
    prunes(b, b.op("Gemm", x, b.weight(8, 4)), groups=[8])


@pytest.mark.parametrize("op_type", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
def test_global_pools_over_channels(op_type: str) -> None:
    """Channels moved into space, then pooled away."""
    b = Build()
    x = b.op("Transpose", image(b), perm=[0, 2, 1, 3])
    prunes(b, b.conv(b.op(op_type, x), 4, 3), groups=[8])


def test_max_pool_indices_are_pinned() -> None:
    b = Build()
    values, indices = b.op("MaxPool", image(b), count=2, kernel_shape=[2, 2])
    reasons = pinned(b, b.conv(values, 8, 4), indices)
    assert "indices of MaxPool" in reasons["Conv0"]


def test_resize_by_scales_and_by_sizes() -> None:
    b = Build()
    x = b.op("Resize", image(b), "", b.const([1, 1, 2, 2], np.float32), mode="nearest")
    x = b.op("Resize", x, "", "", b.const([2, 8, 5, 5]), mode="linear")
    result = prunes(b, b.conv(x, 8, 4), groups=[8])
    resized = [node for node in result.model.graph if node.op_type == "Resize"][1]
    assert resized.inputs[3].const_value.numpy().tolist() == [2, 4, 5, 5]


def test_resize_to_the_size_of_another_tensor() -> None:
    b = Build()
    sides = {0: "N", 2: "H", 3: "W"}
    x = b.op("Tanh", b.conv(b.input(2, 3, 4, 4, symbolic=sides), 3, 8))
    small = b.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    wanted = b.op("Slice", b.op("Shape", x), b.const([2]), b.const([4]), b.const([0]))
    sizes = b.op(
        "Concat", b.op("Slice", b.op("Shape", small), b.const([0]), b.const([2]), b.const([0])), wanted, axis=0
    )
    x = b.op("Add", x, b.op("Resize", small, "", "", sizes, mode="nearest"))
    prunes(b, b.conv(x, 8, 4), groups=[8], feeds=[{"x": np.ones((1, 3, 6, 8), np.float32)}])


def test_resized_channels_are_pinned() -> None:
    b = Build()
    x = b.op("Resize", image(b), "", b.const([1, 2, 1, 1], np.float32), mode="nearest")
    assert "Resize mixes" in pinned(b, b.conv(x, 16, 4))["Conv0"]


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode: str) -> None:
    b = Build()
    x = b.op("DepthToSpace", image(b, 24), blocksize=2, mode=mode)
    prunes(b, b.conv(x, 6, 4), groups=[6])


def test_space_to_depth() -> None:
    b = Build()
    prunes(b, b.conv(b.op("SpaceToDepth", image(b), blocksize=2), 32, 4), groups=[8])


# ---- softmax


def test_softmax_over_space_passes_channels() -> None:
    b = Build()
    prunes(b, b.conv(b.op("Softmax", image(b), axis=-1), 8, 4), groups=[8])


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax", "Hardmax"])
def test_softmax_over_channels_is_pinned(op_type: str) -> None:
    b = Build()
    assert f"{op_type} mixes" in pinned(b, b.conv(b.op(op_type, image(b), axis=1), 8, 4))["Conv0"]


def test_softmax_over_heads_keeps_positions_alike() -> None:
    b = Build()
    y = b.op("Reshape", b.linear(b.input(2, 5, 6), 6, 32), b.const([2, 5, 4, 8]))
    y = b.op("Reshape", b.op("Softmax", y, axis=2), b.const([2, 5, 32]))
    prunes(b, b.linear(y, 32, 3), groups=[8])
