"""The one tie behind most operators: axes of one name tie, position by position, as in an Einstein sum."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import onnx_ir as ir

from onnxqp.axes import AxisLabels, CannotCouple, Family, Labels, Name, Pin, Reduction, Zero
from onnxqp.graph import dims, is_constant

Names: TypeAlias = Sequence[Name | None]

ASIDE = object()
"""Name of an axis whose labels the rule moves itself: `join` leaves them alone, and only evens out blocks along it."""


def join(
    labels: AxisLabels,
    node: ir.Node,
    inputs: Mapping[int, Names],
    outputs: Mapping[int, Names],
    *,
    reduction: Reduction = Reduction.SUM,
    statistic: Collection[Name] = (),
    zeros: Mapping[int, int] = MappingProxyType({}),
) -> None:
    """Tie inputs and outputs of `node` by the names of their axes.

    `inputs` and `outputs` give, by index, one name per axis. An axis of size 1 broadcasts and stays out. An axis named
    None mixes its positions in a way no name describes: labels on it are pinned, and blocks along it must keep the same
    positions. A name that no output has is used up by `reduction`. Along `statistic` names the node computes statistics
    over the kept positions. Constants get labels where another operand has some, or where nobody else has the axis.
    `zeros`: of operands that are integers, the input that says what stands for 0.
    """
    _Join(labels, node, inputs, outputs, zeros).run(reduction, statistic)


def movable(labels: AxisLabels, value: ir.Value | None) -> tuple[Family, ...]:
    """The families of a value that a node moves about; a constant first gets labels on every axis that has none."""
    if value is None:
        return ()
    if can_own(labels, value):
        taken = {axis for family in labels.families(value) for axis in family.axes}
        for axis, size in enumerate(dims(value) or ()):
            if size is not None and size > 1 and axis not in taken:
                labels.own(value, (axis,))
    return labels.families(value)


def without(labels: AxisLabels, node: ir.Node, value: ir.Value | None, mixed: Collection[int]) -> list[Family]:
    """The families of a moved value after its `mixed` axes are pinned and blocks along them made to match."""
    if value is None:
        return []
    families = movable(labels, value)
    for axis in mixed:
        labels.freeze(
            value, axis, Pin(node.op_type, node.name or "", f"{node.op_type} mixes the positions of this axis")
        )
    rest = [axis for axis in range(rank_of(value)) if axis not in mixed]
    return [labels.coarsen(family, rest) for family in families if family.inner not in mixed]


def channel_labels(labels: AxisLabels, value: ir.Value, axis: int) -> Labels | None:
    """Labels along one axis that hold for all positions of the others; None for an axis that is never cut."""
    family = labels.family(value, axis)
    return None if family is None else labels.coarsen(family, (axis,)).labels


def tie_axis(labels: AxisLabels, node: ir.Node, index: int, axis: int, channels: Labels) -> None:
    """Tie an axis of an operand to `channels`; where the operand cannot be cut, neither can they."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return
    there = channel_labels(labels, value, axis)
    if there is None and can_own(labels, value):
        there = labels.own(value, (axis,)).labels
    if there is not None:
        labels.tie(there, channels)
        return
    why = labels.why_free(value, axis)
    labels.pin_because(channels, why or Pin(node.op_type, node.name or "", f"meets '{value.name}', which is not cut"))


def is_weight(labels: AxisLabels, value: ir.Value | None) -> bool:
    """Whether a value is a constant, or rebuilt from constants whenever the model runs."""
    return is_constant(value) or (value is not None and value.name in labels.rebuilt)


def can_own(labels: AxisLabels, value: ir.Value) -> bool:
    """Whether labels may start in a value: weights, but not of int64: those are shapes, indices and counters."""
    return value.dtype is not ir.DataType.INT64 and is_weight(labels, value)


def same_shape(node: ir.Node) -> Sequence[int | str | None] | None:
    """The shape of input 0, for an output whose shape onnx's inference does not know."""
    value = node.inputs[0]
    if node.outputs[0].shape is not None or value is None or value.shape is None:
        return None
    return [size if isinstance(size, int) else size.value for size in value.shape]


def rank_of(value: ir.Value | None) -> int:
    """The rank of a value; the node is pinned where it is unknown."""
    return len(dims_of(value))


def dims_of(value: ir.Value | None) -> tuple[int | None, ...]:
    """The static dimensions of a value; the node is pinned where not even the rank is known."""
    shape = dims(value)
    if shape is None:
        raise CannotCouple("an operand has no known shape")
    return shape


