"""int8 at rest, float at run: weights of nodes that compute in float, stored as int8.

`Cast -> Mul(scale)` rebuilds the float weight, with a second `Mul` where rows and columns have scales (`forms`), and
from 16 bits where 8 would spoil it. onnxruntime folds all that when it opens the model, from its basic optimisation
level on, so layout and fusions are those of the float model; a DequantizeLinear in their place would run on every
inference.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from types import MappingProxyType
from weakref import WeakKeyDictionary

import numpy as np
import onnx_ir as ir

from onnxqp.graph import add_initializer, constant, renew_names, set_initializer, unique_name
from onnxqp.ops import rule_for
from onnxqp.quantize.arithmetic import Floats
from onnxqp.quantize.bias import Means, mean_shift
from onnxqp.quantize.forms import Form, smallest_form, wide_form
from onnxqp.quantize.rounding import LayerRounding, Roundings
from onnxqp.specs import Compute

SMALLEST = 512  # bytes; below, names and two nodes cost what int8 saves
SMALLEST_VECTOR = 512  # bytes of a bias
SMALL_SHARE = 0.01  # of all weights: 8 bits for the smallest (stems, often) cost accuracy and save nothing

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
    renew_names(model)
    for graph, value, exact in _worth_it(model):
        readers = [use.node for use in value.uses()]
        array = constant(value)
        if value.is_graph_output() or not readers or array is None or any(node.name in untouched for node in readers):
            continue
        if exact or any(map(_is_elementwise, readers)):
            done.weights += _store_wide(graph, value, array)
            continue
        rounding = roundings.get(readers[0].name or "") if len(readers) == 1 else None
        reader = _correctable(readers, means, rounding)
        rounded = _store(graph, value, array, rounding, centred=reader is not None)
        if rounded is not None:
            done.weights += 1
            done.bias_corrected += reader is not None and _correct(*reader, array, rounded, means, rounding)
    _store_vectors(model, untouched)
    return done


def _worth_it(model: ir.Model) -> list[tuple[ir.Graph, ir.Value, bool]]:
    """The weights by size, and whether to keep them exact: small ones that together make `SMALL_SHARE` of all bytes."""
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
        if size >= SMALLEST:
            kept.append((graph, value, spared >= 0))
    return kept


def _store_vectors(model: ir.Model, untouched: Collection[str]) -> None:
    """Long biases and their like in 16 bits, once nobody corrects them any more."""
    for graph in model.graphs():
        for value in list(graph.initializers.values()):
            tensor, readers = value.const_value, [use.node for use in value.uses()]
            if value.dtype != ir.DataType.FLOAT or tensor is None or tensor.nbytes < SMALLEST_VECTOR:
                continue
            free = not value.is_graph_output() and all(node.name not in untouched for node in readers)
            array = constant(value) if readers and free else None
            if array is not None and sum(size != 1 for size in array.shape) == 1:
                _store_wide(graph, value, array)


def _is_elementwise(node: ir.Node) -> bool:
    """Whether what a node reads meets other values one by one: no sum averages its rounding errors away."""
    role = rule_for(node).quantization(node)
    return isinstance(role, Compute) and role.weight is None


def _correctable(
    readers: list[ir.Node], means: Means, rounding: LayerRounding | None
) -> tuple[ir.Node, Compute] | None:
    """The only node that reads a weight, when its bias can take the mean error of rounding back."""
    node = readers[0]
    role = rule_for(node).quantization(node)
    if len(readers) > 1 or not isinstance(role, Compute) or role.weight is None or role.bias is None:
        return None
    source = node.inputs[role.activations[0]]
    bias = node.inputs[role.bias] if len(node.inputs) > role.bias else None
    known = source is not None and (source.name or "") in means
    if not (known or (rounding is not None and rounding.corrects)) or role.weight.channel_axis is None:
        return None
    return None if bias is not None and constant(bias) is None else (node, role)


def _correct(
    node: ir.Node, role: Compute, weight: Floats, rounded: Floats, means: Means, rounding: LayerRounding | None
) -> bool:
    """Take the mean error of a rounded weight back in the bias of the node."""
    source, place = node.inputs[role.activations[0]], role.weight
    if source is None or place is None or place.channel_axis is None or role.bias is None:
        return False
    if rounding is not None and rounding.corrects:
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
    node.replace_input_with(role.bias, add_initializer(node.graph, f"{name}_b", corrected.astype(np.float32)))
    return True


def _store(
    graph: ir.Graph, value: ir.Value, array: Floats, rounding: LayerRounding | None, *, centred: bool
) -> Floats | None:
    """Replace an initializer by its stored form; what that stands for, or None where integers would spoil it."""
    form = _form_of(value.const_value, array)
    if form is None:
        return None
    if rounding is not None and form.integers.dtype == np.int8:
        nearest = np.asarray(form.integers, np.int8)
        form = replace(form, integers=rounding.round(array, form.scale, nearest, centred=centred))
    rebuild(graph, value, form)
    return np.asarray(form.integers * form.scale, np.float32)


def _store_wide(graph: ir.Graph, value: ir.Value, array: Floats) -> bool:
    """Replace an initializer by its form of 16 bits; whether that did."""
    form = wide_form(array)
    if form is not None:
        rebuild(graph, value, form)
    return form is not None


def rebuild(graph: ir.Graph, value: ir.Value, form: Form) -> None:
    """Let what reads `value` read its product with the scales. The value itself, by its name, holds the integers.

    Names of what is between are numbers: longer ones would cost what small integers save.
    """
    number = graph.meta["onnxqp.stored"] = graph.meta.get("onnxqp.stored", 0) + 1
    before, made = graph[0], list[ir.Node]()

    def node(op_type: str, *inputs: ir.Value) -> ir.Value:
        to = [ir.AttrInt64("to", ir.DataType.FLOAT)] if op_type == "Cast" else []
        made.append(ir.Node("", op_type, inputs, to))
        output = made[-1].outputs[0]
        output.name = made[-1].name = unique_name(graph, f"_{op_type[0].lower()}{number}")
        output.type, output.shape = ir.TensorType(ir.DataType.FLOAT), inputs[0].shape
        return output

    readers = [(use.node, use.idx) for use in value.uses()]
    product = node("Cast", value)
    for scale in form.scales:
        half = Form.half(scale)
        stored = add_initializer(graph, f"_s{number}", scale.astype(np.float16) if half else scale)
        product = node("Mul", product, node("Cast", stored) if half else stored)
    for reader, index in readers:
        reader.replace_input_with(index, product)
    graph.insert_before(before, made)
    set_initializer(value, form.integers)


_forms: WeakKeyDictionary[ir.TensorProtocol, tuple[Form | None]] = WeakKeyDictionary()


def _form_of(tensor: ir.TensorProtocol | None, array: Floats) -> Form | None:
    """The form of a weight, or None; of a tensor that many candidates share it is found once."""
    if tensor is None:
        return None
    if tensor not in _forms:
        _forms[tensor] = (smallest_form(array),)
    return _forms[tensor][0]
