"""The target tables: how a CPU finds its own, what they say in words, and that they hold together."""

import pytest

from onnxqp.errors import UsageError
from onnxqp.ops import RULES
from onnxqp.targets import TARGETS, Work, describe, resolve


@pytest.mark.parametrize(
    ("features", "name"),
    [
        ({"avx2", "avx512f", "avx512_vnni"}, "x64-vnni"),
        ({"avx2", "avx_vnni"}, "x64-vnni"),
        ({"avx2", "fma"}, "x64-avx2"),
        ({"avx2", "avx512f"}, "x64-avx2"),
        ({"asimd", "asimddp", "i8mm"}, "arm64"),
        ({"sse4_1"}, "portable"),
        (set(), "portable"),
    ],
)
def test_auto_goes_by_the_features_of_the_cpu(features, name):
    assert resolve("auto", features).name == name
    assert resolve("arm64", features).name == "arm64"


def test_auto_without_features_is_this_cpu():
    assert resolve("auto").name in TARGETS


def test_an_unknown_target_lists_the_known_ones():
    with pytest.raises(UsageError) as caught:
        resolve("x64-avx3")
    assert "x64-avx2" in caught.value.hint


@pytest.mark.parametrize("target", TARGETS)
def test_a_table_contradicts_itself_nowhere(target):
    table = TARGETS[target]
    assert not set(table.kernels) & set(table.left_float)
    assert not set(table.kernels) & set(table.moves)
    assert table.channel_step in (8, 16)
    for kernel in table.kernels.values():
        assert kernel.fused
    assert not table.kernels["DepthwiseConv"].saturates
    assert table.kernels["Conv"].saturates == (target in ("x64-avx2", "portable"))


@pytest.mark.parametrize("target", TARGETS)
def test_every_operator_is_described(target):
    for op_type in RULES:
        assert describe(op_type, target)


def test_descriptions():
    assert describe("Conv", "x64-vnni") == "QLinearConv"
    assert describe("Add", "x64-vnni") == "QLinearAdd, where its inputs are integers already"
    assert describe("Transpose", "x64-vnni") == "moves integers"
    assert describe("MaxPool", "arm64") == "moves integers, after an integer kernel"
    assert describe("Resize", "x64-vnni") == "moves integers when nearest"
    assert describe("Clip", "portable") == "absorbed by the integer kernel before it"
    assert describe("Softmax", "x64-avx2").startswith("float: the integer Softmax is several times slower")
    assert describe("AveragePool", "arm64").startswith("QLinearConv as a depthwise convolution of ones, where")
    assert "of two activations only where it is measured" in describe("MatMul", "x64-vnni")
    assert describe("Where", "portable") == "QLinearWhere, where its inputs are integers already"
    assert "is a Mul" in describe("Div", "x64-avx2")
    assert "writes integers all the same" in describe("HardSwish", "x64-avx2")
    assert describe("ReduceMax", "x64-avx2") == "moves integers, after an integer kernel"
    assert describe("Tanh", "x64-avx2") == "float: no integer kernel"


def test_costs_grow_with_work_and_unaligned_channels_cost_more():
    conv = TARGETS["x64-vnni"].kernels["Conv"]
    small, large = (Work(n, n * 576, 64, 64) for n in (1000, 2000))
    assert conv.integer_ns(small) < conv.integer_ns(large) < conv.float_ns(large)
    odd = Work(1000, 576_000, 63, 64)
    assert conv.integer_ns(odd) > 2 * conv.integer_ns(small)
    stem = Work(1000, 27_000, 3, 64)
    assert conv.float_ns(stem) < conv.integer_ns(stem)
