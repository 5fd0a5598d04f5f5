"""Operators of onnxruntime's own, as it writes them into optimised models."""

from __future__ import annotations

import numpy as np
import pytest
from installed import RUNTIME
from prune_checks import Build, pinned, prunes

MS = "com.microsoft"


@pytest.mark.skipif(RUNTIME < (1, 27), reason="onnxruntime before 1.27 adds up blocked layouts of different sizes")
def test_fused_conv_with_a_summand_and_an_activation() -> None:
    b = Build()
    x = b.input(2, 3, 6, 6, symbolic={0: "N"})
    left = b.conv(x, 3, 8, 3)
    y = b.op("FusedConv", left, b.weight(8, 8, 3, 3), b.weight(8), left, domain=MS, pads=[1] * 4, activation="Relu")
    z = b.op("FusedConv", y, b.weight(8, 1, 3, 3), b.weight(8), domain=MS, pads=[1] * 4, activation="Relu", group=8)
    z = b.op("FusedConv", z, b.weight(12, 4, 1, 1), b.weight(12), domain=MS, activation="Relu", group=2)
    prunes(b, b.conv(z, 12, 4), groups=[8, 12])


def test_fused_gemm() -> None:
    b = Build()
    y = b.op("FusedGemm", b.input(3, 6), b.weight(10, 6), b.weight(10), domain=MS, transB=1, activation="Relu")
    prunes(b, b.op("Gemm", y, b.weight(10, 4)), groups=[10])


@pytest.mark.parametrize("flip", [0, 1])
def test_fused_matmul(flip: int) -> None:
    b = Build()
    x = b.linear(b.input(2, 5, 6, symbolic={0: "N", 1: "S"}), 6, 8)
    y = b.op("FusedMatMul", x, b.weight(*((10, 8) if flip else (8, 10))), domain=MS, transB=flip, alpha=0.5)
    scores = b.op("FusedMatMul", y, y, domain=MS, transB=1, alpha=0.3)
    mixed = b.op("FusedMatMul", scores, y, domain=MS, transA=1)
    prunes(b, b.linear(mixed, 10, 3), groups=[8, 10])


def test_a_product_that_transposes_batches_is_left_alone() -> None:
    b = Build()
    x = b.linear(b.input(5, 5, 6), 6, 8)
    y = b.op("FusedMatMul", x, b.weight(8, 8), domain=MS, transBatchA=1)
    assert "transposes its batches" in pinned(b, b.linear(y, 8, 3))["MatMul0"]


@pytest.mark.parametrize("kind", ["BiasGelu", "FastGelu"])
def test_gelus_with_a_bias(kind: str) -> None:
    b = Build()
    y = b.op("MatMul", b.input(2, 5, 6), b.weight(6, 12))
    prunes(b, b.linear(b.op(kind, y, b.weight(12), domain=MS), 12, 4), groups=[12])


@pytest.mark.parametrize("kind", ["Gelu", "QuickGelu"])
def test_gelus_without_one(kind: str) -> None:
    b = Build()
    y = b.linear(b.input(2, 5, 6), 6, 12)
    prunes(b, b.linear(b.op(kind, y, domain=MS), 12, 4), groups=[12])


def test_skip_layer_normalization() -> None:
    b = Build()
    x = b.linear(b.input(2, 5, 6, symbolic={0: "N", 1: "S"}), 6, 12)
    y = b.linear(b.op("Relu", b.linear(x, 12, 16)), 16, 12)
    made = b.op("SkipLayerNormalization", x, y, b.weight(12), b.weight(12), b.weight(12), count=4, domain=MS)
    z = b.op("Add", made[0], made[3])
    prunes(b, b.linear(z, 12, 4), groups=[12, 16])


def test_skip_simplified_layer_normalization() -> None:
    b = Build()
    x = b.linear(b.input(2, 5, 6), 6, 12)
    y = b.linear(b.op("Relu", b.linear(x, 12, 16)), 16, 12)
    z = b.op("SkipSimplifiedLayerNormalization", x, y, b.weight(12), domain=MS)
    prunes(b, b.linear(z, 12, 4), groups=[12, 16])


def embedded(b: Build, hidden: int = 12) -> str:
    ids = b.input(name="ids", array=np.array([[1, 4, 2, 6, 3], [5, 5, 0, 1, 2]], np.int32))
    tables = [b.weight(7, hidden), b.weight(8, hidden)]
    norm = [b.weight(hidden), b.weight(hidden)]
    x, _ = b.op("EmbedLayerNormalization", ids, "", *tables, "", *norm, count=2, domain=MS, epsilon=1e-5)
    return str(x)


def test_embedding_and_normalization_at_once() -> None:
    b = Build()
    prunes(b, b.linear(b.op("Relu", b.linear(embedded(b), 12, 16)), 16, 4), groups=[12, 16])


