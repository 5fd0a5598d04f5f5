"""Selecting elements along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxqp.axes import AxisLabels, CannotCouple, Cut, Family
from onnxqp.graph import attribute_int, constant, dims
from onnxqp.ops import folding
from onnxqp.ops.concat import take_range
from onnxqp.ops.join import dims_of, movable, rank_of, without
from onnxqp.ops.operator import Elements, Operator
from onnxqp.ops.rewrite import replace_slice, set_operand
from onnxqp.specs import Movement, Role


class Slice(Operator):
    """Labels are sliced, the bounds rewritten; replaced by Gather when what is kept is no range."""

    op_types: ClassVar[tuple[str, ...]] = ("Slice",)
    moves: ClassVar[bool] = True

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        value = node.inputs[0]
        families = movable(labels, value)
        for axis, positions in sliced_positions(node).items():
            if positions is None:
                families = without_axis(labels, node, families, axis)
            elif len(positions) == 0:
                raise CannotCouple("a Slice of nothing")
            else:
                families = tuple(
                    part for family in families if (part := _slice(labels, node, family, axis, positions)) is not None
                )
        labels.give(node.outputs[0], families)

    def resize(self, node: ir.Node, cut: Cut) -> None:
        entries = {axis: cut.mask(node.inputs[0], axis) for axis in range(rank_of(node.inputs[0]))}
        for place, (axis, positions) in enumerate(sliced_positions(node).items()):
            entry = entries[axis]
            if entry is not None and positions is not None:
                kept = entry[1].reshape(-1, entry[1].shape[-1])[0]  # bounds fit every block: any will do
                new = (np.cumsum(kept) - 1)[positions]
                replace_slice(node, axis, place, new[kept[positions]], int(kept.sum()))

    def quantization(self, node: ir.Node) -> Role:
        return Movement("Slice")


class Gather(Operator):
    """With constant indices labels are taken and the indices renumbered; with dynamic ones the axis is pinned."""

    op_types: ClassVar[tuple[str, ...]] = ("Gather",)
    moves: ClassVar[bool] = True

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        value, indices = node.inputs[0], constant(node.inputs[1])
        rank = rank_of(value)
        axis = attribute_int(node, "axis", 0) % rank
        if indices is None:
            families, many = without(labels, node, value, [axis]), rank_of(node.inputs[1])
        else:
            families, many = list(movable(labels, value)), indices.ndim
        new = {old: old if old < axis else old + many - 1 for old in range(rank)}
        made = []
        for family in families:
            if axis not in family.axes:
                made.append(family.renamed(new))
            elif indices is not None:
                made += _gather(labels, node, family, axis, indices, new)
        labels.give(node.outputs[0], made)

    def resize(self, node: ir.Node, cut: Cut) -> None:
        axis = attribute_int(node, "axis", 0) % rank_of(node.inputs[0])
        indices, kept = constant(node.inputs[1]), cut.kept(node.inputs[0], axis)
        if indices is None or kept is None:
            return
        size = dims_of(node.inputs[0])[axis] or 0
        place = np.full(size, -1, np.int64)
        place[kept] = np.arange(len(kept))
        renumbered = place[np.where(indices < 0, indices + size, indices)]
        if indices.ndim:
            inner = [axes[-1] - axis for axes, _ in cut.masks(node.outputs[0])]
            along = next((place for place in inner if 0 <= place < indices.ndim), indices.ndim - 1)
            moved = np.moveaxis(renumbered, along, -1)
            left = np.array([row[row >= 0] for row in moved.reshape(-1, moved.shape[-1])])
            renumbered = np.moveaxis(left.reshape(*moved.shape[:-1], -1), -1, along)
        set_operand(node, 1, renumbered.astype(indices.dtype))

    def elements(self, node: ir.Node, known: folding.Known) -> Elements | None:
        return folding.gather_elements(node, known)

    def index_limit(self, node: ir.Node, index: int) -> int | None:
        table = dims(node.inputs[0])
        axis = attribute_int(node, "axis", 0)
        return table[axis] if index == 1 and table is not None and table else None

    def quantization(self, node: ir.Node) -> Role:
        return Movement("Gather")


def sliced_positions(node: ir.Node) -> dict[int, np.ndarray | None]:
    """For every sliced axis the positions taken, in order; None where the bounds or the size are computed."""
    shape = dims_of(node.inputs[0])
    operands = [None if value is None else constant(value) for value in node.inputs[1:]]
    given = [value is not None for value in node.inputs[1:]]
    starts, ends, axes, steps = [*operands, None, None][:4]
    if len(given) > 2 and given[2] and axes is None:
        raise CannotCouple("a Slice along axes that are computed")
    count = next((operand.size for operand in (axes, starts, ends) if operand is not None), len(shape))
    which = range(count) if axes is None else [int(axis) % len(shape) for axis in axes]
    found: dict[int, np.ndarray | None] = {}
    for place, axis in enumerate(which):
        size = shape[axis]
        if size is None or starts is None or ends is None or (len(given) > 3 and given[3] and steps is None):
            found[axis] = None
            continue
        bounds = slice(int(starts[place]), int(ends[place]), 1 if steps is None else int(steps[place]))
        found[axis] = _clamped(bounds, size)
    return found


def _clamped(bounds: slice, size: int) -> np.ndarray:
    """Positions of an ONNX slice: bounds are clamped as in Python, but an end below -size stands before the start."""
    start, stop, step = bounds.start, bounds.stop, bounds.step
    start, stop = (bound + size if bound < 0 else bound for bound in (start, stop))
    low, high = (0, size) if step > 0 else (-1, size - 1)
    start = min(max(start, 0), size if step > 0 else size - 1)
    return np.arange(start, min(max(stop, low), high), step)


def without_axis(labels: AxisLabels, node: ir.Node, families: Sequence[Family], axis: int) -> tuple[Family, ...]:
    """The families when positions along `axis` are chosen at run time: those cut along it are pinned."""
    for family in families:
        if family.inner == axis:
            labels.pin(family.labels, node, f"{node.op_type} chooses positions at run time")
    rest = (family for family in families if family.inner != axis)
    return tuple(labels.coarsen(family, [a for a in family.axes if a != axis]) for family in rest)


def _slice(labels: AxisLabels, node: ir.Node, family: Family, axis: int, positions: np.ndarray) -> Family | None:
    if axis in family.axes and (len(positions) == 1 or family.inner != axis or _contiguous(positions)):
        if _contiguous(positions):
            return take_range(labels, node, family, axis, int(positions[0]), int(positions[-1]) + 1)
        return Family(family.axes, family.labels.take(positions, axis=family.axes.index(axis)))
    if family.inner == axis:  # steps and reversals: every block must keep the same positions
        family = labels.coarsen(family, (axis,))
        return Family((axis,), family.labels[positions])
    return family


def _contiguous(positions: np.ndarray) -> bool:
    return bool((np.diff(positions) == 1).all())


def _gather(
    labels: AxisLabels, node: ir.Node, family: Family, axis: int, indices: np.ndarray, new: dict[int, int]
) -> list[Family]:
    """A family along the gathered axis after constant indices: labels are taken as the elements are."""
    if family.inner == axis:
        family = labels.coarsen(family, (axis,))
    place = family.axes.index(axis)
    size = family.labels.shape[place]
    taken = family.labels.take(np.where(indices < 0, indices + size, indices), axis=place)
    if indices.size == 1:
        if family.inner == axis:
            labels.pin(taken, node, "taken alone")
            return []
        rest = tuple(new[a] for a in family.axes if a != axis and isinstance(a, int))
        return [
            Family(rest, taken.reshape([n for a, n in zip(family.axes, family.labels.shape, strict=True) if a != axis]))
        ]
    made = tuple(axis + n for n in range(indices.ndim))
    axes = [n for a in family.axes for n in (made if a == axis else (new[a],))]  # type: ignore[index]
    return _drop_single(labels, Family(tuple(axes), taken))


def _drop_single(labels: AxisLabels, family: Family) -> list[Family]:
    """Axes of size 1 belong to no family; an index array of several axes makes blocks."""
    wide = [n for n, size in enumerate(family.labels.shape) if size > 1]
    made = Family(tuple(family.axes[n] for n in wide), family.labels.reshape([family.labels.shape[n] for n in wide]))
    if len(wide) > 1:
        labels.balance(made.labels.reshape(-1, made.labels.shape[-1]))
    return [made]
