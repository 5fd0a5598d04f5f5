"""Blocks that go as a whole: groups of convolutions and normalisations, and attention heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from prune_checks import Build, pinned, prunes

from onnxqp.graph import dims
from onnxqp.options import PruneOptions
from onnxqp.prune import PruneResult, plan, prune_model
from onnxqp.prune.pruning import Plan, attempt
from onnxqp.prune.select import choose
from onnxqp.prune.units import label_heads, label_units

MS = "com.microsoft"


def only(result: PruneResult, op_type: str) -> ir.Node:
    (node,) = (node for node in result.model.graph if node.op_type == op_type)
    return node


def test_groups_of_one_output_channel_go_as_a_whole() -> None:
    b = Build()
    x = b.conv(b.conv(b.input(2, 3, 4, 4, symbolic={0: "N"}), 3, 12), 12, 6, 3, group=6)
    result = prunes(b, b.conv(x, 6, 4), groups=[6])
    grouped = next(node for node in result.model.graph if node.attributes["group"].as_int() > 1)
    assert grouped.attributes["group"].as_int() == 3
    weight = grouped.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    assert list(weight.const_value.shape.numpy()) == [3, 2, 3, 3]


def test_groups_of_a_transposed_convolution_go_as_a_whole() -> None:
    b = Build()
    x = b.conv(b.input(2, 3, 4, 4), 3, 8)
    x = b.op("ConvTranspose", x, b.weight(8, 1, 2, 2), b.weight(4), group=4, strides=[2, 2])
    result = prunes(b, b.conv(x, 4, 3), groups=[4])
    assert only(result, "ConvTranspose").attributes["group"].as_int() == 2


def test_groups_of_convolutions_that_can_lose_channels_keep_their_number() -> None:
    b = Build()
    x = b.conv(b.conv(b.input(2, 3, 4, 4), 3, 12), 12, 8, group=4)
    result = prunes(b, b.conv(x, 8, 4), groups=[12, 8])
    assert {node.attributes["group"].as_int() for node in result.model.graph} == {1, 4}


@pytest.mark.parametrize(("opset", "count"), [(18, 3), (21, 6)])
def test_groups_of_a_normalisation_go_as_a_whole(opset: int, count: int) -> None:
    """Of two channels each, behind a convolution with one output channel for each of its own groups."""
    b = Build(opset=opset)
    x = b.conv(b.conv(b.input(2, 3, 4, 4), 3, 12), 12, 6, group=6)
    x = b.op("GroupNormalization", x, b.weight(count), b.weight(count), num_groups=3)
    model = b.model(b.conv(x, 6, 4))
    options = PruneOptions(ratio=0.5, round_to=1)
    assert [group.size for group in plan(model, options, step=1).grouping.groups] == [3]
    result = prune_model(model, [b.feed], options, step=1)
    assert not result.warnings
    node = only(result, "GroupNormalization")
    assert node.attributes["num_groups"].as_int() == 1
    assert dims(node.inputs[1]) == ((1,) if opset == 18 else (2,))


def attention(b: Build, x: str, width: int, heads: int, turn: Any) -> str:
    """As exporters write it; `turn` is what happens to queries and keys inside the heads."""
    q, k, v = (
        b.op("Transpose", b.op("Reshape", b.linear(x, width, width), b.const([0, 0, heads, -1])), perm=[0, 2, 1, 3])
        for _ in range(3)
    )
    q, k = turn(q), turn(k)
    scores = b.op("Softmax", b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
    y = b.op("Transpose", b.op("MatMul", scores, v), perm=[0, 2, 1, 3])
    return b.linear(b.op("Reshape", y, b.const([0, 0, width])), width, width)


def test_heads_go_as_a_whole_where_their_channels_rotate() -> None:
    """Angles that come from outside fix the channels of a head, not the number of heads."""
    b = Build()
    x = b.input(2, 5, 8, symbolic={0: "N", 1: "S"})
    cos, sin = (b.input(1, 1, 5, 4, name=name, symbolic={2: "S"}) for name in ("cos", "sin"))

    def turn(y: str) -> str:
        left = b.op("Slice", y, b.const([0]), b.const([2]), b.const([3]))
        right = b.op("Slice", y, b.const([2]), b.const([99]), b.const([3]))
        turned = b.op("Concat", b.op("Neg", right), left, axis=-1)
        return str(b.op("Add", b.op("Mul", y, cos), b.op("Mul", turned, sin)))

    y = attention(b, b.op("Add", b.linear(x, 8, 16), b.weight(16)), 16, 4, turn)
    result = prunes(b, b.linear(y, 16, 3), groups=[16, 16, 4], ratio=0.5)
    literals = [
        value.const_value.numpy().tolist()
        for node in result.model.graph
        if node.op_type == "Reshape" and (value := node.inputs[1]) is not None and value.const_value is not None
    ]
    assert literals[:3] == [[0, 0, 2, -1]] * 3


def test_heads_keep_their_number_where_their_channels_can_go() -> None:
    b = Build()
    y = attention(b, b.linear(b.input(2, 5, 8, symbolic={0: "N", 1: "S"}), 8, 16), 16, 4, lambda y: y)
    prunes(b, b.linear(y, 16, 3), groups=[16, 16, 16, 16])


def test_heads_of_group_query_attention_go_with_their_queries() -> None:
    """Two heads of queries share one of keys and values; the size of a head stays."""
    b = Build()
    x = b.input(1, 5, 6)
    q, k, v = (b.linear(x, 6, 16 * n) for n in (4, 2, 2))
    ends = [b.const([4], np.int32), b.const(5, np.int32)]
    y = b.op("GroupQueryAttention", q, k, v, "", "", *ends, count=3, domain=MS, num_heads=4, kv_num_heads=2)[0]
    result = prunes(b, b.linear(y, 64, 3), groups=[2])
    node = only(result, "GroupQueryAttention")
    assert [node.attributes[name].as_int() for name in ("num_heads", "kv_num_heads")] == [2, 1]


def whole(b: Build, y: str) -> PruneResult:
    """Proven with whole heads, where channels of heads could go as well."""
    model = b.model(y)
    options = PruneOptions(ratio=0.5, round_to=1)
    heads = label_heads(model.graph, options.selection, 1, label_units(model.graph, options.selection))
    assert heads is not None
    chosen = tuple(tuple(found) for found in choose(heads.grouping.groups, options, 1))
    made = Plan(model, heads.labels, heads.grouping, chosen, "l1")
    pruned, proof = attempt(made, range(len(chosen)), [b.feed])
    assert proof.checked, proof.skipped_reason
    assert (proof.max_abs_diff or 0.0) < 2e-5
    assert pruned is not None
    return PruneResult(pruned, made.describe(pruned, proof), (), made.cut)


@pytest.mark.parametrize("sizes", [(16, 16, 16), (16, 16, 8)])
def test_heads_of_attention_with_its_projections(sizes: tuple[int, int, int]) -> None:
    b = Build()
    x = b.op("Relu", b.linear(b.input(2, 5, 6), 6, 12))
    operands = [x, b.weight(12, sum(sizes)), b.weight(sum(sizes))]
    y = b.op("Attention", *operands, domain=MS, num_heads=4, qkv_hidden_sizes=sizes)
    node = only(whole(b, b.linear(y, sizes[2], 4)), "Attention")
    assert node.attributes["num_heads"].as_int() == 2
    assert list(node.attributes["qkv_hidden_sizes"].as_ints()) == [size // 2 for size in sizes]
    assert node.attributes["scale"].as_float() == pytest.approx(0.5)


def test_heads_of_multi_head_attention() -> None:
    b = Build()
    x = b.input(2, 5, 6, symbolic={0: "N", 1: "S"})
    q, k, v = (b.op("MatMul", x, b.weight(6, 12)) for _ in range(3))
    y = b.op("MultiHeadAttention", q, k, v, b.weight(36), domain=MS, num_heads=4)
    assert only(whole(b, b.linear(y, 12, 4)), "MultiHeadAttention").attributes["num_heads"].as_int() == 2


def test_heads_of_attention_of_the_standard() -> None:
    b = Build(opset=23)
    x = b.input(2, 5, 6)
    q, k, v = (b.op("MatMul", x, b.weight(6, 4 * n)) for n in (4, 2, 2))
    y = b.op("Attention", q, k, v, q_num_heads=4, kv_num_heads=2)
    node = only(whole(b, b.linear(y, 16, 4)), "Attention")
    assert [node.attributes[name].as_int() for name in ("q_num_heads", "kv_num_heads")] == [2, 1]


def test_what_attention_with_a_past_reads_can_go() -> None:
    b = Build()
    x = b.op("Relu", b.linear(b.input(1, 5, 6), 6, 12))
    past = b.input(2, 1, 3, 2, 4, name="past")
    y, present = b.op("Attention", x, b.weight(12, 36), b.weight(36), "", past, count=2, domain=MS, num_heads=3)
    out = [b.linear(b.op("Relu", b.linear(y, 12, 8)), 8, 4), present]
    result = prune_model(b.model(*out), [b.feed], PruneOptions(ratio=0.5, round_to=1), step=1)
    assert not result.warnings
    assert {group.before: group.after for group in result.pruning.groups} == {12: 6, 8: 4}
    assert "of the past" in pinned(b, *out)["Attention3"]
