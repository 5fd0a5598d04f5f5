"""Rewriting what a node says about sizes, once its tensors were cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.graph import add_initializer, constant, own_initializer, set_initializer, unique_name


class Insertion:
    """Adds nodes, one after the other, before a node or behind it."""

    def __init__(self, node: ir.Node, *, behind: bool = False) -> None:
        if not isinstance(node.graph, ir.Graph):
            raise ValueError(f"{node.name} stands in no graph")
        self.graph = node.graph
        self._node = node
        self._last = node if behind else None
        self._name = node.name or node.op_type

    def constant(self, array: npt.ArrayLike, dtype: npt.DTypeLike) -> ir.Value:
        """A new initializer, named after the node."""
        return add_initializer(self.graph, f"{self._name}_cut", np.asarray(array, dtype))

    def add(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        *,
        like: ir.Value,
        resized: bool = False,
        attributes: Sequence[ir.Attr] = (),
        domain: str = "",
    ) -> ir.Value:
        """A new node; its output has the type of `like`, and its shape or, when `resized`, its rank."""
        made = ir.Node(
            domain, op_type, inputs, attributes=attributes, name=unique_name(self.graph, f"{self._name}_{op_type}")
        )
        output = made.outputs[0]
        output.name = unique_name(self.graph, f"{self._name}_{op_type}_output")
        output.type = like.type
        if like.shape is not None:
            output.shape = ir.Shape([None] * len(like.shape) if resized else list(like.shape))
        if self._last is None:
            self.graph.insert_before(self._node, made)
        else:
            self.graph.insert_after(self._last, made)
            self._last = made
        return output

    def with_elements(self, vector: ir.Value, elements: Mapping[int, int]) -> ir.Value:
        """An int64 vector with some elements set to fixed numbers."""
        length = None if vector.shape is None else vector.shape[0]
        if not isinstance(length, int):
            raise ValueError(f"the shape operand '{vector.name}' has no known length")
        chosen = [place in elements for place in range(length)]
        numbers = [elements.get(place, 0) for place in range(length)]
        operands = [self.constant(chosen, np.bool_), self.constant(numbers, np.int64), vector]
        return self.add("Where", operands, like=vector)

    def sizes_of(self, value: ir.Value) -> ir.Value:
        """The dimensions of a tensor as a vector."""
        rank = 0 if value.shape is None else len(value.shape)
        vector = ir.Value(type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([rank]))
        return self.add("Shape", [value], like=vector)


def set_sizes(node: ir.Node, index: int, sizes: Mapping[int, int], *, keep: Sequence[int] = ()) -> None:
    """Make elements of a shape operand say new sizes; `sizes` is by position in the operand.

    A constant is rewritten, as a copy of the node's own where others read it too; elements that say one of `keep` stay.
    So are the constants that a Concat joins with computed sizes. Any other computed operand gets a Where that replaces
    these elements, whatever they were computed from.
    """
    value = node.inputs[index]
    if value is None or not sizes:
        return
    array = constant(value)
    if array is None:
        if not _set_joined(node, index, sizes, keep):
            node.replace_input_with(index, Insertion(node).with_elements(value, sizes))
        return
    new = array.copy()
    for place, size in sizes.items():
        if int(array[place]) not in keep:
            new[place] = size
    set_operand(node, index, new)


def _set_joined(node: ir.Node, index: int, sizes: Mapping[int, int], keep: Sequence[int]) -> bool:
    """Set elements that come from constant operands of a Concat; False where some do not, and nothing is changed.

    Every node more that computes sizes runs at every inference: on a small model that is felt.
    """
    value = node.inputs[index]
    joint = None if value is None else value.producer()
    if joint is None or value is None or joint.op_type != "Concat" or joint.domain or joint.graph is not node.graph:
        return False
    found: list[npt.NDArray[np.integer] | None] = []
    place, left = 0, dict(sizes)
    for part in joint.inputs:
        array = constant(part)
        length = (part.shape[0] if part is not None and part.shape else None) if array is None else len(array)
        if not isinstance(length, int):
            return False
        here = {at: left.pop(place + at) for at in range(length) if place + at in left}
        if here and array is None:
            return False
        new = None if array is None or not here else array.copy()
        for at, size in here.items():
            if new is not None and int(new[at]) not in keep:
                new[at] = size
        found.append(new)
        place += length
    if left:
        return False
    if len(value.uses()) > 1 or value.is_graph_output():
        node.replace_input_with(
            index, Insertion(node).add("Concat", joint.inputs, like=value, attributes=[ir.AttrInt64("axis", 0)])
        )
        own = node.inputs[index]
        joint = joint if own is None else own.producer() or joint
    for number, new in enumerate(found):
        if new is not None:
            set_initializer(own_initializer(joint, number), new)
    return True


def set_operand(node: ir.Node, index: int, array: npt.NDArray[np.integer]) -> None:
    """Give the node a constant operand of its own, in place of the constant it had or of nothing."""
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    value = node.inputs[index]
    if value is not None and constant(value) is not None:
        set_initializer(own_initializer(node, index), array)
    else:
        node.replace_input_with(index, Insertion(node).constant(array, array.dtype))


def restore_elements(node: ir.Node, elements: Mapping[int, int]) -> None:
    """Let all readers of a node's integer vector see these elements, whatever it computes."""
    vector = node.outputs[0]
    uses = [(user, index) for user, index in vector.uses() if _reads_any(user, index, vector, elements)]
    if uses:
        restored = Insertion(node, behind=True).with_elements(vector, elements)
        for user, index in uses:
            user.replace_input_with(index, restored)


