"""Joining and splitting along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxqp.axes import AxisLabels, CannotCouple, Cut, Family, Labels
from onnxqp.graph import attribute_int, constant
from onnxqp.ops import folding
from onnxqp.ops.join import ASIDE, dims_of, join, movable, rank_of
from onnxqp.ops.operator import Elements, Operator
from onnxqp.ops.rewrite import set_operand
from onnxqp.specs import Compute, Movement, Role


class Concat(Operator):
    """Labels are concatenated on the axis and tie on all others."""

    op_types: ClassVar[tuple[str, ...]] = ("Concat",)
    moves: ClassVar[bool] = True
    joins: ClassVar[bool] = True
    keeps_axes: ClassVar[bool] = True

    def keeps_places(self, node: ir.Node) -> bool:
        return attribute_int(node, "axis", 0) == 1

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        couple_joined(node, labels, range(len(node.inputs)))

    def elements(self, node: ir.Node, known: folding.Known) -> Elements | None:
        return folding.concat_elements(node, known)

    def quantization(self, node: ir.Node) -> Role:
        return Compute("Concat", tuple(range(len(node.inputs))), copies=True)


class Split(Operator):
    """Labels are split on the axis, the sizes rewritten; other axes pass."""

    op_types: ClassVar[tuple[str, ...]] = ("Split",)
    moves: ClassVar[bool] = True

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        axis, sizes = split_sizes(node)
        families = movable(labels, node.inputs[0])
        start = 0
        for output, size in zip(node.outputs, sizes, strict=True):
            parts = (take_range(labels, node, family, axis, start, start + size) for family in families)
            labels.give(output, [part for part in parts if part is not None])
            start += size

    def resize(self, node: ir.Node, cut: Cut) -> None:
        axis, sizes = split_sizes(node)
        new = [cut.size(output, axis) for output in node.outputs]
        if any(size is not None for size in new):
            node.attributes.pop("num_outputs", None)
            left = [old if size is None else size for old, size in zip(sizes, new, strict=True)]
            set_operand(node, 1, np.array(left, np.int64))

    def quantization(self, node: ir.Node) -> Role:
        return Movement("Split")


def couple_joined(node: ir.Node, labels: AxisLabels, parts: Sequence[int]) -> None:
    """Join the inputs `parts` along the node's axis."""
    rank = rank_of(node.inputs[parts[0]])
    axis = attribute_int(node, "axis", 0) % rank
    for index in parts:
        movable(labels, node.inputs[index])
    joined = _concatenate(node, labels, [node.inputs[index] for index in parts], axis)
    names = [ASIDE if i == axis else i for i in range(rank)]
    join(labels, node, dict.fromkeys(parts, names), {0: names})
    if joined is not None:
        labels.give(node.outputs[0], [*labels.families(node.outputs[0]), joined])


def take_range(labels: AxisLabels, node: ir.Node, family: Family, axis: int, start: int, stop: int) -> Family | None:
    """The family of positions `start` to `stop` of an axis; None where nothing is left to cut.

    Along the inner axis every block must keep as many before the range and inside it, so that one pair of bounds fits.
    A single position has no axis to be cut along: its labels are pinned.
    """
    if axis not in family.axes:
        return family
    place = family.axes.index(axis)
    part = family.labels.take(np.arange(start, stop), axis=place)
    if stop - start == 1:
        if place == len(family.axes) - 1:
            labels.pin(part, node, "taken alone")
            return None
        return Family(tuple(a for a in family.axes if a != axis), part.squeeze(place))
    if place == len(family.axes) - 1 and family.outer:
        width = family.labels.shape[-1]
        for first, last in ((0, start), (start, stop), (stop, width)):
            if first < last:
                labels.balance(family.labels[..., first:last].reshape(-1, last - first))
    return Family(family.axes, part)


def split_sizes(node: ir.Node) -> tuple[int, list[int]]:
    """The axis of a Split, and the size of each output."""
    axis = attribute_int(node, "axis", 0) % rank_of(node.inputs[0])
    operand = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if operand is not None:
        return axis, [int(size) for size in operand]
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        raise CannotCouple("a Split into sizes that are computed")
    whole = dims_of(node.inputs[0])[axis]
    if whole is None:
        raise CannotCouple("a Split of an axis of unknown size")
    each = -(-whole // len(node.outputs))
    return axis, [min(each, whole - i * each) for i in range(len(node.outputs))]


def _concatenate(node: ir.Node, labels: AxisLabels, values: Sequence[ir.Value | None], axis: int) -> Family | None:
    """The labels of all operands along the axis, one after the other; those of an operand without are pinned."""
    families = [None if value is None else labels.family(value, axis) for value in values]
    known = [family for family in families if family is not None]
    if not known:
        return None
    outer = tuple(a for a in known[0].outer if all(a in family.outer for family in known))
    blocks = labels.coarsen(known[0], (*outer, axis)).labels.shape[:-1]
    parts: list[Labels] = []
    for value, family in zip(values, families, strict=True):
        if family is not None:
            whole = labels.coarsen(family, (*outer, axis))
            parts.append(whole.labels.transpose([whole.axes.index(a) for a in (*outer, axis)]))
            continue
        size = dims_of(value)[axis]
        if size is None:
            raise CannotCouple("a Concat of an operand of unknown size")
        fixed = labels.fresh(size)
        labels.pin(fixed, node, f"'{'' if value is None else value.name}' is not cut")
        parts.append(np.broadcast_to(fixed, (*blocks, size)))
    joined = np.concatenate(parts, axis=-1)
    if outer:
        for part in parts:
            labels.balance(part.reshape(-1, part.shape[-1]))
    return Family((*outer, axis), joined)
