"""Elements taken from, or put to, places that come at run time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.axes import AxisLabels, CannotCouple, Cut, Family, Name
from onnxqp.graph import attribute_int, attribute_string, constant, dims
from onnxqp.ops.join import ASIDE, channel_labels, dims_of, join, movable, rank_of
from onnxqp.ops.operator import Operator
from onnxqp.ops.rewrite import set_operand
from onnxqp.specs import Movement, Role


class GatherElements(Operator):
    """The indexed axis is pinned, as are those of which not all is read; the others pass."""

    op_types: ClassVar[tuple[str, ...]] = ("GatherElements",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        names = _along(node, (0, 1))
        join(labels, node, {0: names, 1: names}, {0: names})

    def quantization(self, node: ir.Node) -> Role:
        return Movement("GatherElements")


class ScatterElements(Operator):
    """The indexed axis is pinned, as are those of which not all is written; the others pass."""

    op_types: ClassVar[tuple[str, ...]] = ("ScatterElements", "Scatter")

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        names = _along(node, (0, 1, 2))
        join(labels, node, dict.fromkeys(range(3), names), {0: names})


class GatherND(Operator):
    """Indexed axes are pinned, those behind them pass."""

    op_types: ClassVar[tuple[str, ...]] = ("GatherND",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        first = attribute_int(node, "batch_dims", 0) + _depth(node)
        tail = list(range(first, rank_of(node.inputs[0])))
        leading = [None] * (rank_of(node.outputs[0]) - len(tail))
        join(labels, node, {0: [*[None] * first, *tail]}, {0: [*leading, *tail]})


class ScatterND(Operator):
    """Axes behind the indexed ones tie in data, updates and output; indexed ones where constant indices form a grid.

    That is, where each indexed axis follows one axis of the updates, as in `x[:, 2:5] = y`: an update goes with the
    position it is written to. Other indexed axes are pinned.
    """

    op_types: ClassVar[tuple[str, ...]] = ("ScatterND",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        first = _depth(node)
        tail = list(range(first, rank_of(node.inputs[0])))
        lead: list[Name | None] = [None] * (rank_of(node.inputs[2]) - len(tail))
        names: list[Name | None] = [None] * first
        grid = grid_of(node)
        for axis, (place, _) in grid.items():
            names[axis] = ASIDE
            if place is not None:
                lead[place] = ASIDE
        join(labels, node, {0: [*names, *tail], 2: [*lead, *tail]}, {0: [*[None] * first, *tail]})
        for value in (node.inputs[0], node.inputs[2]):
            movable(labels, value)
        for axis, (place, positions) in grid.items():
            self._put(node, labels, axis, place, positions)

    def _put(
        self, node: ir.Node, labels: AxisLabels, axis: int, place: int | None, positions: npt.NDArray[np.int64]
    ) -> None:
        """Positions of the data along `axis` go with the updates along `place` that are written there."""
        data, updates = node.inputs[0], node.inputs[2]
        assert data is not None
        assert updates is not None
        channels = channel_labels(labels, data, axis)
        given = None if place is None else channel_labels(labels, updates, place)
        if channels is None:
            if given is not None:
                labels.pin(given, node, "written to positions that are not cut")
            return
        if given is None:
            labels.pin(channels[positions], node, "written to from what is not cut")
        else:
            labels.tie(channels[positions], given)
        labels.attach(node.outputs[0], Family((axis,), channels))

    def resize(self, node: ir.Node, cut: Cut) -> None:
        """The indices of updates that are left, counted anew."""
        indices = constant(node.inputs[1])
        if indices is None:
            return
        shape, new = dims_of(node.inputs[0]), indices.copy()
        for axis in grid_of(node):
            kept = cut.kept(node.inputs[0], axis)
            if kept is not None:
                number = np.zeros(shape[axis] or 0, np.int64)
                number[kept] = np.arange(len(kept))
                new[..., axis] = number[indices[..., axis]]
        for place in range(indices.ndim - 1):
            left = cut.kept(node.inputs[2], place)
            if left is not None:
                new = new.take(left, axis=place)
        if new.shape != indices.shape or (new != indices).any():
            set_operand(node, 1, new)


def grid_of(node: ir.Node) -> dict[int, tuple[int | None, npt.NDArray[np.int64]]]:
    """Indexed axes of the data that constant indices meet one axis of the updates each, and at which positions.

    None for the axis where all updates go to one position.
    """
    indices = constant(node.inputs[1])
    if indices is None or not indices.size or attribute_string(node, "reduction", "none") != "none":
        return {}
    found: dict[int, tuple[int | None, npt.NDArray[np.int64]]] = {}
    for axis in range(indices.shape[-1]):
        here, size = indices[..., axis], dims_of(node.inputs[0])[axis]
        varying = [place for place in range(here.ndim) if (here != here.take([0], axis=place)).any()]
        if len(varying) > 1 or size is None or (here < 0).any():
            continue
        place = varying[0] if varying else None
        if place is not None and any(other == place for other, _ in found.values()):
            continue
        positions = (
            here.reshape(-1)[:1] if place is None else np.moveaxis(here, place, 0).reshape(here.shape[place], -1)[:, 0]
        )
        if len(np.unique(positions)) == len(positions):
            found[axis] = (place, positions.astype(np.int64))
    return found


class Compress(Operator):
    """The axis of which some positions are chosen is pinned, the others pass."""

    op_types: ClassVar[tuple[str, ...]] = ("Compress",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        if "axis" not in node.attributes:
            raise CannotCouple("a Compress of all elements in a row")
        names = _without(rank_of(node.inputs[0]), [attribute_int(node, "axis", 0)])
        join(labels, node, {0: names}, {0: names})


class OneHot(Operator):
    """Axes of the indices pass; the new one is never cut."""

    op_types: ClassVar[tuple[str, ...]] = ("OneHot",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        rank = rank_of(node.inputs[0])
        output: list[Name | None] = list(range(rank))
        output.insert(attribute_int(node, "axis", -1) % (rank + 1), None)
        join(labels, node, {0: range(rank)}, {0: output})


class ReverseSequence(Operator):
    """The axes of steps and samples are pinned, the others pass."""

    op_types: ClassVar[tuple[str, ...]] = ("ReverseSequence",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        axes = [attribute_int(node, "batch_axis", 1), attribute_int(node, "time_axis", 0)]
        names = _without(rank_of(node.inputs[0]), axes)
        join(labels, node, {0: names}, {0: names})


class Trilu(Operator):
    """The axes of the matrices are pinned, the others pass."""

    op_types: ClassVar[tuple[str, ...]] = ("Trilu",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        names = _without(rank_of(node.inputs[0]), [-1, -2])
        join(labels, node, {0: names}, {0: names})


class Det(Operator):
    """The axes of the matrices are pinned, the others pass."""

    op_types: ClassVar[tuple[str, ...]] = ("Det",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        names = _without(rank_of(node.inputs[0]), [-1, -2])
        join(labels, node, {0: names}, {0: names[:-2]})


class Opaque(Operator):
    """Pinned: what comes out is no tensor, or its size is known only at run time."""

    op_types: ClassVar[tuple[str, ...]] = (
        *("NonZero", "Unique", "NonMaxSuppression", "EyeLike", "AffineGrid"),
        *("SequenceConstruct", "SequenceEmpty", "SequenceAt", "SequenceInsert", "SequenceErase", "SequenceLength"),
        *("SequenceMap", "ConcatFromSequence", "SplitToSequence"),
        *("Optional", "OptionalGetElement", "OptionalHasElement"),
        *("StringNormalizer", "TfIdfVectorizer"),
    )

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        labels.pin_node(node, f"{node.op_type} has no channels")


def _along(node: ir.Node, indices: Sequence[int]) -> list[Name | None]:
    """Names of the axes that all of some inputs share whole; the indexed one has none."""
    shapes = [dims_of(node.inputs[index]) for index in indices]
    axis = attribute_int(node, "axis", 0) % len(shapes[0])
    same = [len({shape[i] for shape in shapes}) == 1 for i in range(len(shapes[0]))]
    return [i if whole and i != axis else None for i, whole in enumerate(same)]


def _depth(node: ir.Node) -> int:
    """How many axes each index tells."""
    shape = dims(node.inputs[1])
    if not shape or shape[-1] is None:
        raise CannotCouple("indices of unknown length")
    return shape[-1]


def _without(rank: int, axes: Sequence[int]) -> list[Name | None]:
    mixed = {axis % rank for axis in axes}
    return [None if axis in mixed else axis for axis in range(rank)]
