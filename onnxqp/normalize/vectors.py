"""A vector of its own for every node.

Exporters keep equal tensors once: the zero biases of a network that was never trained, the scales of its
normalisations. Shared, they would tie layers that have nothing to do with each other: no channel of one could be cut
without the others'. Apart, they cost a few bytes. Matrices stay shared, for there sharing is meant.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxqp.graph import own_initializer

LONGEST = 1 << 16  # elements; longer ones stay shared


def own_vectors(model: ir.Model) -> bool:
    """Give every reader of a shared float vector a copy of its own, in place; whether there was one."""
    changed = False
    for value in list(model.graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or len(tensor.shape) != 1 or tensor.size > LONGEST or not _is_float(value):
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


def _is_float(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point()
