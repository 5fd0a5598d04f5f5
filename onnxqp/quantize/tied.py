"""A weight that integer and float nodes read is stored once: as the integers of the former.

The usual case are the embeddings of a language model, which Gather reads, and as they are or transposed the last
product. The float nodes read `Cast -> Mul(scale)` of the integers, which onnxruntime folds when it opens the model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxqp.graph import add_initializer, constant, unique_name
from onnxqp.normalize.tied import SMALLEST, read_transposed, transposed_pairs
from onnxqp.quantize.at_rest import rebuild
from onnxqp.quantize.forms import LEAST_SQNR_DB, smallest_form


@dataclass(frozen=True)
class IntegerCopy:
    """Integers of a weight in the graph, perhaps transposed, and their scale: a scalar, or one per index of `axis`."""

    values: ir.Value
    scale: ir.Value
    axis: int | None
    transposed: bool = False


@dataclass(frozen=True)
class Tied:
    """A float initializer whose content is that of `weight`, which integer nodes read, or that transposed."""

    value: ir.Value
    weight: str
    transposed: bool


def find_tied(model: ir.Model, integer: Collection[str], excluded: Collection[str] = ()) -> list[Tied]:
    """The large weights that nodes named in `integer` read, and others too.

    Of pairs of transposed matrices that only float nodes read one goes at once. What a node in `excluded` reads is
    left alone.
    """
    graph, found = model.graph, list[Tied]()
    for value in graph.initializers.values():
        tensor, sides = value.const_value, _sides(value, integer)
        if value.dtype != ir.DataType.FLOAT or tensor is None or tensor.nbytes < SMALLEST or value.is_graph_output():
            continue
        if len(sides) == 2 and not _is_read(value, excluded):
            found.append(Tied(value, value.name or "", False))
    mixed = {tied.weight for tied in found}
    for one, other in list(transposed_pairs(graph)):
        if {one.name, other.name} & mixed or _is_read(one, excluded) or _is_read(other, excluded):
            continue
        first, second = _sides(one, integer), _sides(other, integer)
        if first == second == {False}:
            read_transposed(graph, one, other)
        elif first == {False} and second == {True}:
            found.append(Tied(one, other.name or "", True))
        elif first == {True} and second == {False}:
            found.append(Tied(other, one.name or "", True))
    return found


def readers(tied: Collection[Tied]) -> set[str]:
    """The names of the nodes that read them."""
    return {use.node.name or "" for each in tied for use in each.value.uses()}


def share_integers(model: ir.Model, tied: Sequence[Tied], stored: Mapping[str, IntegerCopy]) -> int:
    """Let what still reads these floats read the integers; in how many cases these say the floats well enough.

    Where they do not, the floats are stored by themselves, as integers of their own.
    """
    graph, shared = model.graph, 0
    for each in tied:
        form, array = stored.get(each.weight), constant(each.value)
        if array is None or not each.value.uses():
            continue
        transposed = form is not None and each.transposed != form.transposed
        if form is None or not _is_close(array.T if transposed else array, form):
            own = smallest_form(array)
            if own is not None:
                rebuild(graph, each.value, own)
            continue
        rebuilt = _rebuilt(graph, form)
        if transposed:
            read_transposed(graph, rebuilt, each.value)
        else:
            for use in list(each.value.uses()):
                use.node.replace_input_with(use.idx, rebuilt)
            del graph.initializers[each.value.name or ""]
        shared += 1
    return shared


def _sides(value: ir.Value, integer: Collection[str]) -> set[bool]:
    return {use.node.name in integer for use in value.uses()}


def _is_read(value: ir.Value, names: Collection[str]) -> bool:
    return any(use.node.name in names for use in value.uses())


def _is_close(array: np.ndarray, form: IntegerCopy) -> bool:
    integers, scale = constant(form.values), constant(form.scale)
    if integers is None or scale is None or integers.shape != array.shape:
        return False
    error = array - integers * _spread(scale, form.axis, array.ndim)
    return bool(np.square(error).sum() * 10 ** (LEAST_SQNR_DB / 10) <= np.square(array).sum())


def _spread(scale: np.ndarray, axis: int | None, rank: int) -> np.ndarray:
    return scale if axis is None or not scale.ndim else scale.reshape([-1 if n == axis else 1 for n in range(rank)])


def _rebuilt(graph: ir.Graph, form: IntegerCopy) -> ir.Value:
    """Cast -> Mul(scale) of integers, before all nodes."""
    made = list[ir.Node]()
    values, scale, axis = form.values, form.scale, form.axis
    rank = len(values.shape or ())

    def node(op_type: str, *inputs: ir.Value, to: int | None = None) -> ir.Value:
        made.append(ir.Node("", op_type, inputs, [] if to is None else [ir.AttrInt64("to", to)]))
        output = made[-1].outputs[0]
        output.name = made[-1].name = unique_name(graph, f"{values.name}_{op_type.lower()}")
        output.type, output.shape = ir.TensorType(ir.DataType.FLOAT), values.shape
        return output

    sizes = constant(scale)
    if axis is not None and sizes is not None and sizes.ndim and axis % rank != rank - 1:
        shape = [-1 if n == axis else 1 for n in range(rank)]
        scale = node("Reshape", scale, add_initializer(graph, f"{scale.name}_shape", np.array(shape, np.int64)))
        scale.shape = ir.Shape([sizes.size if n == axis else 1 for n in range(rank)])
    product = node("Mul", node("Cast", values, to=ir.DataType.FLOAT), scale)
    graph.insert_before(graph[0], made)
    return product
