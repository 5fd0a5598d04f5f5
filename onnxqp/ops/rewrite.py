"""Rewriting what a node says about sizes, once its tensors were cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxqp.graph import add_initializer, constant, own_initializer, set_initializer, unique_name


def set_sizes(node: ir.Node, index: int, sizes: Mapping[int, int], *, keep: Sequence[int] = ()) -> None:
    """Make elements of a shape operand say new sizes; `sizes` is by position in the operand.

    A constant is rewritten, as a copy of the node's own where others read it too; elements that say one of `keep` stay.
    A computed operand gets a Where that replaces these elements, whatever they were computed from.
    """
    value = node.inputs[index]
    if value is None or not sizes:
        return
    array = constant(value)
    if array is None:
        replace_elements(node, index, sizes)
        return
    new = array.copy()
    for place, size in sizes.items():
        if int(array[place]) not in keep:
            new[place] = size
    set_operand(node, index, new)


def set_operand(node: ir.Node, index: int, array: np.ndarray) -> None:
    """Give the node a constant operand of its own, in place of the constant it had or of nothing."""
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    value = node.inputs[index]
    if value is not None and constant(value) is not None:
        set_initializer(own_initializer(node, index), array)
    else:
        node.replace_input_with(index, add_initializer(graph_of(node), f"{node.name}_sizes", array))


def replace_elements(node: ir.Node, index: int, elements: Mapping[int, int]) -> None:
    """Put a Where before an integer vector operand that sets some of its elements."""
    value = node.inputs[index]
    if value is None or value.shape is None or not isinstance(value.shape[0], int):
        raise ValueError(f"the shape operand of {node.name} has no known length")
    selected, new = where_operands(graph_of(node), f"{node.name}_sizes", value.shape[0], elements)
    patched = insert_before(node, "Where", [selected, new, value], f"{node.name}_resize")
    node.replace_input_with(index, patched)


def restore_elements(node: ir.Node, elements: Mapping[int, int]) -> None:
    """Put a Where after a node with an integer vector output, so that all its readers see these elements."""
    if not elements:
        return
    graph, vector = graph_of(node), node.outputs[0]
    if vector.shape is None or not isinstance(vector.shape[0], int):
        raise ValueError(f"the output of {node.name} has no known length")
    uses = list(vector.uses())
    selected, old = where_operands(graph, f"{node.name}_sizes", vector.shape[0], elements)
    made = ir.Node("", "Where", [selected, old, vector], name=unique_name(graph, f"{node.name}_restore"))
    restored = made.outputs[0]
    restored.name = unique_name(graph, f"{node.name}_original")
    restored.type, restored.shape = vector.type, vector.shape
    graph.insert_after(node, made)
    for user, index in uses:
        user.replace_input_with(index, restored)


def where_operands(graph: ir.Graph, name: str, length: int, elements: Mapping[int, int]) -> tuple[ir.Value, ir.Value]:
    """Condition and replacement of a Where that sets some elements of an int64 vector."""
    selected, new = np.zeros(length, np.bool_), np.zeros(length, np.int64)
    for place, element in elements.items():
        selected[place], new[place] = True, element
    return add_initializer(graph, f"{name}_set", selected), add_initializer(graph, f"{name}_to", new)


def insert_before(
    node: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], name: str, attributes: Sequence[ir.Attr] = ()
) -> ir.Value:
    """A new node before `node`; returns its output, which has the type and rank of the node's last input."""
    graph = graph_of(node)
    made = ir.Node("", op_type, inputs, attributes=attributes, name=unique_name(graph, name))
    output = made.outputs[0]
    output.name = unique_name(graph, f"{name}_out")
    source = inputs[-1] if op_type == "Where" else inputs[0]
    if source is not None:
        output.type = source.type
        output.shape = source.shape if op_type == "Where" else None
    graph.insert_before(node, made)
    return output


def graph_of(node: ir.Node) -> ir.Graph:
    graph = node.graph
    if not isinstance(graph, ir.Graph):
        raise ValueError(f"{node.name} stands in no graph")
    return graph


def replace_slice(node: ir.Node, axis: int, place: int, places: np.ndarray, size: int) -> None:
    """Make a Slice take `places`, out of `size`, along an axis; `place` is the axis's place among its bounds.

    By new bounds if they are evenly spaced, else by a Gather before the Slice, which then takes all that is left.
    """
    steps = np.diff(places)
    even = len(places) > 0 and (steps == steps[:1]).all() and (len(steps) == 0 or steps[0] != 0)
    if even:
        step = int(steps[0]) if len(steps) else 1
        start, stop = int(places[0]), int(places[-1]) + (1 if step > 0 else -1)
        bounds = (start, stop if stop >= 0 else -size - 1, step)
    else:
        indices = add_initializer(graph_of(node), f"{node.name}_kept", places.astype(np.int64))
        gather = insert_before(
            node, "Gather", [node.inputs[0], indices], f"{node.name}_gather", [ir.AttrInt64("axis", axis)]
        )
        node.replace_input_with(0, gather)
        bounds = (0, len(places), 1)
    for index, bound in zip((1, 2, 4), bounds, strict=True):
        operand = constant(node.inputs[index]) if len(node.inputs) > index else None
        if operand is not None:
            new = operand.copy()
            new[place] = bound
            set_operand(node, index, new)
        elif bound != 1:
            raise ValueError(f"{node.name} has no operand for its steps")
