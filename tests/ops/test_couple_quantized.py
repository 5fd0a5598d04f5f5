"""Quantized models: integers, scales, zero points and biases are cut together, and scores are those of real weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from installed import RUNTIME
from onnx import TensorProto
from prune_checks import Build, pinned, prunes

from onnxqp.model import from_proto
from onnxqp.normalize import normalize
from onnxqp.options import PruneOptions, QuantizeOptions
from onnxqp.protos import to_proto
from onnxqp.prune import PruneResult, plan, prune_model
from onnxqp.quantize import quantize_model
from onnxqp.runtime import Session

MS = "com.microsoft"


def integers(b: Build, *shape: int, axis: int | None = 0, zeros: bool = False, unsigned: bool = False) -> list[str]:
    """int8 weights with their scales and zero points, for each index of `axis` or one for all."""
    count = 1 if axis is None else shape[axis]
    size = () if axis is None else (count,)
    scales = np.abs(b.random.normal(size=size)) / 200 + 0.005
    kind = np.uint8 if unsigned else np.int8
    low = 0 if unsigned else -100
    middle = b.random.integers(low + 90, low + 110, size=size) if zeros or unsigned else np.zeros(size)
    array = b.random.integers(low, low + 200, size=shape)
    return [b.const(array, kind), b.const(scales, np.float32), b.const(middle, kind)]


def dequantized(b: Build, *shape: int, axis: int | None = 0, zeros: bool = False) -> str:
    made: str = b.op("DequantizeLinear", *integers(b, *shape, axis=axis, zeros=zeros), axis=axis or 0)
    return made


def requantized(b: Build, x: str, scale: float = 0.05) -> str:
    operands = [b.const(scale, np.float32), b.const(128, np.uint8)]
    y: str = b.op("DequantizeLinear", b.op("QuantizeLinear", x, *operands), *operands)
    return y


def qdq_conv(
    b: Build, x: str, entering: int, leaving: int, kernel: int = 1, group: int = 1, axis: int | None = 0
) -> str:
    weight = dequantized(b, leaving, entering // group, kernel, kernel, axis=axis)
    bias = b.op(
        "DequantizeLinear",
        b.const(b.random.integers(-50, 50, leaving), np.int32),
        b.const(b.random.uniform(0.01, 0.02, leaving), np.float32),
        axis=0,
    )
    y: str = b.op("Conv", requantized(b, x), weight, bias, group=group, pads=[kernel // 2] * 4)
    return requantized(b, y)


def check(b: Build, *outputs: str, groups: list[int], steps: float = 1e-3) -> PruneResult:
    """As `prunes`, for graphs that round: exact up to `steps` of an output's range."""
    model = b.model(*outputs)
    made = plan(model, PruneOptions(ratio=0.5, round_to=1), step=1)
    assert sorted(group.size for group in made.grouping.groups) == sorted(groups)
    result = prune_model(model, [b.feed], PruneOptions(ratio=0.5, round_to=1), step=1)
    assert not result.warnings
    assert result.pruning.proof is not None
    assert result.pruning.proof.checked
    assert (result.pruning.proof.max_abs_diff or 0.0) < steps
    assert all(group.after < group.before for group in result.pruning.groups)
    return result


@pytest.mark.parametrize("axis", [0, None])
def test_qdq_convolutions(axis: int | None) -> None:
    b = Build()
    x = b.op("Relu", qdq_conv(b, b.input(2, 3, 6, 6, symbolic={0: "N"}), 3, 8, 3, axis=axis))
    result = check(b, qdq_conv(b, x, 8, 4, axis=axis), groups=[8])
    stored = {v.name: v.const_value.shape.numpy() for v in result.model.graph.initializers.values() if v.const_value}
    assert (4, 3, 3, 3) in stored.values()
    assert (4, 4, 1, 1) in stored.values()
    assert not any(8 in shape for shape in stored.values())


