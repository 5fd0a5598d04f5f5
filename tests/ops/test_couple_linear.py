"""Gemm, MatMul in 2-D, batched, between activations; Einsum; embeddings; attention as exporters write it."""

from __future__ import annotations

import numpy as np
import pytest
from prune_checks import Build, pinned, prunes


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm(transposed: int) -> None:
    b = Build()
    first = b.weight(*((8, 5) if transposed else (5, 8)))
    x = b.op("Gemm", b.input(3, 5, symbolic={0: "N"}), first, b.weight(8), transB=transposed)
    second = b.weight(*((4, 8) if transposed else (8, 4)))
    prunes(b, b.op("Gemm", b.op("Relu", x), second, b.weight(1, 4), transB=transposed), groups=[8])


def test_gemm_of_a_transposed_activation() -> None:
    b = Build()
    x = b.op("Gemm", b.input(3, 5), b.weight(5, 8))
    x = b.op("Gemm", b.op("Relu", x), b.weight(3, 6), transA=1)  # consumes the rows, keeps the channels
    prunes(b, b.op("Gemm", x, b.weight(8, 4), transA=1), groups=[8])


def test_weight_on_the_left() -> None:
    b = Build()
    x = b.op("MatMul", b.weight(8, 5), b.input(5, 3))
    prunes(b, b.op("MatMul", b.weight(4, 8), b.op("Relu", x)), groups=[8])


@pytest.mark.parametrize("shape", [(6, 5), (2, 6, 5), (2, 3, 6, 5)])
def test_matmul_ranks(shape: tuple[int, ...]) -> None:
    b = Build()
    x = b.op("Relu", b.linear(b.input(*shape, symbolic={0: "N"}), 5, 8))
    prunes(b, b.linear(x, 8, 4), groups=[8])


def test_matmul_with_a_vector() -> None:
    b = Build()
    x = b.op("Relu", b.linear(b.input(6, 5), 5, 8))
    prunes(b, b.op("MatMul", x, b.weight(8)), groups=[8])


def test_batched_weight() -> None:
    b = Build()
    x = b.op("MatMul", b.input(2, 3, 6, 5), b.weight(3, 5, 8))
    prunes(b, b.op("MatMul", b.op("Relu", x), b.weight(3, 8, 4)), groups=[8])


def test_product_of_two_activations() -> None:
    b = Build()
    x = b.input(2, 6, 5)
    left, right = b.linear(x, 5, 8), b.linear(x, 5, 8)
    product = b.op("MatMul", left, b.op("Transpose", right, perm=[0, 2, 1]))
    prunes(b, product, groups=[8])


def test_einsum() -> None:
    b = Build()
    x = b.op("Einsum", b.input(2, 6, 5), b.weight(5, 8), equation="nsk,kc->nsc")
    prunes(b, b.op("Einsum", b.op("Relu", x), b.weight(4, 8), equation="nsc,oc->nso"), groups=[8])


def test_einsum_along_a_diagonal_is_pinned() -> None:
    b = Build()
    x = b.linear(b.input(8, 5), 5, 8)
    assert "diagonal" in pinned(b, b.op("Einsum", x, equation="ii->i"))["MatMul0"]


def test_embedding_columns() -> None:
    b = Build()
    ids = b.input(name="ids", array=np.array([[1, 4, 2, 0]]))
    x = b.op("Gather", b.weight(7, 8), ids)
    x = b.op("Add", x, b.weight(1, 4, 8))
    result = prunes(b, b.linear(x, 8, 4), groups=[8])
    assert list(result.model.graph.initializers["c0"].shape) == [7, 4]


def attention(b: Build, x: str, width: int, heads: int, fused: bool = False) -> str:
    """Multi-head attention on x[N, S, width], split by Reshape and Transpose."""
    size = width // heads

    def split(y: str) -> str:
        shaped = b.op("Reshape", y, b.const([0, -1, heads, size]))
        return str(b.op("Transpose", shaped, perm=[0, 2, 1, 3]))

    if fused:
        shaped = b.op("Reshape", b.linear(x, width, 3 * width), b.const([0, -1, 3, heads, size]))
        turned = b.op("Transpose", shaped, perm=[2, 0, 3, 1, 4])
        q, k, v = (b.op("Gather", turned, b.const(n), axis=0) for n in range(3))
    else:
        q, k, v = (split(b.linear(x, width, width)) for _ in range(3))
    scores = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = b.op("Softmax", b.op("Div", scores, b.const(np.sqrt(size), np.float32)), axis=-1)
    joined = b.op("Transpose", b.op("MatMul", scores, v), perm=[0, 2, 1, 3])
    return b.linear(b.op("Reshape", joined, b.const([0, -1, width])), width, width)


@pytest.mark.parametrize("fused", [False, True])
def test_attention(fused: bool) -> None:
    b = Build()
    x = b.linear(b.input(2, 5, 6, symbolic={0: "N", 1: "S"}), 6, 16)
    x = b.op("Add", x, attention(b, x, 16, 4, fused))
    sizes = [16, 32] if fused else [16, 16, 16]  # one axis of size d serves q, k and v: they lose as many
    result = prunes(b, b.linear(x, 16, 3), groups=sizes, feeds=[{"x": b.feed["x"][:1, :3]}])
    assert sorted(group.after for group in result.pruning.groups) == [size // 2 for size in sizes]


def test_attention_in_one_block_after_another() -> None:
    b = Build()
    x = b.linear(b.input(1, 5, 6), 6, 12)
    for _ in range(2):
        x = b.op("Add", x, attention(b, x, 12, 3))
        x = b.op("Add", x, b.linear(b.op("Erf", b.linear(x, 12, 20)), 20, 12))
    prunes(b, b.linear(x, 12, 3), groups=[12, 12, 12, 20, 12, 12, 20])


def test_rotated_halves_of_heads() -> None:
    """Rotary position embedding: the two halves of a head are rotated into each other."""
    b = Build()
    x = b.input(2, 5, 6)

    def rotated(y: str) -> str:
        y = b.op("Transpose", b.op("Reshape", y, b.const([2, 5, 2, 8])), perm=[0, 2, 1, 3])
        first = b.op("Slice", y, b.const([0]), b.const([4]), b.const([3]))
        second = b.op("Slice", y, b.const([4]), b.const([8]), b.const([3]))
        turned = b.op("Concat", b.op("Neg", second), first, axis=3)
        return str(b.op("Add", b.op("Mul", y, b.weight(5, 8)), b.op("Mul", turned, b.weight(5, 8))))

    q, k = rotated(b.linear(x, 6, 16)), rotated(b.linear(x, 6, 16))
    prunes(b, b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2])))
