"""Matrices that a model reads as they are and transposed: tied embeddings, with a MatMul behind a Transpose.

Folding makes two initializers of them, which passes understand better, and which would be stored twice.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxqp.graph import constant, dims, unique_name

SMALLEST = 4096  # bytes; of less a second copy weighs no more than the node in its place


def transposed_pairs(graph: ir.Graph) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Float32 matrices of which the second is the first transposed; each initializer is in one pair at most."""
    waiting: dict[tuple[object, ...], list[ir.Value]] = {}  # by shape, and the corners that a transposition leaves
    for value in graph.initializers.values():
        tensor, shape = value.const_value, dims(value)
        if value.dtype != ir.DataType.FLOAT or tensor is None or shape is None or len(shape) != 2:
            continue
        if tensor.nbytes < SMALLEST or value.is_graph_output() or value.is_graph_input():
            continue
        array = constant(value)
        corners = () if array is None else (float(array[0, 0]), float(array[-1, -1]))
        alike = waiting.get((*shape[::-1], *corners), [])
        first = next((other for other in alike if _is_transposed(other, value)), None)
        if first is None:
            waiting.setdefault((*shape, *corners), []).append(value)
        else:
            alike.remove(first)
            yield first, value


def share_transposed(model: ir.Model) -> int:
    """Let what reads the second matrix of a pair read the first behind a Transpose; how many initializers went.

    onnxruntime folds the Transpose when it opens the model.
    """
    gone = 0
    for first, second in list(transposed_pairs(model.graph)):
        read_transposed(model.graph, first, second)
        gone += 1
    return gone


def read_transposed(graph: ir.Graph, kept: ir.Value, gone: ir.Value) -> None:
    """Replace an initializer by another value of the graph, transposed."""
    node = ir.Node("", "Transpose", [kept], [ir.AttrInt64s("perm", [1, 0])])
    output = node.outputs[0]
    output.name = node.name = unique_name(graph, f"{kept.name}_t")
    output.type, output.shape = ir.TensorType(ir.DataType.FLOAT), gone.shape
    for use in list(gone.uses()):
        use.node.replace_input_with(use.idx, output)
    maker = kept.producer()
    if maker is None:
        graph.insert_before(graph[0], node)
    else:
        graph.insert_after(maker, node)
    del graph.initializers[gone.name or ""]


def _is_transposed(one: ir.Value, other: ir.Value) -> bool:
    first, second = constant(one), constant(other)
    if first is None or second is None:
        return False
    return np.array_equal(first[0], second[:, 0]) and np.array_equal(first, second.T)
