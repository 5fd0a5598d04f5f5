"""Channel groups: what can be cut, what cannot and why.

A *class* is one channel: all slices that carry tied labels. Classes that run through the same weights form a *group*,
which has a name, members, scores, and is cut as one. Classes bound by block demands (`blocks`) belong together too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.axes import AxisLabels, Labels, Pin, components
from onnxqp.graph import is_constant
from onnxqp.ops import rule_for
from onnxqp.options import Selection
from onnxqp.prune.blocks import Component, bound_components, bundles
from onnxqp.prune.importance import FloatArray, scores
from onnxqp.prune.slots import Slot, Slots, find_slots
from onnxqp.report.records import PinnedGroup
from onnxqp.specs import Compute


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
    makers: tuple[str, ...] = ()  # those of the members that make the channels

    @property
    def size(self) -> int:
        return len(self.classes)


@dataclass(frozen=True)
class Grouping:
    """Every channel of a graph that some weight produces: in a group, or pinned for a reason."""

    roots: Labels  # the class of every label
    groups: tuple[ChannelGroup, ...]
    pinned: tuple[PinnedGroup, ...]

    def without(self, group: ChannelGroup, reason: str) -> Grouping:
        """The same, with one group pinned."""
        pinned = PinnedGroup(group.id, list(group.members), reason)
        rest = tuple(other for other in self.groups if other is not group)
        return replace(self, groups=rest, pinned=(*self.pinned, pinned))


def find_groups(
    graph: ir.Graph,
    labels: AxisLabels,
    selection: Selection,
    order: Literal[1, 2] = 1,
    measured: FloatArray | None = None,
) -> Grouping:
    """Group the channels of a labelled graph and score them; nodes that `selection` leaves out keep their channels.

    Scores are norms of `order`, or `measured` ones, by class, where these are not NaN.
    """
    roots = labels.classes()
    slots = find_slots(graph, labels, roots)
    pins = [*labels.pins, *_left_out(slots, selection)]
    pin_of = np.full(len(roots), -1, np.int64)
    for place in range(len(pins) - 1, -1, -1):  # the first reason wins
        pin_of[roots[pins[place][0]]] = place
    signature = slots.signatures(len(roots))
    free = (signature != 0) & (pin_of < 0)
    kind = np.unique(signature, return_inverse=True)[1].reshape(-1)
    score = scores(len(roots), slots.slot, slots.channel, kind[slots.channel], slots.norms(graph, free, order))
    if measured is not None:  # norms average 1 in each group: so they stand beside measured scores of middling size
        known = measured[np.isfinite(measured)]
        score = np.where(np.isfinite(measured), measured, score * (np.median(known) if len(known) else 1.0))
    bound = []
    for component in bound_components(labels.balances, roots, free):
        built = bundles(component, score)
        if built:
            bound.append((component, built))
        stuck = _stuck(component, built, signature)
        pin_of[stuck[free[stuck]]] = len(pins)
    held = [pin for _, pin in pins] + [Pin("", "", "every block must lose as many, and one cannot")]
    group_of = _number_groups(np.flatnonzero(free & (pin_of < 0)), signature, [built for _, built in bound])
    groups = _make_groups(slots, group_of, bound, score)
    pinned = (*_make_pinned(slots, pin_of, signature, held), *_weightless(graph, slots, held))
    return Grouping(roots, groups, pinned)


def _stuck(component: Component, built: Sequence[Labels], signature: npt.NDArray[np.uint64]) -> Labels:
    """Classes that no bundle holds, nor any that runs through the same weights: alone they would unbalance blocks."""
    moving = np.unique(signature[np.concatenate(built)]) if built else np.zeros(0, np.uint64)
    return component.classes[~np.isin(signature[component.classes], moving)]


def _left_out(slots: Slots, selection: Selection) -> list[tuple[Labels, Pin]]:
    pins = []
    for number, slot in enumerate(slots.slots):
        for node in dict.fromkeys(slot.readers) if slot.produced else ():
            reason = selection.reason_against(node, slot.weight.op_type)
            if reason is not None:
                pins.append((slots.of(number), Pin(slot.weight.op_type, node, reason)))
    return pins


def _number_groups(candidates: Labels, signature: npt.NDArray[np.uint64], bound: Sequence[Sequence[Labels]]) -> Labels:
    """A group number for every class, -1 for those that are not cut: one for classes that run through the same weights,
    and one for all that share bundles."""
    group_of = np.full(len(signature), -1, np.int64)
    if not len(candidates):
        return group_of
    kinds, place = np.unique(signature[candidates], return_inverse=True)
    place = place.reshape(-1)
    kin = [place[np.searchsorted(candidates, np.concatenate(built))] for built in bound]
    left = np.concatenate([np.full(len(kinds_here), kinds_here[0]) for kinds_here in kin]) if kin else place[:0]
    merged = components(len(kinds), left, np.concatenate(kin) if kin else left)
    group_of[candidates] = merged[place]
    return group_of


def _make_groups(
    slots: Slots, group_of: Labels, bound: Sequence[tuple[Component, list[Labels]]], score: FloatArray
) -> tuple[ChannelGroup, ...]:
    classes_of = _by_number(group_of)
    bound_of: dict[int, list[tuple[Component, list[Labels]]]] = {}
    for component, built in bound:
        bound_of.setdefault(int(group_of[built[0][0]]), []).append((component, built))
    names = _Names()
    groups = []
    for number, members in slots.by(group_of).items():
        classes = classes_of[number]
        made = _bundles(classes, bound_of.get(number, []), score)
        makers = _nodes([slot for slot in members if slot.produced])
        groups.append(ChannelGroup(names.new(members), _nodes(members), classes, made, makers))
    return tuple(groups)


def _bundles(classes: Labels, bound: Sequence[tuple[Component, list[Labels]]], score: FloatArray) -> tuple[Bundle, ...]:
    """Bundles of the classes that demands bind; the others stand alone."""
    made = []
    alone = classes
    for component, built in bound:
        cells = np.concatenate(component.cells)
        alone = np.setdiff1d(alone, cells)
        shares = np.cumsum([len(together) for together in built]) / len(cells)
        for share, together in zip(shares.tolist(), built, strict=True):
            made.append(Bundle(together, float(score[together].mean()), share, bound=True))
    alone = alone[np.argsort(score[alone], kind="stable")]
    for place, (name, value) in enumerate(zip(alone, score[alone].tolist(), strict=True), start=1):
        made.append(Bundle(np.array([name]), value, place / len(alone), bound=False))
    return tuple(made)


def _make_pinned(
    slots: Slots, pin_of: Labels, signature: npt.NDArray[np.uint64], pins: Sequence[Pin]
) -> tuple[PinnedGroup, ...]:
    """Pinned classes that some weight produces, by weights and reason."""
    producers = np.array([slot.produced for slot in slots.slots], np.bool_)
    held = np.unique(slots.channel[producers[slots.slot]] if len(producers) else slots.channel)
    held = held[pin_of[held] >= 0]
    if not len(held):
        return ()
    keys = np.stack([signature[held], pin_of[held].astype(np.uint64)])
    _, first, place = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    number_of = np.full(len(pin_of), -1, np.int64)
    number_of[held] = place.reshape(-1)
    reasons = [describe(pins[pin]) for pin in pin_of[held[first]].tolist()]
    names = _Names()
    return tuple(
        PinnedGroup(names.new(members), list(_nodes(members)), reasons[number])
        for number, members in slots.by(number_of).items()
    )


def _weightless(graph: ir.Graph, slots: Slots, pins: Sequence[Pin]) -> Iterator[PinnedGroup]:
    """Arithmetic whose weights, computed as it runs, have no channels to show."""
    shown = {node for slot in slots.slots for node in slot.readers}
    reasons: dict[str, Pin] = {}
    for pin in pins:
        reasons.setdefault(pin.node, pin)
    for node in graph.all_nodes():
        name = node.name or ""
        if name in shown or not rule_for(node).macs(node):
            continue
        role = rule_for(node).quantization(node)
        if isinstance(role, Compute) and role.weight is None:
            continue  # a product of two activations: its channels are those of what makes them, and shown there
        if name in reasons:
            yield PinnedGroup(name, [name], describe(reasons[name]))
        elif isinstance(role, Compute) and role.weight is not None:
            yield PinnedGroup(name, [name], _why_weightless(node.inputs[role.weight.index]))


def _why_weightless(weight: ir.Value | None) -> str:
    if weight is None or not is_constant(weight) or weight.shape is None:
        return "its weight is not constant"
    return f"no axis of its weight, of shape {list(weight.shape)}, holds channels that could go"


def _nodes(members: Sequence[Slot]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(node for slot in members for node in slot.readers))


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
    """Group names: the first node that makes the channels, numbered where it makes several groups."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def new(self, members: Sequence[Slot]) -> str:
        node = next((slot.weight.node for slot in members if slot.produced), members[0].weight.node)
        n = self._taken.get(node, 0) + 1
        self._taken[node] = n
        return node if n == 1 else f"{node}#{n}"
