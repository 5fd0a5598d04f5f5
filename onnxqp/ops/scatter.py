"""Elements taken from, or put to, places that come at run time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import onnx_ir as ir

from onnxqp.axes import AxisLabels, CannotCouple, Name
from onnxqp.graph import attribute_int, dims
from onnxqp.ops.join import dims_of, join, rank_of
from onnxqp.ops.operator import Operator
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
    """Indexed axes are pinned; those behind them tie in the data, the updates and the output."""

    op_types: ClassVar[tuple[str, ...]] = ("ScatterND",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        first = _depth(node)
        tail = list(range(first, rank_of(node.inputs[0])))
        updates: list[Name | None] = [*[None] * (rank_of(node.inputs[2]) - len(tail)), *tail]
        names = [*[None] * first, *tail]
        join(labels, node, {0: names, 2: updates}, {0: names})


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