def test_qdq_grouped_depthwise_and_transposed() -> None:
    b = Build()
    x = qdq_conv(b, b.input(2, 3, 6, 6), 3, 8)
    x = qdq_conv(b, qdq_conv(b, x, 8, 8, 3, group=8), 8, 12, group=2)
    x = b.op("ConvTranspose", requantized(b, x), dequantized(b, 12, 3, 2, 2, axis=1), group=2, strides=[2, 2])
    check(b, b.conv(x, 6, 3), groups=[8, 12, 3])  # a scale stands for one channel of each group: these go together


def test_qdq_residual_and_per_tensor_activations() -> None:
    b = Build()
    x = qdq_conv(b, b.input(1, 3, 6, 6), 3, 8)
    y = qdq_conv(b, b.op("Relu", qdq_conv(b, x, 8, 6, 3)), 6, 8)
    check(b, qdq_conv(b, requantized(b, b.op("Add", x, y)), 8, 4), groups=[8, 6])


def test_qdq_products() -> None:
    b = Build()
    x = b.input(2, 5, 6, symbolic={0: "N", 1: "S"})
    y = b.op("MatMul", requantized(b, x), dequantized(b, 6, 16, axis=1))
    y = b.op("Relu", requantized(b, b.op("Add", y, b.weight(16))))
    check(b, b.op("MatMul", y, dequantized(b, 16, 4, axis=None)), groups=[16])


def test_qdq_gemm_with_a_transposed_weight() -> None:
    b = Build()
    y = b.op("Gemm", requantized(b, b.input(3, 6)), dequantized(b, 10, 6), b.weight(10), transB=1)
    check(b, b.op("Gemm", requantized(b, y), dequantized(b, 4, 10), transB=1), groups=[10])


def test_channels_of_an_activation_with_a_scale_each() -> None:
    b = Build()
    x = b.conv(b.input(1, 3, 4, 4), 3, 8)
    operands = [b.const(b.random.uniform(0.02, 0.05, 8), np.float32), b.const([120] * 8, np.uint8)]
    y = b.op("DequantizeLinear", b.op("QuantizeLinear", x, *operands, axis=1), *operands, axis=1)
    check(b, b.conv(y, 8, 4), groups=[8])


@pytest.mark.parametrize("zeros", [False, True])
def test_blocks_with_a_scale_each_go_as_a_whole(zeros: bool) -> None:
    """Sixteen features in blocks of six: the last one holds four."""
    b = Build(opset=21)
    x = b.linear(b.input(2, 6), 6, 16)
    operands = [b.const(b.random.integers(-99, 99, (16, 12)), np.int8)]
    operands.append(b.const(b.random.uniform(0.01, 0.02, (3, 12)), np.float32))
    operands += [b.const(b.random.integers(-9, 9, (3, 12)), np.int8)] if zeros else []
    y = b.op("MatMul", x, b.op("DequantizeLinear", *operands, axis=0, block_size=6))
    result = check(b, b.linear(y, 12, 3), groups=[3, 12])
    shapes = {tuple(v.const_value.shape.numpy()) for v in result.model.graph.initializers.values() if v.const_value}
    assert {(6, 6), (1, 6)} <= shapes or {(4, 6), (1, 6)} <= shapes


def at_rest(b: Build, *shape: int, axis: int = 0) -> str:
    """int8 that Cast and Mul rebuild: how weights are kept that no integer kernel reads."""
    spread = [size if n == axis else 1 for n, size in enumerate(shape)]
    weight = b.op("Cast", b.const(b.random.integers(-99, 99, shape), np.int8), to=TensorProto.FLOAT)
    made: str = b.op("Mul", weight, b.const(b.random.uniform(0.003, 0.006, spread), np.float32))
    return made


def test_weights_at_rest() -> None:
    b = Build()
    x = b.input(2, 3, 6, 6, symbolic={0: "N"})
    x = b.op("Relu", b.op("Conv", x, at_rest(b, 8, 3, 3, 3), b.weight(8), pads=[1] * 4))
    x = b.op("Conv", x, at_rest(b, 8, 1, 3, 3), group=8)
    x = b.op("Conv", x, at_rest(b, 12, 4, 1, 1), group=2)
    result = check(b, b.op("Conv", x, at_rest(b, 4, 12, 1, 1)), groups=[8, 12])
    sizes = [value.const_value.dtype.name for value in result.model.graph.initializers.values() if value.const_value]
    assert sizes.count("INT8") == 4
    assert result.pruning.params_ratio < 0.6


