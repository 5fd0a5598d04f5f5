"""Heads, or channels of all heads: what costs less on samples goes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from prune_checks import Build

from onnxqp.options import PruneOptions
from onnxqp.prune import plan, prune_model

HEADS, WIDE = 4, 4


def attention(weak: np.ndarray) -> tuple[Build, str]:
    """Four heads of four channels; of queries, keys and values, those in `weak` are all but nothing."""
    b = Build()
    x, width = b.input(2, 5, 8, symbolic={0: "N", 1: "S"}), HEADS * WIDE
    factor = np.where(weak.reshape(-1), 1e-3, 1.0)

    def split(y: str) -> str:
        return str(b.op("Transpose", b.op("Reshape", y, b.const([0, 0, HEADS, WIDE])), perm=[0, 2, 1, 3]))

    q, k, v = (split(b.op("MatMul", x, b.const(b.random.normal(size=(8, width)) * factor, np.float32))) for _ in "qkv")
    scores = b.op("Softmax", b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
    y = b.op("Transpose", b.op("MatMul", scores, v), perm=[0, 2, 1, 3])
    return b, b.op("MatMul", b.op("Reshape", y, b.const([0, 0, width])), b.weight(width, 3))


def sizes(model: ir.Model) -> list[list[int]]:
    return [
        value.const_value.numpy().tolist()
        for node in model.graph
        if node.op_type == "Reshape" and (value := node.inputs[1]) is not None and value.const_value is not None
    ]


@pytest.mark.parametrize(("axis", "heads", "wide"), [(0, 2, 4), (1, 4, 2)])
def test_what_costs_less_goes(axis: int, heads: int, wide: int) -> None:
    weak = np.zeros((HEADS, WIDE), bool)
    np.moveaxis(weak, axis, 0)[1:3] = True
    b, y = attention(weak)
    model = b.model(y)
    options = PruneOptions(ratio=0.5, round_to=1)
    samples = [{"x": b.random.normal(size=(1, 5, 8)).astype(np.float32)} for _ in range(4)]
    result = prune_model(model, [b.feed], options, step=1, samples=samples)
    assert not result.warnings
    assert result.pruning.proof is not None
    assert result.pruning.proof.checked
    assert sizes(result.model)[:3] == [[0, 0, heads, wide]] * 3


def test_without_samples_heads_stay() -> None:
    weak = np.zeros((HEADS, WIDE), bool)
    weak[1:3] = True
    b, y = attention(weak)
    made = plan(b.model(y), PruneOptions(ratio=0.5, round_to=1), step=1)
    assert sorted(group.size for group in made.grouping.groups) == [HEADS * WIDE] * 2
