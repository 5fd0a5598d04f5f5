"""Counting multiply-accumulates."""

from __future__ import annotations

import math

import onnx_ir as ir

from onnxqp.graph import dims


def element_count(value: ir.Value | None) -> int:
    """Elements of a tensor; an unknown dimension (batch, usually) counts once."""
    shape = dims(value)
    return 0 if shape is None else math.prod(1 if size is None else size for size in shape)


def dimension(value: ir.Value | None, axis: int) -> int:
    """One dimension, 1 where unknown."""
    shape = dims(value)
    if shape is None or not -len(shape) <= axis < len(shape):
        return 1
    return shape[axis] or 1


def recurrent_macs(node: ir.Node) -> int:
    """LSTM, GRU, RNN: every gate of every step multiplies the input and the hidden state."""
    weight, recurrence = dims(node.inputs[1]), dims(node.inputs[2])
    if weight is None or recurrence is None:
        return 0
    per_step = math.prod(size or 1 for size in weight) + math.prod(size or 1 for size in recurrence)
    return per_step * dimension(node.inputs[0], 0) * dimension(node.inputs[0], 1)
