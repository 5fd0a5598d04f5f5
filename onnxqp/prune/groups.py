"""Channel groups: what can be cut, what cannot and why.

A *class* is one channel: all slices that carry tied labels. Classes that run through the same weights form a *group*,
which has a name, members, scores, and is cut as one. Classes bound by block demands (`blocks`) belong together too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.axes import AxisLabels, Family, Labels, Pin, Weight, components
from onnxqp.graph import constant, is_constant
from onnxqp.options import Selection
from onnxqp.prune.blocks import Component, bound_components, bundles
from onnxqp.prune.importance import Votes, class_norms
from onnxqp.report.records import PinnedGroup

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bundle:
    """Classes that can only go together, and their mean score.

    `share`: of the channels it competes with, how many are gone once it and those before it are. `bound` by blocks, of
    which each keeps some anyway.
    """

    classes: Labels
    score: float
    share: float
    bound: bool


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that run through the same weights."""

    id: str
    members: tuple[str, ...]  # nodes whose weights lose slices
    classes: Labels
    bundles: tuple[Bundle, ...]

    @property
    def size(self) -> int:
        return len(self.classes)


@dataclass(frozen=True)
class Grouping:
    """Every channel of a graph that some weight produces: in a group, or pinned for a reason."""

    roots: Labels  # the class of every label
    groups: tuple[ChannelGroup, ...]
    pinned: tuple[PinnedGroup, ...]
    pinned_channels: int

    def without(self, group: ChannelGroup, reason: str) -> Grouping:
        """The same, with one group pinned."""
        pinned = PinnedGroup(group.id, list(group.members), reason)
        rest = tuple(other for other in self.groups if other is not group)
        return replace(self, groups=rest, pinned=(*self.pinned, pinned))


@dataclass(frozen=True)
class _Slot:
    """One axis of one weight, as far as it carries labels."""

    weight: Weight
    produced: bool
    family: Family
    classes: Labels


def find_groups(graph: ir.Graph, labels: AxisLabels, selection: Selection, order: Literal[1, 2] = 1) -> Grouping:
    """Group the channels of a labelled graph and score them; nodes that `selection` leaves out keep their channels."""
    roots = labels.classes()
    slots = _slots(graph, labels, roots)
    pins = [*labels.pins, *_left_out(slots, selection)]
    pin_of = np.full(len(roots), -1, np.int64)
    for place in range(len(pins) - 1, -1, -1):  # the first reason wins
        pin_of[roots[pins[place][0]]] = place
    signature = _signatures(slots, len(roots))
    free = (signature != 0) & (pin_of < 0)
    bound = bound_components(labels.balances, roots, free)
    even = np.ones(len(roots))
    stuck = np.zeros(len(roots), np.bool_)
    for component in bound:
        if not bundles(component, even):
            stuck[component.classes] = True
    bound = [component for component in bound if not stuck[component.classes[0]]]
    candidates = np.flatnonzero(free & ~stuck)
    group_of = _number_groups(candidates, signature, bound)
    votes = Votes(group_of)
    for slot in slots:
        if (group_of[slot.classes] >= 0).any():
            array = constant(graph.initializers[slot.weight.value])
            if array is not None:
                votes.add(*class_norms(array, slot.family, roots, order))
    groups = _make_groups(slots, group_of, bound, votes)
    held = [*pins, (np.flatnonzero(stuck & free), Pin("", "", "every block must lose as many, and one cannot"))]
    pin_of[stuck & free] = len(held) - 1
    pinned, count = _make_pinned(slots, pin_of, signature, [pin for _, pin in held])
    return Grouping(roots, groups, pinned, count)


def _slots(graph: ir.Graph, labels: AxisLabels, roots: Labels) -> list[_Slot]:
    """The labelled axes of all weights, each axis once, in the order of the nodes."""
    found: dict[tuple[str, int], _Slot] = {}
    for weight in labels.weights:
        value = graph.initializers.get(weight.value)
        if value is None or not is_constant(value):
            continue
        for axis, produced in ((weight.produced, True), (weight.consumed, False)):
            family = None if axis is None else labels.family(value, axis)
            if family is not None and axis is not None:
                slot = _Slot(weight, produced, family, np.unique(roots[family.labels]))
                if produced or (weight.value, axis) not in found:
                    found[(weight.value, axis)] = slot
    return list(found.values())


def _left_out(slots: list[_Slot], selection: Selection) -> list[tuple[Labels, Pin]]:
    pins = []
    for slot in slots:
        if slot.produced:
            reason = selection.reason_against(slot.weight.node, slot.weight.op_type)
            if reason is not None:
                pins.append((slot.classes, Pin(slot.weight.op_type, slot.weight.node, reason)))
    return pins


def _signatures(slots: list[_Slot], count: int) -> npt.NDArray[np.uint64]:
    """For every class a number that tells which slots it runs through; 0 for none."""
    marks = np.random.default_rng(0).integers(1, 2**64, size=len(slots), dtype=np.uint64)
    signature = np.zeros(count, np.uint64)
    for mark, slot in zip(marks, slots, strict=True):
        signature[slot.classes] += mark
    return signature


