"""Attention in one operator: channels of queries and keys, and those of values, go in every head alike.

What is cut is the head dimension: as many channels in each head. Queries and keys lose the same ones, which their
product sums over; the scale of the scores stays what it was. Or whole heads are cut, and their number changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxqp.axes import AxisLabels, CannotCouple, Cut, Family, Labels, Name, Pin, Reduction, Scale, Zero
from onnxqp.graph import attribute_float, attribute_int, attribute_ints, dims, is_constant
from onnxqp.ops import quantizing
from onnxqp.ops.cost import dimension, element_count
from onnxqp.ops.join import channel_labels, dims_of, is_weight, join, rank_of, same_shape
from onnxqp.ops.operator import Operator
from onnxqp.specs import Role

PAST = "keys and values of the past come in or go out"


class FusedAttention(Operator):
    """Projections and attention at once: columns of queries and keys tie, those of values to the output."""

    op_types: ClassVar[tuple[str, ...]] = ("com.microsoft.Attention",)
    past: ClassVar[tuple[int, ...]] = (4, 6)  # inputs
    equal: ClassVar[bool] = False  # queries, keys and values are of one size, which no attribute tells apart

    def scale(self, node: ir.Node) -> Scale | None:
        """What a weight of integers stands for."""
        return None

    def zero(self, node: ir.Node) -> Zero | None:
        """What stands for 0 in it."""
        return None

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        data = node.inputs[0]
        weight, bias, heads = node.inputs[1], node.inputs[2], node.attributes["num_heads"].as_int()
        if data is None or weight is None or not is_constant(weight) or labels.families(weight):
            raise CannotCouple("an Attention with weights that are computed or shared")
        if bias is not None and (not is_constant(bias) or labels.families(bias)):
            raise CannotCouple("an Attention with a bias that is computed or shared")
        query, _, value = self._sizes(node)
        scored = labels.fresh(heads, query // heads)
        passed = labels.fresh(heads, value // heads)
        if self.equal:
            labels.tie(scored, passed)
        if has_past(node, self.past):
            labels.pin(np.concatenate([scored, passed], axis=1), node, PAST)
        elif attribute_int(node, "do_rotary", 0) and node.name not in labels.whole:
            labels.pin(scored, node, "channels that rotate in pairs")
        _split_heads(labels, node, scored, passed)
        columns = np.concatenate([scored.reshape(-1), scored.reshape(-1), passed.reshape(-1)])
        labels.attach(weight, Family((1,), columns))
        labels.consume(node, 1, 1, Reduction.SUM, self.zero(node))
        if bias is not None:
            labels.attach(bias, Family((0,), columns))
            labels.consume(node, 2, 0, Reduction.SUM)
        for axis in (0, 1):
            labels.freeze(data, axis, Pin(node.op_type, node.name or "", "Attention mixes the positions of this axis"))
        self._inputs(node, labels, weight)
        labels.weigh(node, 1, produced=1, consumed=0, scale=self.scale(node))
        labels.give(node.outputs[0], [Family((2,), passed.reshape(-1))])

    def _inputs(self, node: ir.Node, labels: AxisLabels, weight: ir.Value) -> None:
        """Features that are read tie with the rows of the weight."""
        data = node.inputs[0]
        entering = None if data is None else channel_labels(labels, data, 2)
        if data is None or entering is None:
            why = None if data is None else labels.why_free(data, 2)
            labels.freeze(weight, 0, why or Pin(node.op_type, node.name or "", "meets features that are not cut"))
            return
        labels.attach(weight, Family((0,), entering))
        labels.consume(node, 1, 0, Reduction.SUM, self.zero(node))

    def _sizes(self, node: ir.Node) -> tuple[int, int, int]:
        given = attribute_ints(node, "qkv_hidden_sizes")
        if given:
            return given[0], given[1], given[2]
        each = dimension(node.inputs[1], 1) // 3
        return each, each, each

    def resize(self, node: ir.Node, cut: Cut) -> None:
        entry = cut.mask(node.inputs[1], 1)
        if entry is None:
            return
        query, key, value = self._sizes(node)
        heads = node.attributes["num_heads"].as_int()
        _keep_scale(node, query // heads)
        kept = entry[1]
        if cut.whole(node):
            left = int(kept[: query : query // heads].sum())
            node.attributes["num_heads"] = ir.AttrInt64("num_heads", left)
        sizes = [int(part.sum()) for part in np.split(kept, [query, query + key])]
        if not self.equal:
            node.attributes["qkv_hidden_sizes"] = ir.AttrInt64s("qkv_hidden_sizes", sizes)
        assert sum(sizes) == int(kept[: query + key + value].sum())

    def infer(self, node: ir.Node) -> Sequence[int | str | None] | None:
        shape = same_shape(node)
        return None if shape is None or dims(node.inputs[1]) is None else [*shape[:2], self._sizes(node)[2]]

    def macs(self, node: ir.Node) -> int:
        query, _, value = self._sizes(node)
        tokens = element_count(node.inputs[0]) // max(dimension(node.inputs[0], 2), 1)
        steps = dimension(node.inputs[0], 1)
        return tokens * dimension(node.inputs[0], 2) * dimension(node.inputs[1], 1) + tokens * steps * (query + value)

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class MultiHeadAttention(Operator):
    """Channels of queries and keys tie head by head, those of values to the output; as many are kept in each head."""

    op_types: ClassVar[tuple[str, ...]] = ("com.microsoft.MultiHeadAttention", "Attention")

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        if has_past(node, (6, 7, 8, 9) if node.domain else (4, 5)):
            raise CannotCouple(PAST)
        if len(node.inputs) < 3 or None in node.inputs[:3]:
            raise CannotCouple("queries, keys and values packed in one")
        ranks = {rank_of(value) for value in node.inputs[:3]}
        if ranks == {4} and not node.domain:
            self._couple_split(node, labels)
            return
        if ranks != {3}:
            raise CannotCouple("queries, keys or values of several ranks")
        for index in range(3):
            for axis in (0, 1):
                pin = Pin(node.op_type, node.name or "", f"{node.op_type} mixes the positions of this axis")
                labels.freeze(_operand(node, index), axis, pin)
        query, key, value = (self._channels(node, labels, index) for index in range(3))
        heads, shared = _heads(node)
        groups = heads // shared
        rows = key.reshape(shared, 1, -1)
        labels.tie(np.broadcast_to(rows, (shared, groups, rows.shape[2])), query.reshape(shared, groups, -1))
        _split_heads(labels, node, key.reshape(shared, -1), value.reshape(shared, -1))
        labels.consume(node, 0, 2, Reduction.SUM)
        self._bias(node, labels, np.concatenate([query, key, value]))
        given = value.reshape(shared, 1, -1)
        leaving = np.broadcast_to(given, (shared, groups, given.shape[2]))
        labels.give(node.outputs[0], [Family((2,), leaving.reshape(-1))])

    def _couple_split(self, node: ir.Node, labels: AxisLabels) -> None:
        """[batch, heads, steps, channels]: a product of products."""
        query, key = dims_of(node.inputs[0]), dims_of(node.inputs[1])
        head = "head" if query[1] == key[1] else None
        names: dict[int, Sequence[Name | None]] = {
            0: ("batch", head, None, "score"),
            1: ("batch", head, None, "score"),
            2: ("batch", head, None, "value"),
        }
        join(labels, node, names, {0: ("batch", head, None, "value")})

    def _channels(self, node: ir.Node, labels: AxisLabels, index: int) -> Labels:
        """The labels of an operand's channels; fresh ones, pinned, where it is not cut."""
        value = _operand(node, index)
        found = channel_labels(labels, value, 2)
        if found is not None:
            return found
        size = dims_of(value)[2]
        if size is None:
            raise CannotCouple("an unknown number of channels")
        made = labels.fresh(size)
        why = labels.why_free(value, 2)
        labels.pin_because(made, why or Pin(node.op_type, node.name or "", f"meets '{value.name}', which is not cut"))
        return made

    def _bias(self, node: ir.Node, labels: AxisLabels, channels: Labels) -> None:
        bias = node.inputs[3] if len(node.inputs) > 3 and node.domain else None
        if bias is None:
            return
        if not is_weight(labels, bias) or labels.families(bias):
            labels.pin(channels, node, "meets a bias that is computed or shared")
            return
        labels.attach(bias, Family((0,), channels))
        labels.consume(node, 3, 0, Reduction.SUM)

    def resize(self, node: ir.Node, cut: Cut) -> None:
        shape = dims_of(node.inputs[0])
        size = shape[-1] or 0
        if cut.size(node.inputs[0], len(shape) - 1) is not None:
            _keep_scale(node, size if len(shape) == 4 else size // _heads(node)[0])
        if len(shape) == 3 and cut.whole(node):
            keep_heads(node, cut, 0, 1)

    def infer(self, node: ir.Node) -> Sequence[int | str | None] | None:
        shape, value = same_shape(node), dims(node.inputs[2]) if len(node.inputs) > 2 else None
        return None if shape is None or value is None or not len(shape) == len(value) == 3 else [*shape[:2], value[2]]

    def macs(self, node: ir.Node) -> int:
        steps = dimension(node.inputs[1], -2)
        return (element_count(node.inputs[0]) + element_count(node.outputs[0])) * steps

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class GroupQueryAttention(Operator):
    """A head of keys and values goes with its queries, as a whole; pinned where those of the past come in or go out."""

    op_types: ClassVar[tuple[str, ...]] = ("com.microsoft.GroupQueryAttention",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        if has_past(node, (3, 4)):
            raise CannotCouple(PAST)
        if node.inputs[1] is None or any(value is not None for value in node.inputs[10:]):
            raise CannotCouple("queries, keys and values packed in one, or with numbers of their own")
        shared = _heads(node)[1]
        query, key, value = (channel_labels(labels, _operand(node, index), 2) for index in range(3))
        labels.offer(node, np.zeros((shared, 0), np.int64) if key is None else key.reshape(shared, -1))
        for index in range(3):
            for axis in (0, 1):
                pin = Pin(node.op_type, node.name or "", f"{node.op_type} mixes the positions of this axis")
                labels.freeze(_operand(node, index), axis, pin)
        if node.name not in labels.whole or query is None or key is None or value is None:
            raise CannotCouple("channels of a head rotate in pairs, and its size is one that kernels know")
        rows = np.concatenate([each.reshape(shared, -1) for each in (key, value, query)], axis=1)
        labels.split(node, rows)
        labels.give(node.outputs[0], [Family((2,), query)])

    def resize(self, node: ir.Node, cut: Cut) -> None:
        keep_heads(node, cut, 0, 1)

    def infer(self, node: ir.Node) -> Sequence[int | str | None] | None:
        return same_shape(node)

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class CachedAttention(Operator):
    """Pinned: keys and values of the past come in and go out, or sequences are packed."""

    op_types: ClassVar[tuple[str, ...]] = (
        "com.microsoft.DecoderMaskedMultiHeadAttention",
        "com.microsoft.PackedMultiHeadAttention",
        "com.microsoft.PackedAttention",
        "com.microsoft.LongformerAttention",
    )

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        labels.pin_node(node, f"{node.op_type} hands on keys and values of the past, and has no kernel on the CPU")


class RotaryEmbedding(Operator):
    """Heads pass; channels of a head rotate in pairs and are pinned."""

    op_types: ClassVar[tuple[str, ...]] = ("com.microsoft.RotaryEmbedding", "RotaryEmbedding")

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        rank = rank_of(node.inputs[0])
        names = ["batch", None, None] if rank == 3 else ["batch", "head", *[None] * (rank - 2)]
        join(labels, node, {0: names}, {0: names})

    def infer(self, node: ir.Node) -> Sequence[int | str | None] | None:
        return same_shape(node)


def has_past(node: ir.Node, inputs: Sequence[int]) -> bool:
    """Whether keys and values of the past are given or handed on: they keep their size."""
    given = any(index < len(node.inputs) and node.inputs[index] is not None for index in inputs)
    return given or any(output.uses() or output.is_graph_output() for output in node.outputs[1:])


def _split_heads(labels: AxisLabels, node: ir.Node, scored: Labels, passed: Labels) -> None:
    """Rows are heads, of channels that are scored and of those that are passed on: cut alike, or as a whole."""
    if node.name in labels.whole:
        labels.split(node, np.concatenate([scored, passed], axis=1))
        return
    labels.split(node, scored)
    labels.split(node, passed)
    labels.heads.append(scored)


def keep_heads(node: ir.Node, cut: Cut, *operands: int) -> None:
    """As many heads as are left of the channels of queries, and of keys."""
    names = ("num_heads", "kv_num_heads") if node.domain else ("q_num_heads", "kv_num_heads")
    for name, index in zip(names, operands, strict=True):
        before, left = dims_of(node.inputs[index])[2], cut.size(node.inputs[index], 2)
        if name in node.attributes and before and left:
            count = node.attributes[name].as_int() * left // before
            node.attributes[name] = ir.AttrInt64(name, count)


def _operand(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    if value is None:
        raise CannotCouple(f"input {index} is missing")
    return value


def _heads(node: ir.Node) -> tuple[int, int]:
    """How many heads the queries have, and the keys and values."""
    if node.domain:
        heads = node.attributes["num_heads"].as_int()
        return heads, attribute_int(node, "kv_num_heads", heads)
    return attribute_int(node, "q_num_heads", 1), attribute_int(node, "kv_num_heads", 1)


def _keep_scale(node: ir.Node, size: int) -> None:
    """Say the scale that would follow from the head dimension, for that is about to change."""
    if not attribute_float(node, "scale", 0.0):
        node.attributes["scale"] = ir.AttrFloat32("scale", 1 / math.sqrt(size))
