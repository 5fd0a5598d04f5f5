"""The labels of a graph while operator rules walk over it."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxqp.axes.family import Family, Labels, Name, components, name_of
from onnxqp.axes.readings import CannotCouple, Consumption, Pin, Reduction, Scale, Weight, Zero

if TYPE_CHECKING:
    import onnx_ir as ir

MOST_LABELS = 1 << 26  # of one graph: half a gigabyte of them, and far more channels than any network has


class AxisLabels:
    """The labels of a graph while rules walk over it.

    Values and nodes are known by name, so that what was found here holds for every copy of the graph.
    """

    def __init__(self, whole: Collection[str] = ()) -> None:
        self.whole = frozenset(whole)  # nodes whose blocks (heads, groups of a convolution) go as a whole, or stay
        self.blocks: dict[str, list[Labels]] = {}  # by nodes that split axes: blocks that could also go as a whole
        self.clashes: list[Labels] = []  # of channels in blocks, where others have the blocks themselves as channels
        self.heads: list[Labels] = []  # of channels in blocks that products of two activations sum over, block by block
        self._count = 0
        self._ties: list[tuple[Labels, Labels]] = []
        self._families: dict[str, tuple[Family, ...]] = {}
        self._frozen: dict[str, Pin] = {}
        self._frozen_axes: dict[tuple[str, int], Pin] = {}
        self.pins: list[tuple[Labels, Pin]] = []
        self.balances: list[Labels] = []
        self.consumptions: dict[tuple[str, int, int], Consumption] = {}
        self.weights: list[Weight] = []
        self.images: set[str] = set()  # values on their way to an operator that has its channels on axis 1
        self.rebuilt: set[str] = set()  # weights that nodes rebuild from constants, as DequantizeLinear does

    # ---- labels -------------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many labels there are."""
        return self._count

    def fresh(self, *shape: int) -> Labels:
        """New labels, tied to nothing; raises CannotCouple where there would be more than memory is worth."""
        size = math.prod(shape)
        if self._count + size > MOST_LABELS:
            raise CannotCouple(f"an axis of {size} elements, too many to tell apart")
        labels = np.arange(self._count, self._count + size, dtype=np.int64).reshape(shape)
        self._count += size
        return labels

    def tie(self, left: Labels, right: Labels) -> None:
        """Slices with these labels disappear together, element by element after broadcasting."""
        a, b = np.broadcast_arrays(left, right)
        differ = a != b
        if differ.any():
            self._ties.append((a[differ], b[differ]))

    def pin(self, labels: Labels, node: ir.Node, reason: str) -> None:
        """These labels are never removed."""
        self.pin_because(labels, Pin(node.op_type, node.name or "", reason))

    def pin_because(self, labels: Labels, pin: Pin) -> None:
        if labels.size:
            self.pins.append((labels.reshape(-1), pin))

    def balance(self, blocks: Labels) -> None:
        """Every block, a row of `blocks[block, position]`, keeps the same number of positions, and at least one."""
        if blocks.shape[0] > 1:
            self.balances.append(blocks.reshape(blocks.shape[0], -1))

    def split(self, node: ir.Node, blocks: Labels) -> bool:
        """A node splits an axis into the rows of `blocks`. True where rows go as a whole, and are tied for it; else
        every row must keep the same number."""
        rows = blocks.reshape(blocks.shape[0], -1)
        if node.name in self.whole:
            self.tie(rows[:, :1], rows)
            return True
        self.offer(node, rows)
        self.balance(rows)
        return False

    def offer(self, node: ir.Node, blocks: Labels) -> None:
        """The rows of `blocks` could go as a whole at a node, should it be named in `whole`."""
        self.blocks.setdefault(node.name or "", []).append(blocks)

    def coarsen(self, family: Family, keep: Collection[Name]) -> Family:
        """The family over those of its axes that are in `keep`: labels that differ only along the others are tied.

        Used where positions must mean the same in every block: where blocks are mixed, or reordered so that the
        compacted elements of different blocks would interleave (channel shuffle).
        """
        dropped = [i for i, axis in enumerate(family.axes) if axis not in keep]
        if not dropped:
            return family
        kept = [i for i, axis in enumerate(family.axes) if axis in keep]
        labels = family.labels.transpose(*dropped, *kept)
        rows = labels.reshape(-1, *labels.shape[len(dropped) :])
        self.tie(rows[:1], rows[1:])
        return Family(tuple(family.axes[i] for i in kept), rows[0])

    def classes(self) -> Labels:
        """The class of every label: the smallest label tied to it."""
        if not self._ties:
            return np.arange(self._count, dtype=np.int64)
        left, right = (np.concatenate(side) for side in zip(*self._ties, strict=True))
        return components(self._count, left, right)

    # ---- values -------------------------------------------------------------------------------------------------

    def families(self, value: ir.Value | str | None) -> tuple[Family, ...]:
        """The families of a value, by number of axis; none for one that is never cut."""
        name = name_of(value)
        return () if name is None else self._families.get(name, ())

    def family(self, value: ir.Value | str, axis: int) -> Family | None:
        """The family whose inner axis is `axis`."""
        return next((family for family in self.families(value) if family.inner == axis), None)

    def give(self, value: ir.Value, families: Sequence[Family]) -> None:
        """Set the families of an output. One that would cut an axis on which another's blocks lie is pinned."""
        name = name_of(value)
        if name is None or not families:
            return
        outer = {axis for family in families for axis in family.outer}
        for family in families:
            if family.inner in outer:
                self.pin_because(family.labels, Pin("", "", f"numbers blocks of channels in '{name}'"))
        self._families[name] = tuple(families)

    def own(self, value: ir.Value, axes: tuple[int, ...]) -> Family:
        """A new family on the axes of a constant. Labels of a frozen axis are born pinned."""
        name, shape = name_of(value), _dims(value)
        if name is None or shape is None:
            raise CannotCouple("a weight without a name or a shape")
        for axis in axes[:-1]:
            self.freeze(value, axis, Pin("", "", f"numbers blocks of channels in '{name}'"))
        family = Family(axes, self.fresh(*(shape[axis] or 0 for axis in axes)))
        self.attach(value, family)
        pin = self._frozen.get(name) or self._frozen_axes.get((name, axes[-1]))
        if pin is not None:
            self.pin_because(family.labels, pin)
        return family

    def attach(self, value: ir.Value, family: Family) -> None:
        """One more family for a value. Its outer axes may be inner axes of others (rows of a grouped weight)."""
        name = name_of(value)
        if name is not None:
            self._families[name] = (*self.families(value), family)

    def adopt(self, value: ir.Value, family: Family) -> None:
        """One more reason for slices of a constant to go: ties with the labels it has on that axis, or is attached."""
        name = name_of(value)
        there = self.family(value, axis) if isinstance(axis := family.inner, int) else None
        if there is not None:
            common = [a for a in there.axes if a in family.axes]
            there, family = self.coarsen(there, common), self.coarsen(family, common)
            self.tie(there.labels, family.labels.transpose([family.axes.index(a) for a in common]))
            return
        pin = None if name is None else self._frozen.get(name) or self._frozen_axes.get((name, axis))  # type: ignore[arg-type]
        if pin is not None:
            self.pin_because(family.labels, pin)
        self.attach(value, family)

    def freeze(self, value: ir.Value, axis: int, pin: Pin) -> None:
        """`axis` of `value` is never cut: its labels are pinned, those it has and those it may get."""
        name = name_of(value)
        if name is not None:
            self._frozen_axes.setdefault((name, axis), pin)
            for family in self.families(value):
                if family.inner == axis:
                    self.pin_because(family.labels, pin)

    def freeze_value(self, value: ir.Value | None, pin: Pin) -> None:
        """No axis of `value` is ever cut."""
        name = name_of(value)
        if name is not None:
            self._frozen.setdefault(name, pin)
            for family in self.families(value):
                self.pin_because(family.labels, pin)

    def pin_node(self, node: ir.Node, reason: str) -> None:
        """No axis of any input or output of `node` is ever cut."""
        pin = Pin(node.op_type, node.name or "", reason)
        for value in (*node.inputs, *node.outputs):
            self.freeze_value(value, pin)

    def why_free(self, value: ir.Value, axis: int) -> Pin | None:
        """Why an axis without labels is never cut, where it is known."""
        name = name_of(value)
        if name is None:
            return None
        return self._frozen_axes.get((name, axis)) or self._frozen.get(name)

    def inherit(self, node: ir.Node) -> None:
        """Outputs that got no labels because an input is frozen are frozen for the same reason."""
        pins = (self._frozen.get(name) for value in node.inputs if (name := name_of(value)) is not None)
        pin = next((pin for pin in pins if pin is not None), None)
        if pin is None:
            return
        for output in node.outputs:
            name = name_of(output)
            if name is not None and name not in self._families:
                self._frozen.setdefault(name, pin)

    # ---- what nodes do with values ------------------------------------------------------------------------------

    def weigh(
        self,
        node: ir.Node,
        index: int,
        *,
        produced: int | None = None,
        consumed: int | None = None,
        scale: Scale | None = None,
    ) -> None:
        """Input `index` is a weight: where it is a constant, its slices measure how much a channel matters."""
        name = name_of(node.inputs[index])
        if name is not None:
            self.weights.append(Weight(node.name or "", node.op_type, name, produced, consumed, scale))

    def consume(self, node: ir.Node, index: int, axis: int, reduction: Reduction, zero: Zero | None = None) -> None:
        """`node` uses up `axis` of input `index`: the masked model keeps removed labels out of it there."""
        consumption = Consumption(node.name or "", index, axis, reduction, zero)
        self.consumptions[(consumption.node, index, axis)] = consumption


def _dims(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """Static dimensions, None where symbolic; None when not even the rank is known."""
    if value is None or value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else None for size in value.shape)