@pytest.mark.parametrize("sizes", [(12, 12, 12), (12, 12, 8)])
def test_attention(sizes: tuple[int, int, int]) -> None:
    b = Build()
    x = embedded(b)
    weights = [x, b.weight(12, sum(sizes)), b.weight(sum(sizes))]
    y = b.op("Attention", *weights, domain=MS, num_heads=2, qkv_hidden_sizes=sizes)
    y = b.linear(y, sizes[2], 12)
    z = b.op("SkipLayerNormalization", x, y, b.weight(12), b.weight(12), domain=MS)
    result = prunes(b, b.linear(z, 12, 4), groups=[12, sizes[0], sizes[2]])
    (node,) = (node for node in result.model.graph if node.op_type == "Attention")
    assert list(node.attributes["qkv_hidden_sizes"].as_ints()) == [size // 2 for size in sizes]
    np.testing.assert_allclose(node.attributes["scale"].as_float(), (sizes[0] // 2) ** -0.5)


def test_attention_with_a_mask_over_several_batches() -> None:
    b = Build()
    x = b.op("Relu", b.linear(b.input(2, 5, 6, symbolic={0: "N", 1: "S"}), 6, 12))
    mask = b.input(name="mask", array=np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32))
    y = b.op("Attention", x, b.weight(12, 24), b.weight(24), mask, domain=MS, num_heads=2)
    prunes(b, b.linear(y, 8, 4), groups=[12, 8, 8])


@pytest.mark.parametrize("bias", [True, False])
def test_multi_head_attention(bias: bool) -> None:
    b = Build()
    x = b.input(2, 5, 6, symbolic={0: "N", 1: "S"})
    q, k, v = (b.op("MatMul", x, b.weight(6, 12)) for _ in range(3))
    extra = [b.weight(36)] if bias else []
    y = b.op("MultiHeadAttention", q, k, v, *extra, domain=MS, num_heads=3)
    prunes(b, b.linear(y, 12, 4), groups=[12, 12], ratio=0.5)


def test_attention_with_a_past_is_left_alone() -> None:
    b = Build()
    x = b.input(2, 5, 6)
    past = [b.input(2, 3, 4, 4, name=name) for name in ("past_key", "past_value")]
    q, k, v = (b.op("MatMul", x, b.weight(6, 12)) for _ in range(3))
    made = b.op("MultiHeadAttention", q, k, v, "", "", "", *past, count=3, domain=MS, num_heads=3)
    reasons = pinned(b, b.linear(made[0], 12, 4), made[1], made[2])
    assert "of the past" in reasons["MatMul0"]


@pytest.mark.parametrize("shared", [1, 2, 4])
def test_attention_of_the_standard(shared: int) -> None:
    """Opset 23; several queries may share a head of keys and values."""
    b = Build(opset=23)
    x = b.input(2, 5, 6)
    q, k, v = (b.op("MatMul", x, b.weight(6, 4 * n)) for n in (4, shared, shared))
    y = b.op("Attention", q, k, v, q_num_heads=4, kv_num_heads=shared)
    prunes(b, b.linear(y, 16, 4), groups=[4 * shared, 4 * shared])


def test_attention_of_the_standard_over_split_heads() -> None:
    b = Build(opset=23)
    x = b.input(2, 5, 6)

    def heads(y: str) -> str:
        shaped = b.op("Reshape", y, b.const([0, 0, 3, 4]))
        return str(b.op("Transpose", shaped, perm=[0, 2, 1, 3]))

    q, k, v = (heads(b.op("MatMul", x, b.weight(6, 12))) for _ in range(3))
    y = b.op("Transpose", b.op("Attention", q, k, v), perm=[0, 2, 1, 3])
    prunes(b, b.linear(b.op("Reshape", y, b.const([0, 0, 12])), 12, 4), groups=[12, 12])


def test_channels_that_rotate_in_pairs_stay() -> None:
    b = Build()
    x = b.linear(b.input(2, 5, 6), 6, 8)
    positions = b.const([[0, 1, 2, 3, 4]] * 2)
    y = b.op("RotaryEmbedding", x, positions, b.weight(8, 4), b.weight(8, 4), domain=MS)
    assert "RotaryEmbedding mixes" in pinned(b, b.linear(y, 8, 3))["MatMul0"]


@pytest.mark.parametrize(("kind", "more"), [("BiasAdd", 2), ("BiasSplitGelu", 1), ("NhwcConv", 1)])
def test_what_has_no_kernel_on_the_cpu_stays(kind: str, more: int) -> None:
    b = Build()
    x = b.linear(b.input(2, 5, 6), 6, 12)
    y = b.op(kind, x, *(x if n else b.weight(12) for n in range(more)), domain=MS)
    assert "no kernel on the CPU" in pinned(b, y)["MatMul0"]
