"""int8 at rest, float at run: weights of nodes that compute in float, stored as int8.

`Cast -> Mul(scale)` rebuilds the float weight, with a Reshape behind it where blocks of a row have scales of their own,
and from 16 bits where 8 would spoil it. onnxruntime folds all that when it opens the model, from its basic optimisation
level on, so layout and fusions are those of the float model; a DequantizeLinear in their place would run on every
inference.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from types import MappingProxyType
from weakref import WeakKeyDictionary

import numpy as np
import onnx_ir as ir

from onnxqp.graph import add_initializer, constant, set_initializer, short_name, unique_name
from onnxqp.ops import rule_for
from onnxqp.quantize.arithmetic import SMALLEST_SCALE, Floats, Integers
from onnxqp.quantize.bias import Means, mean_shift
from onnxqp.quantize.rounding import LayerRounding, Roundings
from onnxqp.specs import Compute

SMALLEST = 512  # bytes; below, names and two nodes cost what int8 saves
SMALL_SHARE = 0.01  # of all weights: rounding the smallest (stems, often) costs accuracy and saves nothing
GOOD_SQNR_DB = 40.0  # of the rounded weight, good enough to spend no more bytes on scales
LEAST_SQNR_DB = 35.0  # a weight with outliers that lies below in every form gets 16 bits...
LEAST_WIDE_SQNR_DB = 60.0  # ...or stays in float
GROUP = 16  # elements at least that share a scale
BLOCKS = (64, 32)  # lengths of a row with a scale of its own

_NO_ROUNDINGS: Roundings = MappingProxyType({})


@dataclass
class Stored:
    """What `store_at_rest` did."""

    weights: int = 0
    bias_corrected: int = 0


def store_at_rest(
    model: ir.Model, untouched: Collection[str], means: Means, roundings: Roundings = _NO_ROUNDINGS
) -> Stored:
    """Store the float32 weights of two axes or more (of more than one element) as integers, in place.

    Weights that a node named in `untouched` reads, that are graph outputs, that are small in themselves or beside the
    others, or that integers would spoil, stay as they are. `means`, by value name, are those of the inputs of the
    nodes, to correct their biases by; `roundings`, by the name of the node, round weights by what that does to its
    output.
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
        exact = any(map(_is_elementwise, readers))
        rounded = _store(graph, value, array, rounding, centred=reader is not None, wide=exact)
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


def _is_elementwise(node: ir.Node) -> bool:
    """Whether what a node reads meets other values one by one: no sum averages its rounding errors away."""
    role = rule_for(node).quantization(node)
    return isinstance(role, Compute) and role.weight is None


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
    graph: ir.Graph, value: ir.Value, array: Floats, rounding: LayerRounding | None, *, centred: bool, wide: bool
) -> Floats | None:
    """Replace an initializer by its stored form; what that stands for, or None where integers would spoil it."""
    form = _wide_form(array) if wide else _form_of(value.const_value, array)
    if form is None:
        return None
    integers, scale = form.integers, form.scale
    if rounding is not None and integers.dtype == np.int8:
        spread = np.broadcast_to(scale, integers.shape).reshape(array.shape) if form.blocks else scale
        found = rounding.round(array, spread, integers.reshape(array.shape).astype(np.int8), centred=centred)
        integers = found.reshape(integers.shape)
    _rebuild(graph, value, integers, scale, array.shape)
    return np.asarray(integers * scale, np.float32).reshape(array.shape)


def _rebuild(graph: ir.Graph, value: ir.Value, integers: Integers, scale: Floats, shape: tuple[int, ...]) -> None:
    """Let what reads `value` read its product with the scales. The value itself, by its name, holds the integers.

    Names are short, and the nodes have none: beside a small weight they would cost what the integers save.
    """
    name = short_name(value.name or "weight")
    before = graph[0]
    steps = add_initializer(graph, f"{name}_step", scale)
    cast = ir.Node("", "Cast", [value], [ir.AttrInt64("to", ir.DataType.FLOAT)])
    made = [cast, ir.Node("", "Mul", [cast.outputs[0], steps])]
    if integers.shape != shape:
        whole = add_initializer(graph, f"{name}_shape", np.asarray(shape, np.int64))
        made.append(ir.Node("", "Reshape", [made[-1].outputs[0], whole]))
    for node, suffix in zip(made, ("cast", "float", "whole"), strict=False):
        node.outputs[0].name = unique_name(graph, f"{name}_{suffix}")
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        node.outputs[0].shape = ir.Shape(shape if node is made[-1] else integers.shape)
    for use in list(value.uses()):
        if use.node is not cast:
            use.node.replace_input_with(use.idx, made[-1].outputs[0])
    graph.insert_before(before, made)
    set_initializer(value, integers)