def test_recurrent_weights_at_rest() -> None:
    b = Build()
    x = b.op("Relu", b.linear(b.input(5, 2, 6), 6, 10))
    y, *_ = b.op("LSTM", x, at_rest(b, 1, 32, 10, axis=1), at_rest(b, 1, 32, 8, axis=1), count=3, hidden_size=8)
    check(b, b.linear(b.op("Squeeze", y, b.const([1])), 8, 4), groups=[10, 8])


def test_scores_are_those_of_the_real_weights() -> None:
    """Integers of one size with scales that differ: the channels of the smallest scales go."""
    b = Build()
    kept = np.array([1, 0, 1, 0, 1, 0, 0, 1], bool)
    scales = np.where(kept, 0.5, 0.01)
    weight = b.op(
        "DequantizeLinear",
        b.const(np.where(np.arange(24).reshape(8, 3, 1, 1) % 2, 90, 110), np.uint8),
        b.const(scales, np.float32),
        b.const([100] * 8, np.uint8),
        axis=0,
    )
    x = b.op("Conv", b.input(1, 3, 4, 4), weight)
    result = check(b, b.op("Conv", x, b.const(np.ones((2, 8, 1, 1)), np.float32)), groups=[8])
    found = [v.const_value.numpy() for v in result.model.graph.initializers.values() if v.const_value]
    left = next(array for array in found if array.shape == (4,) and array.dtype == np.float32)
    np.testing.assert_allclose(left, 0.5)


# ---- operators on integers ------------------------------------------------------------------------------------------


def quantize(b: Build, x: str, scale: float = 0.05, zero: int = 128) -> list[str]:
    operands = [b.const(scale, np.float32), b.const(zero, np.uint8)]
    return [b.op("QuantizeLinear", x, *operands), *operands]


def end(b: Build, x: list[str]) -> str:
    y: str = b.op("DequantizeLinear", *x)
    return y


def out(b: Build, scale: float = 0.1) -> list[str]:
    return [b.const(scale, np.float32), b.const(120, np.uint8)]