class _Join:
    """One `join`, step by step."""

    def __init__(
        self,
        labels: AxisLabels,
        node: ir.Node,
        inputs: Mapping[int, Names],
        outputs: Mapping[int, Names],
        zeros: Mapping[int, int],
    ) -> None:
        self.labels = labels
        self.node = node
        self.outputs = outputs
        self.zeros = zeros
        self.merged: dict[Name, Family] = {}  # by inner name
        self.operands: dict[int, dict[Name, int]] = {}  # of each input: the axis of each name
        self.opaque: dict[int, list[int]] = {}
        for index, names in inputs.items():
            shape = dims_of(self.value(index))
            if len(shape) != len(names):
                raise CannotCouple(f"input {index} has rank {len(shape)}, not {len(names)}")
            wide = [axis for axis, size in enumerate(shape) if size != 1 and names[axis] is not ASIDE]
            self.operands[index] = {names[axis]: axis for axis in wide if names[axis] is not None}
            self.opaque[index] = [axis for axis in wide if names[axis] is None]
            if len(self.operands[index]) + len(self.opaque[index]) != len(wide):
                raise CannotCouple("an operand is read along its diagonal")

    def value(self, index: int) -> ir.Value:
        value = self.node.inputs[index]
        if value is None:
            raise CannotCouple(f"input {index} is missing")
        return value

    def run(self, reduction: Reduction, statistic: Collection[Name]) -> None:
        for index in self.operands:
            self.collect(index)
        for index in self.operands:
            if can_own(self.labels, self.value(index)):
                self.label_constant(index)
        self.pin_conflicts()
        self.record(reduction, statistic)
        for index, names in self.outputs.items():
            self.give(index, names, statistic)

    def collect(self, index: int) -> None:
        """Bring the families of one input into the common names and merge them with those already there."""
        value = self.value(index)
        named: dict[Name, Name] = {axis: name for name, axis in self.operands[index].items()}
        for axis in self.opaque[index]:
            self.labels.freeze(value, axis, self.pin(f"{self.node.op_type} mixes the positions of this axis"))
        for family in self.labels.families(value):
            if family.inner in named:
                self.merge(self.labels.coarsen(family, named).renamed(named))

    def merge(self, family: Family) -> None:
        there = self.merged.get(family.inner)
        if there is not None:
            common = [name for name in there.axes if name in family.axes]
            there = self.labels.coarsen(there, common)
            family = self.labels.coarsen(family, common)
            order = [family.axes.index(name) for name in there.axes]
            self.labels.tie(there.labels, family.labels.transpose(order))
            family = there
        self.merged[family.inner] = family

    def label_constant(self, index: int) -> None:
        """Give the axes of a constant labels where another operand has some, or where nobody else has the axis."""
        value, axis_of = self.value(index), self.operands[index]
        taken = {axis for family in self.labels.families(value) for axis in family.axes}
        outer = {name for family in self.merged.values() for name in family.outer}
        named: dict[Name, Name] = {axis: name for name, axis in axis_of.items()}
        for name, axis in axis_of.items():
            there = self.merged.get(name)
            if axis in taken:
                continue
            if there is not None:
                axes = tuple(axis_of[n] for n in there.axes if n in axis_of)
                self.merge(self.labels.own(value, axes).renamed(named))
            elif name in outer or self.others(index, name):
                self.labels.freeze(value, axis, self.reason_free(name, index))
            else:
                self.merge(self.labels.own(value, (axis,)).renamed(named))

    def others(self, index: int, name: Name) -> bool:
        """Whether an operand that is no constant has this axis, without labels."""
        return any(
            name in self.operands[i] and not can_own(self.labels, self.value(i)) for i in self.operands if i != index
        )

    def reason_free(self, name: Name, but: int | None = None) -> Pin:
        """Why an axis cannot be cut: the reason of the operand that has it without labels."""
        for index, axis_of in self.operands.items():
            if index != but and name in axis_of:
                value = self.value(index)
                why = self.labels.why_free(value, axis_of[name])
                if why is not None:
                    return why
                if self.labels.family(value, axis_of[name]) is None:
                    return self.pin(f"meets axis {axis_of[name]} of '{value.name}', which is not a channel axis")
        return self.pin("numbers blocks of channels")

    def pin_conflicts(self) -> None:
        """Pin families along an axis that another operand has without labels, or as the block axis of a family."""
        outer = {name for family in self.merged.values() for name in family.outer}
        for name, family in self.merged.items():
            free = any(
                name in axis_of and self.labels.family(self.value(index), axis_of[name]) is None
                for index, axis_of in self.operands.items()
            )
            if free or name in outer:
                self.labels.pin_because(family.labels, self.reason_free(name))
                self.labels.clashes += [each.labels for each in self.merged.values() if name in each.outer]

    def record(self, reduction: Reduction, statistic: Collection[Name]) -> None:
        """Note where each used-up axis is consumed: at a constant operand if there is one."""
        kept = {name for names in self.outputs.values() for name in names}
        for name in self.merged:
            having = [index for index, axis_of in self.operands.items() if name in axis_of]
            if name in statistic:
                self.labels.consume(self.node, having[0], self.operands[having[0]][name], Reduction.STATISTIC)
            elif name not in kept:
                index = next((i for i in having if is_weight(self.labels, self.value(i))), having[0])
                if len(having) > 1 and len(self.merged[name].axes) > 1 and index == having[0]:
                    self.labels.heads.append(self.merged[name].labels)
                self.labels.consume(self.node, index, self.operands[index][name], reduction, self.zero(index))

    def zero(self, index: int) -> Zero | None:
        """What stands for 0 in an operand; an axis that the zero points have stands in the operand too."""
        at = self.zeros.get(index)
        if at is None or at >= len(self.node.inputs) or self.node.inputs[at] is None:
            return None
        along = next(iter(self.operands.get(at, ())), None)
        return Zero(at, None if along is None else self.operands[index].get(along))

    def give(self, index: int, names: Names, statistic: Collection[Name]) -> None:
        if index >= len(self.node.outputs):
            return
        axis_of: dict[Name, Name] = {name: axis for axis, name in enumerate(names) if name is not None}
        families = []
        for family in self.merged.values():
            if family.inner in axis_of:
                keep = [n for n in family.axes if n == family.inner or (n in axis_of and n not in statistic)]
                families.append(self.labels.coarsen(family, keep).renamed(axis_of))
        self.labels.give(self.node.outputs[index], families)

    def pin(self, reason: str) -> Pin:
        return Pin(self.node.op_type, self.node.name or "", reason)