def _number_groups(candidates: Labels, signature: npt.NDArray[np.uint64], bound: list[Component]) -> Labels:
    """A group number for every class, -1 for those that are not cut."""
    group_of = np.full(len(signature), -1, np.int64)
    if not len(candidates):
        return group_of
    kinds, place = np.unique(signature[candidates], return_inverse=True)
    pairs = [np.unique(place[np.isin(candidates, np.concatenate(c.cells))]) for c in bound]
    left = [np.full(len(kin), kin[0]) for kin in pairs]
    merged = components(len(kinds), np.concatenate([*left, [0]]).astype(int), np.concatenate([*pairs, [0]]).astype(int))
    group_of[candidates] = merged[place.reshape(-1)]
    return group_of


def _make_groups(
    slots: list[_Slot], group_of: Labels, bound: list[Component], votes: Votes
) -> tuple[ChannelGroup, ...]:
    members = _members(slots, group_of)
    classes_of = _by_number(group_of)
    bound_of: dict[int, list[Component]] = {}
    for component in bound:
        bound_of.setdefault(int(group_of[component.cells[0][0]]), []).append(component)
    names = _Names()
    groups = []
    for number, nodes in members.items():
        classes = classes_of[number]
        bundles = _bundles(classes, bound_of.get(number, []), votes)
        groups.append(ChannelGroup(names.new(nodes[0]), tuple(dict.fromkeys(nodes[1])), classes, bundles))
    return tuple(groups)


def _bundles(classes: Labels, bound: list[Component], votes: Votes) -> tuple[Bundle, ...]:
    """Bundles of the classes that demands bind; the others stand alone."""
    scores = votes.scores(np.arange(len(votes.group_of)))
    made = []
    for component in bound:
        built = bundles(component, scores)
        shares = np.cumsum([len(together) for together in built]) / sum(len(cell) for cell in component.cells)
        for share, together in zip(shares.tolist(), built, strict=True):
            made.append(Bundle(together, float(scores[together].mean()), share, bound=True))
    taken = np.concatenate([cell for component in bound for cell in component.cells]) if bound else classes[:0]
    alone = np.setdiff1d(classes, taken)
    alone = alone[np.argsort(scores[alone], kind="stable")]
    for place, name in enumerate(alone.tolist(), start=1):
        made.append(Bundle(np.array([name]), float(scores[name]), place / len(alone), bound=False))
    return tuple(made)


def _members(slots: list[_Slot], number_of: Labels) -> dict[int, tuple[str, list[str]]]:
    """For every number the first node that produces its channels, and all nodes whose weights carry them."""
    first: dict[int, str] = {}
    nodes: dict[int, list[str]] = {}
    for slot in slots:
        for number in np.unique(number_of[slot.classes]).tolist():
            if number >= 0:
                nodes.setdefault(number, []).append(slot.weight.node)
                if slot.produced:
                    first.setdefault(number, slot.weight.node)
    return {number: (first.get(number, members[0]), members) for number, members in nodes.items()}


def _make_pinned(
    slots: list[_Slot], pin_of: Labels, signature: npt.NDArray[np.uint64], pins: list[Pin]
) -> tuple[tuple[PinnedGroup, ...], int]:
    """Pinned classes that some weight produces, by weights and reason."""
    produced = np.zeros(len(pin_of), np.bool_)
    for slot in slots:
        if slot.produced:
            produced[slot.classes] = True
    held = np.flatnonzero(produced & (pin_of >= 0))
    if not len(held):
        return (), 0
    keys = np.stack([signature[held], pin_of[held].astype(np.uint64)])
    _, place = np.unique(keys, axis=1, return_inverse=True)
    number_of = np.full(len(pin_of), -1, np.int64)
    number_of[held] = place.reshape(-1)
    names = _Names()
    pin_by_number = {int(number_of[c]): pins[int(pin_of[c])] for c in held.tolist()}
    return tuple(
        PinnedGroup(names.new(first), list(dict.fromkeys(nodes)), describe(pin_by_number[number]))
        for number, (first, nodes) in _members(slots, number_of).items()
    ), len(held)


def describe(pin: Pin) -> str:
    """The reason of a pin with the operator and node it comes from."""
    return f"{pin.reason} ({pin.op_type} '{pin.node}')" if pin.node else pin.reason


def _by_number(number_of: Labels) -> dict[int, Labels]:
    held = np.flatnonzero(number_of >= 0)
    if not len(held):
        return {}
    held = held[np.argsort(number_of[held], kind="stable")]
    numbers, starts = np.unique(number_of[held], return_index=True)
    return dict(zip(numbers.tolist(), np.split(held, starts[1:]), strict=True))


class _Names:
    """Group names: the node that makes the channels, numbered where it makes several groups."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def new(self, node: str) -> str:
        n = self._taken.get(node, 0) + 1
        self._taken[node] = n
        return node if n == 1 else f"{node}#{n}"