def qlinear_conv(
    b: Build, x: list[str], entering: int, leaving: int, kernel: int = 1, group: int = 1, axis: int | None = 0
) -> list[str]:
    weight = integers(b, leaving, entering // group, kernel, kernel, axis=axis)
    bias = b.const(b.random.integers(-500, 500, leaving), np.int32)
    result = out(b)
    y = b.op("QLinearConv", *x, *weight, *result, bias, group=group, pads=[kernel // 2] * 4)
    return [y, *result]


@pytest.mark.parametrize("axis", [0, None])
def test_qlinear_conv(axis: int | None) -> None:
    b = Build()
    x = qlinear_conv(b, quantize(b, b.input(2, 3, 6, 6, symbolic={0: "N"})), 3, 8, 3, axis=axis)
    x = qlinear_conv(b, qlinear_conv(b, x, 8, 8, 3, group=8, axis=axis), 8, 12, group=2, axis=axis)
    check(b, end(b, qlinear_conv(b, x, 12, 4, axis=axis)), groups=[8, 12])


@pytest.mark.skipif(RUNTIME < (1, 24), reason="this onnxruntime has no ConvInteger of int8 weights")
def test_conv_integer_with_zero_points() -> None:
    b = Build()
    x = quantize(b, b.input(1, 3, 5, 5))
    weight, _, zero = integers(b, 8, 3, 3, 3, axis=None, zeros=True)
    y = b.op("Cast", b.op("ConvInteger", x[0], weight, x[2], zero), to=TensorProto.FLOAT)
    y = quantize(b, y, scale=400.0)
    weight, _, zero = integers(b, 4, 8, 1, 1, axis=None, zeros=True)
    y = b.op("Cast", b.op("ConvInteger", y[0], weight, y[2], zero), to=TensorProto.FLOAT)
    check(b, y, groups=[8])


def test_qlinear_matmul_and_elementwise() -> None:
    b = Build()
    x, result = quantize(b, b.input(2, 5, 6)), out(b)
    y = [b.op("QLinearMatMul", *x, *integers(b, 6, 16, axis=1), *result), *result]
    z = [b.op("QLinearSigmoid", *y, *out(b, 1 / 200), domain=MS), *out(b, 1 / 200)]
    both = out(b, 0.2)
    y = [b.op("QLinearMul", *y, *z, *both, domain=MS), *both]
    y = [b.op("QLinearLeakyRelu", *y, *both, domain=MS, alpha=0.1), *both]
    last = out(b)
    check(b, end(b, [b.op("QLinearMatMul", *y, *integers(b, 16, 4, axis=None), *last), *last]), groups=[16])


def test_attention_scores_of_integers() -> None:
    """Both operands computed: what is removed is replaced by what stands for 0."""
    b = Build()
    x = quantize(b, b.input(2, 5, 6))
    q, k = ([b.op("QLinearMatMul", *x, *integers(b, 6, 8, axis=1), *(r := out(b))), *r] for _ in range(2))
    k = [b.op("Transpose", k[0], perm=[0, 2, 1]), *k[1:]]
    last = out(b, 0.5)
    check(b, end(b, [b.op("QLinearMatMul", *q, *k, *last), *last]), groups=[8])


@pytest.mark.parametrize("steps", ["MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"])
def test_dynamic_quantization(steps: str) -> None:
    b = Build()
    y = b.op("Relu", b.linear(b.input(2, 5, 6), 6, 16))
    weight, scale, zero = integers(b, 16, 4, axis=1 if steps != "MatMulInteger" else None, zeros=True)
    if steps == "DynamicQuantizeMatMul":
        check(b, b.op(steps, y, weight, scale, zero, b.weight(4), domain=MS), groups=[16], steps=2e-3)
        return
    q, s, z = b.op("DynamicQuantizeLinear", y, count=3)
    if steps == "MatMulInteger":
        product = b.op("Cast", b.op(steps, q, weight, z, zero), to=TensorProto.FLOAT)
        check(b, b.op("Mul", product, b.op("Mul", s, scale)), groups=[16])
    else:
        check(b, b.op(steps, q, weight, s, scale, z, zero, b.weight(4), domain=MS), groups=[16])


def test_qgemm() -> None:
    b = Build()
    x, result = quantize(b, b.input(3, 6)), out(b)
    bias = b.const(b.random.integers(-500, 500, 10), np.int32)
    y = b.op("QGemm", *x, *integers(b, 10, 6), bias, *result, domain=MS, transB=1)
    last = out(b)
    y = b.op("QGemm", y, *result, *integers(b, 4, 10, axis=None), "", *last, domain=MS, transB=1)
    check(b, end(b, [y, *last]), groups=[10])


def test_joined_pooled_and_added_integers() -> None:
    b = Build()
    x = quantize(b, b.input(1, 3, 6, 6))
    left, right = qlinear_conv(b, x, 3, 8), qlinear_conv(b, x, 3, 8)
    joint = out(b)
    added = [b.op("QLinearAdd", *left, *right, *joint, domain=MS), *joint]
    pooled = [b.op("QLinearAveragePool", *added, *joint, domain=MS, kernel_shape=[2, 2], strides=[2, 2]), *joint]
    other = qlinear_conv(b, pooled, 8, 6)
    both = [b.op("QLinearConcat", *joint, *pooled, *other, domain=MS, axis=1), *joint]
    mean = [b.op("QLinearGlobalAveragePool", *both, *joint, domain=MS, channels_last=0), *joint]
    check(b, end(b, qlinear_conv(b, mean, 14, 4)), groups=[8, 6])


@pytest.mark.parametrize("axis", [1, None])
def test_attention_on_integers(axis: int | None) -> None:
    b = Build()
    x = quantize(b, b.op("Relu", b.linear(b.input(2, 5, 6), 6, 12)))
    weight, scale, zero = integers(b, 12, 36, axis=axis, zeros=True)
    scales = [x[1], scale, "", x[2], zero]
    y = b.op("QAttention", x[0], weight, b.weight(36), *scales, domain=MS, num_heads=3)
    result = check(b, b.linear(y, 12, 4), groups=[12, 12])
    (node,) = (node for node in result.model.graph if node.op_type == "QAttention")
    assert node.attributes["num_heads"].as_int() == 3
    assert node.attributes["scale"].as_float() == pytest.approx(0.5)


def test_packed_weights_are_left_alone() -> None:
    b = Build()
    x = b.linear(b.input(2, 32), 32, 32)
    packed = b.const(b.random.integers(0, 255, (16, 1, 16)), np.uint8)
    y = b.op("MatMulNBits", x, packed, b.weight(16), domain=MS, K=32, N=16, bits=4, block_size=32)
    assert "packed" in pinned(b, b.linear(y, 16, 3))["MatMul0"]


# ---- what onnxqp quantizes itself ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outer", "inner"), [(32, 48), (64, 96)])  # the wide ones have scales in half precision
def test_a_model_that_was_quantized_here_is_pruned(outer: int, inner: int) -> None:
    b = Build()
    x = b.op("Relu", b.conv(b.input(4, 3, 16, 16, symbolic={0: "N"}), 3, outer, 3))
    x = b.op("Relu", b.op("Add", x, b.conv(b.op("Relu", b.conv(x, outer, inner, 3)), inner, outer)))
    proto = b.proto(b.linear(b.op("Flatten", b.op("GlobalAveragePool", x)), outer, 4))
    model = from_proto(proto)
    normalize(model)
    feeds: list[dict[str, Any]] = [{"x": b.random.normal(size=(1, 3, 16, 16)).astype(np.float32)} for _ in range(8)]
    done = quantize_model(model, feeds, QuantizeOptions(target="x64-avx2")).model
    assert any(value.dtype == ir.DataType.FLOAT16 for value in done.graph.initializers.values()) == (outer == 64)
    normalize(done)
    assert any(node.op_type == "DequantizeLinear" for node in done.graph)
    result = prune_model(done, [b.feed], PruneOptions(ratio=0.5, round_to=1), step=1)
    assert not result.warnings
    assert {group.before: group.after for group in result.pruning.groups} == {outer: outer // 2, inner: inner // 2}
    assert result.pruning.params_ratio < 0.4
    assert Session(result.model).run(b.feed)


def test_quantize_linear_before_the_weight_is_rebuilt_too() -> None:
    """Weights kept in float, quantized whenever the model runs."""
    b = Build()
    operands = [b.const(0.02, np.float32), b.const(0, np.int8)]
    weights = [
        b.op("DequantizeLinear", b.op("QuantizeLinear", b.weight(*shape), *operands), *operands)
        for shape in ((8, 3, 1, 1), (4, 8, 1, 1))
    ]
    x = b.op("Relu", b.op("Conv", b.input(1, 3, 4, 4), weights[0]))
    prunes(b, b.op("Conv", x, weights[1]), groups=[8])


def test_sources_are_cut_once_though_two_layers_read_them() -> None:
    b = Build()
    stored, scale, zero = integers(b, 8, 8, axis=None)
    x = b.linear(b.input(2, 6), 6, 8)
    for _ in range(2):
        x = b.op("Relu", b.op("MatMul", x, b.op("DequantizeLinear", stored, scale, zero)))
    check(b, b.linear(x, 8, 3), groups=[8])


def test_checker_has_no_complaint() -> None:
    b = Build()
    x = b.op("Relu", qdq_conv(b, b.input(2, 3, 6, 6), 3, 8, 3))
    result = check(b, qdq_conv(b, x, 8, 4), groups=[8])
    onnx.checker.check_model(to_proto(result.model), full_check=True)
