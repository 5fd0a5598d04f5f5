"""Axis labels: which slices of which tensors disappear together.

Every index of every cuttable axis of every value carries an integer *label*. Operator rules *tie* labels; tied labels
form a *class*, and removing a class removes every slice that carries one of its labels. Labels are born on the axes of
constants (weights) and in padding; activations only carry them on, so one forward pass over the nodes is enough.

A value's labels come in *families*. A family `(axes, labels)` says that the slice at `labels[i, ..., k]` of the named
axes goes when that label goes. All axes but the last are *outer*: they number blocks and are never cut. The last axis
is *inner*: each block is compacted along it, so every block must keep the same number (`balance`). An axis that is no
family's inner axis is never cut. Two families may share outer axes; an inner axis belongs to one family.

The method and its reasons: design page "The heart of pruning". Only numpy is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx_ir as ir

Labels: TypeAlias = npt.NDArray[np.int64]
Name: TypeAlias = Hashable

MOST_LABELS = 1 << 26  # of one graph: half a gigabyte of them, and far more channels than any network has


class CannotCouple(Exception):
    """An operator rule found a node that it does not cover; the node is pinned with this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Pin:
    """Why a label can never be removed: the operator and node that read it, and the reason."""

    op_type: str
    node: str
    reason: str


@dataclass(frozen=True, eq=False)
class Family:
    """Labels over an ordered tuple of axes, outer ones first, the compacted inner axis last.

    `labels` is int64 of shape `[dim(a) for a in axes]`. Inside `ops.join` the axes are names, elsewhere numbers.
    """

    axes: tuple[Name, ...]
    labels: Labels

    @property
    def inner(self) -> Name:
        return self.axes[-1]

    @property
    def outer(self) -> tuple[Name, ...]:
        return self.axes[:-1]

    def renamed(self, new: Mapping[Any, Any]) -> Family:
        return Family(tuple(new[axis] for axis in self.axes), self.labels)


class Reduction(Enum):
    """How a node uses up a labelled axis: what removed channels must look like to contribute nothing."""

    SUM = "sum"  # as 0
    MEAN = "mean"  # as 0, and the mean counts the kept ones only
    MAX = "max"  # as -inf
    MIN = "min"  # as +inf
    PRODUCT = "product"  # as 1
    STATISTIC = "statistic"  # computed over the kept ones only


@dataclass(frozen=True)
class Zero:
    """Of integers, what stands for 0: input `index` of their reader, along `axis` where each channel has its own."""

    index: int
    axis: int | None = None


@dataclass(frozen=True)
class Scale:
    """Of integers, what they stand for: (w - zero) * scale, by names of constants; along `axis`, or None for all."""

    scale: str
    zero: str | None
    axis: int | None


@dataclass(frozen=True)
class Consumption:
    """Input `index` of `node` (by name) is used up along `axis`, an inner axis of that input."""

    node: str
    index: int
    axis: int
    reduction: Reduction
    zero: Zero | None = None


@dataclass(frozen=True)
class Weight:
    """A constant that `node` multiplies with: its slices measure how much a channel matters.

    `produced` is the axis of `value` whose slices make output channels, `consumed` the axis that meets input channels;
    None where there is none or where channels merely pass (depthwise convolutions produce none of their own).
    """

    node: str
    op_type: str
    value: str
    produced: int | None
    consumed: int | None
    scale: Scale | None = None  # of a weight that the node reads as integers


def components(count: int, left: Labels, right: Labels) -> Labels:
    """Smallest label of each label's class, for classes given by the pairs `left[i] ~ right[i]`.

    Vectorised union-find: every root hooks onto the smallest root it meets, then all paths are compressed; a few rounds
    of numpy over all pairs, O((count + pairs) log count) in practice.
    """
    parent = np.arange(count, dtype=np.int64)
    while True:
        a, b = parent[left], parent[right]
        differ = a != b
        if not differ.any():
            return parent
        left, right, a, b = left[differ], right[differ], a[differ], b[differ]
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
        while True:
            grand = parent[parent]
            if np.array_equal(grand, parent):
                break
            parent = grand


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
        name = _name(value)
        return () if name is None else self._families.get(name, ())

    def family(self, value: ir.Value | str, axis: int) -> Family | None:
        """The family whose inner axis is `axis`."""
        return next((family for family in self.families(value) if family.inner == axis), None)

    def give(self, value: ir.Value, families: Sequence[Family]) -> None:
        """Set the families of an output. One that would cut an axis on which another's blocks lie is pinned."""
        name = _name(value)
        if name is None or not families:
            return
        outer = {axis for family in families for axis in family.outer}
        for family in families:
            if family.inner in outer:
                self.pin_because(family.labels, Pin("", "", f"numbers blocks of channels in '{name}'"))
        self._families[name] = tuple(families)

    def own(self, value: ir.Value, axes: tuple[int, ...]) -> Family:
        """A new family on the axes of a constant. Labels of a frozen axis are born pinned."""
        name, shape = _name(value), _dims(value)
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
        name = _name(value)
        if name is not None:
            self._families[name] = (*self.families(value), family)

    def adopt(self, value: ir.Value, family: Family) -> None:
        """One more reason for slices of a constant to go: ties with the labels it has on that axis, or is attached."""
        name = _name(value)
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
        name = _name(value)
        if name is not None:
            self._frozen_axes.setdefault((name, axis), pin)
            for family in self.families(value):
                if family.inner == axis:
                    self.pin_because(family.labels, pin)

    def freeze_value(self, value: ir.Value | None, pin: Pin) -> None:
        """No axis of `value` is ever cut."""
        name = _name(value)
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
        name = _name(value)
        if name is None:
            return None
        return self._frozen_axes.get((name, axis)) or self._frozen.get(name)

    def inherit(self, node: ir.Node) -> None:
        """Outputs that got no labels because an input is frozen are frozen for the same reason."""
        pins = (self._frozen.get(name) for value in node.inputs if (name := _name(value)) is not None)
        pin = next((pin for pin in pins if pin is not None), None)
        if pin is None:
            return
        for output in node.outputs:
            name = _name(output)
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
        name = _name(node.inputs[index])
        if name is not None:
            self.weights.append(Weight(node.name or "", node.op_type, name, produced, consumed, scale))

    def consume(self, node: ir.Node, index: int, axis: int, reduction: Reduction, zero: Zero | None = None) -> None:
        """`node` uses up `axis` of input `index`: the masked model keeps removed labels out of it there."""
        consumption = Consumption(node.name or "", index, axis, reduction, zero)
        self.consumptions[(consumption.node, index, axis)] = consumption