# ---- the form ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Form:
    """Integers and the scales that broadcast against them; in `blocks`, rows of a fixed length cut from the array."""

    integers: Integers
    scale: Floats
    blocks: bool = False


_forms: WeakKeyDictionary[ir.TensorProtocol, tuple[_Form | None]] = WeakKeyDictionary()


def _form_of(tensor: ir.TensorProtocol | None, array: Floats) -> _Form | None:
    """The smallest form that is good enough, or None; of a tensor that many candidates share it is found once."""
    if tensor is None:
        return None
    if tensor not in _forms:
        _forms[tensor] = (_smallest_form(array),)
    return _forms[tensor][0]


def _smallest_form(array: Floats) -> _Form | None:
    """The cheapest scales at which int8 is good; else the best that will do; else 16 bits, if these do.

    One scale for each index of an axis, or of the leading axes, or for every block of a row: which one fits differs
    from weight to weight, for some have large inputs and some large outputs.
    """
    best: tuple[float, _Form] | None = None
    for view, axes in _layouts(array):
        quality, form = _rounded(view, axes, np.dtype(np.int8), blocks=view.shape != array.shape)
        if quality >= GOOD_SQNR_DB:
            return form
        if quality >= LEAST_SQNR_DB and (best is None or quality > best[0]):
            best = (quality, form)
    return best[1] if best is not None else _wide_form(array)


def _wide_form(array: Floats) -> _Form | None:
    """16 bits, one scale."""
    quality, form = _rounded(array, tuple(range(array.ndim)), np.dtype(np.int16), blocks=False)
    return form if quality >= LEAST_WIDE_SQNR_DB else None


def _layouts(array: Floats) -> list[tuple[Floats, tuple[int, ...]]]:
    """Views of the array with the axes that share a scale, those with the fewest scales first."""
    axes = tuple(range(array.ndim))
    shared = {tuple(other for other in axes if other != axis) for axis in axes}
    shared |= {axes[first:] for first in axes[1:]}
    found = [(array, group) for group in shared if math.prod(array.shape[axis] for axis in group) >= GROUP]
    found = found or [(array, axes[1:])]
    found += [(array.reshape(-1, block), (1,)) for block in BLOCKS if array.size % block == 0]
    sizes = [view.size // math.prod(view.shape[axis] for axis in group) for view, group in found]
    order = sorted(range(len(found)), key=lambda index: (sizes[index], found[index][1]))
    return [found[index] for index in order]


def _rounded(
    view: Floats, axes: tuple[int, ...], dtype: np.dtype[np.signedinteger], *, blocks: bool
) -> tuple[float, _Form]:
    """The signal-to-noise ratio, in decibels, and the form, with one scale for all elements along `axes`."""
    magnitude = np.abs(view).max(axis=axes, keepdims=True)
    levels = np.float32(np.iinfo(dtype).max)
    scale = np.where(magnitude > 0, np.maximum(magnitude / levels, np.float32(SMALLEST_SCALE)), np.float32(1.0))
    scale = scale.astype(np.float32)
    steps = np.rint(view / scale)
    np.clip(steps, -levels, levels, out=steps)
    error = (steps * scale - view).reshape(-1)
    signal, noise = float(np.dot(view.reshape(-1), view.reshape(-1))), float(np.dot(error, error))
    quality = 10 * math.log10(signal / noise) if noise else math.inf
    return quality if signal and math.isfinite(signal) else -math.inf, _Form(steps.astype(dtype), scale, blocks)
