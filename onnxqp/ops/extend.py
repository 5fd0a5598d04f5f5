"""Padding and repeating."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxqp.axes import AxisLabels, CannotCouple, Cut, Family
from onnxqp.graph import attribute_string, constant, dims
from onnxqp.ops import quantizing
from onnxqp.ops.join import dims_of, movable, without
from onnxqp.ops.operator import Operator
from onnxqp.ops.rewrite import set_operand, set_sizes
from onnxqp.specs import Movement, Role


class Pad(Operator):
    """Padded positions get labels of their own; the amounts are rewritten to what is kept of them."""

    op_types: ClassVar[tuple[str, ...]] = ("Pad",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        value = node.inputs[0]
        amounts = _amounts(node)
        constant_mode = attribute_string(node, "mode", "constant") == "constant"
        movable_pads = {axis: pads for axis, pads in amounts.items() if constant_mode and min(pads) >= 0}
        # outer axes too: blocks of padding have no channels of their own
        families = without(labels, node, value, [axis for axis in amounts if axis not in movable_pads])
        rest = [axis for axis in range(len(dims_of(value))) if axis not in movable_pads]
        made = {family.inner: labels.coarsen(family, [*rest, family.inner]) for family in families}
        for axis, (before, after) in movable_pads.items():
            if axis in made:
                channels = labels.coarsen(made[axis], [axis]).labels
                padded = np.concatenate([labels.fresh(before), channels, labels.fresh(after)])
                made[axis] = Family((axis,), padded)
        labels.give(node.outputs[0], list(made.values()))

    def resize(self, node: ir.Node, cut: Cut) -> None:
        changed = {}
        for axis, (before, after) in _amounts(node).items():
            kept = cut.kept(node.outputs[0], axis)
            if kept is not None:
                size = dims_of(node.outputs[0])[axis] or 0
                changed[axis] = (int((kept < before).sum()), int((kept >= size - after).sum()))
        pads = constant(node.inputs[1])
        if changed and pads is not None:
            new = pads.copy()
            for place, axis in enumerate(_padded_axes(node)):
                if axis in changed:
                    new[place], new[place + len(new) // 2] = changed[axis]
            set_operand(node, 1, new)

    def widens(self, node: ir.Node) -> bool:
        if len(node.inputs) < 2 or constant(node.inputs[1]) is None:
            return False
        amounts = _amounts(node)
        return bool(amounts) and all(axis >= 2 and min(pads) >= 0 for axis, pads in amounts.items())

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.pad_role(node)


class Expand(Operator):
    """Labels pass where the axis is not repeated, and start where one number fills all; the shape is rewritten."""

    op_types: ClassVar[tuple[str, ...]] = ("Expand",)
    open_shape: ClassVar[bool] = True

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        before, after = dims_of(node.inputs[0]), dims_of(node.outputs[0])
        shift = len(after) - len(before)
        new = {axis: axis + shift for axis in range(len(before))}
        made = [family.renamed(new) for family in movable(labels, node.inputs[0])]
        # one number all along an axis: any of its places may go; copies of channels (heads of a key) are left to those
        if not made and node.outputs[0].dtype is not ir.DataType.INT64:
            for axis, size in enumerate(after):
                if size is not None and size > 1 and (axis < shift or before[axis - shift] == 1):
                    made.append(Family((axis,), labels.fresh(size)))
        labels.give(node.outputs[0], made)

    def resize(self, node: ir.Node, cut: Cut) -> None:
        shift = len(dims_of(node.outputs[0])) - (len(dims(node.inputs[1]) or ()) and (dims_of(node.inputs[1])[0] or 0))
        sizes = cut.sizes(node.outputs[0])
        set_sizes(node, 1, {axis - shift: size for axis, size in sizes.items() if axis >= shift}, keep=(1,))

    def quantization(self, node: ir.Node) -> Role:
        return Movement("Expand")


class Tile(Operator):
    """Labels are repeated with the elements."""

    op_types: ClassVar[tuple[str, ...]] = ("Tile",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        repeats = constant(node.inputs[1])
        if repeats is None:
            raise CannotCouple("a Tile whose repeats are computed")
        made = []
        for family in movable(labels, node.inputs[0]):
            times = [int(repeats[axis]) for axis in family.axes if isinstance(axis, int)]
            made.append(Family(family.axes, np.tile(family.labels, times)))
        labels.give(node.outputs[0], made)

    def quantization(self, node: ir.Node) -> Role:
        return Movement("Tile")


def _padded_axes(node: ir.Node) -> list[int]:
    """The axis of each pair of amounts."""
    rank = len(dims_of(node.inputs[0]))
    if len(node.inputs) < 4 or node.inputs[3] is None:
        return list(range(rank))
    axes = constant(node.inputs[3])
    if axes is None:
        raise CannotCouple("a Pad of axes that are computed")
    return [int(axis) % rank for axis in axes]


def _amounts(node: ir.Node) -> dict[int, tuple[int, int]]:
    """Positions added before and after each axis that is padded."""
    pads = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if pads is None:
        raise CannotCouple("a Pad by amounts that are computed")
    axes = _padded_axes(node)
    pairs = {axis: (int(pads[n]), int(pads[n + len(axes)])) for n, axis in enumerate(axes)}
    return {axis: pair for axis, pair in pairs.items() if pair != (0, 0)}
