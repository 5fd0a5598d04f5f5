"""A vector of its own for every node.

Exporters keep equal tensors once: the zero biases of a network that was never trained, the scales of its
normalisations, the zero points of quantized weights. Shared, they would tie layers that have nothing to do with each
other: no channel of one could be cut without the others'. Apart, they cost a few bytes. Matrices stay shared, for there
sharing is meant.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxqp.graph import own_initializer

LONGEST = 1 << 16  # elements; longer ones stay shared


def own_vectors(model: ir.Model) -> bool:
    """Give every reader of a shared vector a copy of its own, in place; whether there was one.

    A vector has one axis, or one that is longer than 1.
    """
    changed = False
    for value in list(model.graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.size > LONGEST or not _is_number(value):
            continue
        if len(tensor.shape) != 1 and sum(size > 1 for size in tensor.shape.numpy()) != 1:
            continue
        if value.is_graph_output() or value.is_graph_input():
            continue
        readers = dict.fromkeys(use.node for use in value.uses())
        inside = [node for node in readers if node.graph is model.graph]
        for node in inside[1:]:
            for index, operand in enumerate(node.inputs):
                if operand is value:
                    own_initializer(node, index)
            changed = True
    return changed


def _is_number(value: ir.Value) -> bool:
    """Of a type that weights, biases and zero points have; int64 is that of shapes and indices."""
    integers = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16, ir.DataType.INT32)
    return value.dtype is not None and (value.dtype.is_floating_point() or value.dtype in integers)
