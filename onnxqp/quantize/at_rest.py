"""int8 at rest, float at run: weights of nodes that compute in float, stored as int8.

`Cast -> Mul(scale)` rebuilds the float weight. onnxruntime folds both when it opens the model, from its basic
optimisation level on, so layout and fusions are those of the float model; a DequantizeLinear in their place would run
on every inference.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from onnxqp.graph import add_initializer, constant, unique_name
from onnxqp.ops import rule_for
from onnxqp.quantize.arithmetic import Floats, Integers, dequantize_linear, quantize_linear, range_parameters
from onnxqp.quantize.bias import Means, mean_shift
from onnxqp.quantize.rounding import LayerRounding, Roundings
from onnxqp.specs import Compute

SMALLEST = 1024  # bytes; below, names and two nodes cost what int8 saves
SMALL_SHARE = 0.01  # of all weights: rounding the smallest (stems, often) costs accuracy and saves nothing
LEAST_SQNR_DB = 35.0  # of the rounded weight; a weight with outliers that lies below stays in float
GROUP = 16  # elements at least that share a scale

_NO_ROUNDINGS: Roundings = MappingProxyType({})


@dataclass
class Stored:
    """What `store_at_rest` did."""

    weights: int = 0
    bias_corrected: int = 0


def store_at_rest(
    model: ir.Model, untouched: Collection[str], means: Means, roundings: Roundings = _NO_ROUNDINGS
) -> Stored:
    """Store the float32 weights of two axes or more (of more than one element) as int8, in place.

    Weights that a node named in `untouched` reads, that are graph outputs, that are small in themselves or beside the
    others, or that int8 would spoil, stay as they are. `means`, by value name, are those of the inputs of the nodes, to
    correct their biases by; `roundings`, by the name of the node, round weights by what that does to its output.
    """
    done = Stored()
    for graph in model.graphs():
        graph.meta.pop("onnxqp.names", None)
    for graph, value in _worth_it(model):
        readers = [use.node for use in value.uses()]
        array = constant(value)
        if value.is_graph_output() or not readers or array is None or any(node.name in untouched for node in readers):
            continue
        reader = _correctable(readers, means)
        rounding = roundings.get(readers[0].name or "") if len(readers) == 1 else None
        rounded = _store(graph, value, array, rounding, centred=reader is not None)
        if rounded is not None:
            done.weights += 1
            done.bias_corrected += reader is not None and _correct(*reader, array, rounded, means, rounding)
    return done


def _worth_it(model: ir.Model) -> list[tuple[ir.Graph, ir.Value]]:
    """The weights by size, without those small ones that together make less than `SMALL_SHARE` of all bytes."""
    found: list[tuple[int, ir.Graph, ir.Value]] = []
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if value.dtype == ir.DataType.FLOAT and tensor is not None and sum(size != 1 for size in tensor.shape) > 1:
                found.append((tensor.nbytes, graph, value))
    spared = SMALL_SHARE * sum(size for size, _, _ in found)
    kept = []
    for size, graph, value in sorted(found, key=lambda entry: entry[0]):
        spared -= size
        if spared < 0 and size >= SMALLEST:
            kept.append((graph, value))
    return kept


def _correctable(readers: list[ir.Node], means: Means) -> tuple[ir.Node, Compute] | None:
    """The only node that reads a weight, when its bias can take the mean error of rounding back."""
    node = readers[0]
    role = rule_for(node).quantization(node)
    if len(readers) > 1 or not isinstance(role, Compute) or role.weight is None or role.bias is None:
        return None
    source = node.inputs[role.activations[0]]
    bias = node.inputs[role.bias] if len(node.inputs) > role.bias else None
    if source is None or (source.name or "") not in means or role.weight.channel_axis is None:
        return None
    return None if bias is not None and constant(bias) is None else (node, role)


def _correct(
    node: ir.Node, role: Compute, weight: Floats, rounded: Floats, means: Means, rounding: LayerRounding | None
) -> bool:
    """Take the mean error of a rounded weight back in the bias of the node."""
    source, place = node.inputs[role.activations[0]], role.weight
    if source is None or place is None or place.channel_axis is None or role.bias is None:
        return False
    if rounding is not None:
        shift: Floats | None = rounding.shift(weight, rounded)
    else:
        shift = mean_shift(weight, rounded, means[source.name or ""], place.channel_axis, place.summed)
    if shift is None or not shift.any() or not isinstance(node.graph, ir.Graph):
        return False
    bias = node.inputs[role.bias] if len(node.inputs) > role.bias else None
    old = constant(bias)
    name = bias.name if bias is not None and bias.name else f"{node.name}_bias"
    if len(node.inputs) <= role.bias:
        node.resize_inputs(role.bias + 1)
    corrected = shift if old is None else old + shift
    node.replace_input_with(role.bias, add_initializer(node.graph, f"{name}_corrected", corrected.astype(np.float32)))
    return True


def _store(
    graph: ir.Graph, value: ir.Value, array: Floats, rounding: LayerRounding | None, *, centred: bool
) -> Floats | None:
    """Replace an initializer by its int8 form; what that stands for, or None where int8 would spoil it."""
    rows = _rows(array.shape)
    flat = array.reshape(rows, -1)
    magnitude = np.abs(flat).max(axis=1)
    scale, _ = range_parameters(-magnitude, magnitude, signed=True, symmetric=True)
    integers = quantize_linear(flat, scale, signed=True, axis=0)
    rounded = dequantize_linear(integers, scale, axis=0)
    error = float(np.square(rounded - flat, dtype=np.float64).sum())
    signal = float(np.square(flat, dtype=np.float64).sum())
    if not signal or 10 * np.log10(signal / max(error, 1e-30)) < LEAST_SQNR_DB:
        return None
    axes = next(i for i in range(1, array.ndim) if math.prod(array.shape[:i]) == rows)
    spread = scale.reshape([*array.shape[:axes], *[1] * (array.ndim - axes)])
    whole = integers.reshape(array.shape)
    if rounding is not None:
        whole = rounding.round(array, spread, whole.astype(np.int8), centred=centred)
    _rebuild(graph, value, whole, spread)
    return np.asarray(whole * spread, np.float32)


def _rebuild(graph: ir.Graph, value: ir.Value, integers: Integers, scale: Floats) -> None:
    name = value.name or "weight"
    stored = add_initializer(graph, f"{name}_int8", integers)
    steps = add_initializer(graph, f"{name}_step", scale)
    to = [ir.AttrInt64("to", ir.DataType.FLOAT)]
    cast = ir.Node("", "Cast", [stored], to, name=unique_name(graph, f"{name}_Cast"))
    cast.outputs[0].name = unique_name(graph, f"{name}_steps")
    rebuild = ir.Node("", "Mul", [cast.outputs[0], steps], name=unique_name(graph, f"{name}_Mul"))
    rebuild.outputs[0].name = unique_name(graph, f"{name}_rebuilt")
    for output in (cast.outputs[0], rebuild.outputs[0]):
        output.shape, output.type = value.shape, ir.TensorType(ir.DataType.FLOAT)
    graph.insert_before(graph[0], [cast, rebuild])
    ir.convenience.replace_all_uses_with(value, rebuild.outputs[0])
    del graph.initializers[name]


def _rows(shape: tuple[int, ...]) -> int:
    """How many leading index tuples get a scale of their own: as many as leave `GROUP` elements to each."""
    for axes in range(len(shape) - 1, 0, -1):
        if int(np.prod(shape[axes:])) >= GROUP:
            return int(np.prod(shape[:axes]))
    return shape[0]