class Cut:
    """What is left of every axis once some labels are removed.

    `removed` is a boolean array over all labels. Sizes are those of the cut graph; positions are those before the cut.
    """

    def __init__(self, labels: AxisLabels, removed: npt.NDArray[np.bool_]) -> None:
        self._labels = labels
        self._removed = removed
        self._masks: dict[str, list[tuple[tuple[int, ...], npt.NDArray[np.bool_]]]] = {}

    def whole(self, node: ir.Node) -> bool:
        """Whether the blocks of a node go as a whole."""
        return node.name in self._labels.whole

    def masks(self, value: ir.Value | str | None) -> list[tuple[tuple[int, ...], npt.NDArray[np.bool_]]]:
        """For every family of `value` that loses something: its axes, and True where a slice is kept."""
        name = _name(value)
        if name is None:
            return []
        if name not in self._masks:
            lost = ((_numbers(family), self._removed[family.labels]) for family in self._labels.families(name))
            self._masks[name] = [(axes, ~gone) for axes, gone in lost if gone.any()]
        return self._masks[name]

    def mask(self, value: ir.Value | str | None, axis: int) -> tuple[tuple[int, ...], npt.NDArray[np.bool_]] | None:
        """The one of `masks` whose inner axis is `axis`."""
        return next((entry for entry in self.masks(value) if entry[0][-1] == axis), None)

    def sizes(self, value: ir.Value | str | None) -> dict[int, int]:
        """New sizes of the axes that change."""
        found = {}
        for axes, kept in self.masks(value):
            counts = kept.sum(axis=-1).reshape(-1)
            if not (counts == counts[0]).all():
                raise ValueError(f"blocks of axis {axes[-1]} of {_name(value)!r} keep different numbers")
            found[axes[-1]] = int(counts[0])
        return found

    def size(self, value: ir.Value | str | None, axis: int) -> int | None:
        """The new size of an axis, None if it does not change."""
        return self.sizes(value).get(axis)

    def kept(self, value: ir.Value | str | None, axis: int) -> npt.NDArray[np.int64] | None:
        """Positions kept along an axis on which every block keeps the same ones, None if the axis does not change."""
        entry = self.mask(value, axis)
        if entry is None:
            return None
        rows = entry[1].reshape(-1, entry[1].shape[-1])
        if not (rows == rows[0]).all():
            raise ValueError(f"blocks of axis {axis} of {_name(value)!r} keep different positions")
        return np.flatnonzero(rows[0])

    def compact(self, value: ir.Value | str | None, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """`array`, laid out as `value` was, without the removed slices."""
        for axes, kept in sorted(self.masks(value), key=lambda entry: -len(entry[0])):
            if len(axes) == 1:
                array = np.take(array, np.flatnonzero(kept), axis=axes[0])
                continue
            count = int(kept.reshape(-1, kept.shape[-1])[0].sum())
            positions = np.nonzero(kept)[-1].reshape(*kept.shape[:-1], count)
            array = np.take_along_axis(array, spread(positions, axes, array.ndim), axis=axes[-1])
        return array


def spread(array: npt.NDArray[Any], axes: Sequence[int], rank: int) -> npt.NDArray[Any]:
    """`array`, whose axes are `axes` of a tensor of this rank, in any order, as one that broadcasts against it."""
    order = np.argsort(axes)
    shape = [1] * rank
    for place, axis in enumerate(axes):
        shape[axis] = array.shape[place]
    return array.transpose(order).reshape(shape)


def _dims(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """Static dimensions, None where symbolic; None when not even the rank is known."""
    if value is None or value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def _name(value: ir.Value | str | None) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return value.name or None


def _numbers(family: Family) -> tuple[int, ...]:
    return tuple(axis for axis in family.axes if isinstance(axis, int))