def _reads_any(user: ir.Node, index: int, vector: ir.Value, elements: Mapping[int, int]) -> bool:
    """Whether a reader of a vector may look at any of these elements: not one that selects others."""
    length = vector.shape[0] if vector.shape else None
    if index or user.domain or not isinstance(length, int) or not elements:
        return bool(elements)
    operands = [constant(value) for value in user.inputs[1:]]
    if user.op_type == "Gather" and operands[0] is not None:
        return bool({int(place) % length for place in operands[0].reshape(-1)} & elements.keys())
    if user.op_type == "Slice" and all(array is not None and array.size == 1 for array in operands):
        numbers = [int(array.reshape(-1)[0]) for array in operands if array is not None]
        start, stop, _, step = [*numbers, *(0, 1)[len(numbers) - 2 :]]
        return bool(set(range(length)[slice(start, stop, step)]) & elements.keys())
    return True


def replace_slice(node: ir.Node, axis: int, place: int, places: npt.NDArray[np.integer], size: int) -> None:
    """Make a Slice take `places`, out of `size`, along an axis; `place` is the axis's place among its bounds.

    By new bounds if they are evenly spaced, else by a Gather before the Slice, which then takes all that is left.
    """
    steps = np.diff(places)
    if len(places) and (steps == steps[:1]).all() and steps[:1].all():
        step = int(steps[0]) if len(steps) else 1
        stop = int(places[-1]) + (1 if step > 0 else -1)
        bounds = (int(places[0]), stop if stop >= 0 else -size - 1, step)
    else:
        value = node.inputs[0]
        assert value is not None
        insertion = Insertion(node)
        indices = insertion.constant(places, np.int64)
        attributes = [ir.AttrInt64("axis", axis)]
        gathered = insertion.add("Gather", [value, indices], like=value, resized=True, attributes=attributes)
        node.replace_input_with(0, gathered)
        bounds = (0, len(places), 1)
    for index, bound in zip((1, 2, 4), bounds, strict=True):
        operand = constant(node.inputs[index]) if len(node.inputs) > index else None
        if operand is not None:
            new = operand.copy()
            new[place] = bound
            set_operand(node, index, new)
        elif bound != 1:
            raise ValueError(f"{node.name} has no operand for its steps")
