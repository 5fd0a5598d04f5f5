"""int8 at rest, float at run: weights of nodes that compute in float, stored as int8.

`Cast -> Mul(scale)` rebuilds the float weight. onnxruntime folds both when it opens the model, from its basic
optimisation level on, so layout and fusions are those of the float model; a DequantizeLinear in their place would run
on every inference.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from onnxqp.graph import add_initializer, constant, unique_name
from onnxqp.quantize.arithmetic import Floats, dequantize_linear, quantize_linear, range_parameters

SMALLEST = 1024  # bytes; below, names and two nodes cost what int8 saves
LEAST_SQNR_DB = 35.0  # of the rounded weight; a weight with outliers that lies below stays in float
GROUP = 16  # elements at least that share a scale


def store_at_rest(model: ir.Model, untouched: Collection[str]) -> int:
    """Store every float32 weight of two axes or more as int8, in place; how many.

    Weights that a node named in `untouched` reads, that are graph inputs or outputs, that are small, or that int8
    would spoil, stay as they are.
    """
    done = 0
    for graph in model.graphs():
        graph.meta.pop("onnxqp.names", None)
        for value in list(graph.initializers.values()):
            readers = [use.node for use in value.uses()]
            if value.is_graph_output() or not readers or any(node.name in untouched for node in readers):
                continue
            array = constant(value)
            if array is None or array.dtype != np.float32 or array.ndim < 2 or array.nbytes < SMALLEST:
                continue
            done += _store(graph, value, array)
    return done


def _store(graph: ir.Graph, value: ir.Value, array: Floats) -> bool:
    rows = _rows(array.shape)
    flat = array.reshape(rows, -1)
    magnitude = np.abs(flat).max(axis=1)
    scale, _ = range_parameters(-magnitude, magnitude, signed=True, symmetric=True)
    integers = quantize_linear(flat, scale, signed=True, axis=0)
    error = float(np.square(dequantize_linear(integers, scale, axis=0) - flat, dtype=np.float64).sum())
    signal = float(np.square(flat, dtype=np.float64).sum())
    if not signal or 10 * np.log10(signal / max(error, 1e-30)) < LEAST_SQNR_DB:
        return False
    name = value.name or "weight"
    axes = 1
    while int(np.prod(array.shape[:axes])) != rows:
        axes += 1
    spread = scale.reshape([*array.shape[:axes], *[1] * (array.ndim - axes)])
    stored = add_initializer(graph, f"{name}_int8", integers.reshape(array.shape))
    steps = add_initializer(graph, f"{name}_step", spread)
    cast = ir.Node(
        "", "Cast", [stored], [ir.AttrInt64("to", ir.DataType.FLOAT)], name=unique_name(graph, f"{name}_Cast")
    )
    cast.outputs[0].name = unique_name(graph, f"{name}_steps")
    rebuild = ir.Node("", "Mul", [cast.outputs[0], steps], name=unique_name(graph, f"{name}_Mul"))
    rebuild.outputs[0].name = unique_name(graph, f"{name}_rebuilt")
    for output in (cast.outputs[0], rebuild.outputs[0]):
        output.shape, output.type = value.shape, ir.TensorType(ir.DataType.FLOAT)
    graph.insert_before(graph[0], [cast, rebuild])
    ir.convenience.replace_all_uses_with(value, rebuild.outputs[0])
    del graph.initializers[name]
    return True


def _rows(shape: tuple[int, ...]) -> int:
    """How many leading index tuples get a scale of their own: as many as leave `GROUP` elements to each."""
    for axes in range(len(shape) - 1, 0, -1):
        if int(np.prod(shape[axes:])) >= GROUP:
            return int(np.prod(shape[:axes]))
    return shape[0]
