"""Where channels run through weights: one slot for every labelled axis of every weight.

Everything about all slots is kept in flat arrays, one entry for each class of each slot, so that a graph of many small
layers costs a few numpy calls, not a few for every layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.axes import AxisLabels, Family, Labels, Weight
from onnxqp.graph import is_constant
from onnxqp.ops import rebuilt, rule_for
from onnxqp.prune.importance import FloatArray
from onnxqp.prune.magnitude import slice_norms


@dataclass(frozen=True)
class Slot:
    """One axis of one weight, as far as it carries labels. `produced`: its slices make channels, or else read them.

    `weight` is that of the first node that reads it so, `readers` are all nodes that do: a head shared by all levels.
    """

    weight: Weight
    family: Family
    produced: bool
    readers: tuple[str, ...]


@dataclass(frozen=True)
class Slots:
    """All slots in the order of the nodes. Entry i says that class `channel[i]` runs through slot `slot[i]`; entries
    are sorted by slot. `place` tells for every label of every family, one family after the other, its entry."""

    slots: tuple[Slot, ...]
    slot: Labels
    channel: Labels
    place: Labels

    def of(self, number: int) -> Labels:
        """The classes that run through one slot."""
        start, stop = np.searchsorted(self.slot, [number, number + 1])
        return self.channel[start:stop]

    def by(self, number_of: Labels) -> dict[int, list[Slot]]:
        """For a number given to every class (-1: none), the slots that classes of this number run through."""
        numbers = number_of[self.channel]
        pairs = np.unique(np.stack([self.slot, numbers])[:, numbers >= 0], axis=1)
        found: dict[int, list[Slot]] = {}
        for slot, number in pairs.T.tolist():
            found.setdefault(number, []).append(self.slots[slot])
        return found

    def signatures(self, count: int) -> npt.NDArray[np.uint64]:
        """For every class a number that tells which slots it runs through; 0 for none."""
        marks = np.random.default_rng(0).integers(1, 2**64, size=len(self.slots), dtype=np.uint64)
        signature = np.zeros(count, np.uint64)
        np.add.at(signature, self.channel, marks[self.slot])
        return signature

    def norms(self, graph: ir.Graph, wanted: npt.NDArray[np.bool_], order: Literal[1, 2]) -> FloatArray:
        """The norm of all slices of a slot that go with a class, for every entry; 0 in slots without wanted classes."""
        power = np.zeros(len(self.place))
        needed = np.zeros(len(self.slots), np.bool_)
        needed[self.slot[wanted[self.channel]]] = True
        start, values = 0, weight_values(graph)
        for slot, use in zip(self.slots, needed.tolist(), strict=True):
            stop = start + slot.family.labels.size
            array = real_numbers(slot.weight, values) if use else None
            if array is not None:
                axes = tuple(axis for axis in slot.family.axes if isinstance(axis, int))
                power[start:stop] = slice_norms(array, axes, order).reshape(-1) ** order
            start = stop
        total: FloatArray = np.bincount(self.place, weights=power, minlength=len(self.slot)).astype(np.float64)
        return total if order == 1 else np.sqrt(total)


def weight_values(graph: ir.Graph) -> dict[str, ir.Value]:
    """Initializers and the values that nodes may rebuild from them, by name."""
    made = [output for node in graph.all_nodes() if rule_for(node).rebuilds for output in node.outputs]
    stored = [value for each in (graph, *graph.subgraphs()) for value in each.initializers.values()]
    return {value.name: value for value in (*stored, *made) if value.name}


def real_numbers(weight: Weight, values: Mapping[str, ir.Value]) -> npt.NDArray[Any] | None:
    """A weight as the numbers that it stands for, computed from integers where it is stored so."""
    array = rebuilt(values.get(weight.value))
    if array is None or weight.scale is None:
        return array
    along = weight.scale.axis
    scale, zero = (rebuilt(values.get(name)) if name else None for name in (weight.scale.scale, weight.scale.zero))

    def shown(each: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if each.size == 1 or along is None:
            return each.reshape(-1)[:1]
        return each.reshape([-1 if axis == along else 1 for axis in range(array.ndim)])

    real = array.astype(np.float32)
    if zero is not None:
        real = real - shown(zero)
    return real if scale is None else real * shown(scale)


def find_slots(graph: ir.Graph, labels: AxisLabels, roots: Labels) -> Slots:
    """The slots of a labelled graph, each axis of each constant once."""
    slots = tuple(_slots(graph, labels))
    flat = [roots[slot.family.labels].reshape(-1) for slot in slots]
    if not flat:
        nothing = np.zeros(0, np.int64)
        return Slots((), nothing, nothing, nothing)
    numbers = np.repeat(np.arange(len(slots)), [len(part) for part in flat])
    keys, place = np.unique(numbers * np.int64(len(roots)) + np.concatenate(flat), return_inverse=True)
    return Slots(slots, keys // len(roots), keys % len(roots), place.reshape(-1))


def _slots(graph: ir.Graph, labels: AxisLabels) -> Iterator[Slot]:
    found: dict[tuple[str, int], Slot] = {}
    stored = {name: value for each in (graph, *graph.subgraphs()) for name, value in each.initializers.items()}
    for weight in labels.weights:
        value = stored.get(weight.value)
        if weight.value not in labels.rebuilt and (value is None or not is_constant(value)):
            continue
        for axis, produced in ((weight.produced, True), (weight.consumed, False)):
            family = None if axis is None else labels.family(weight.value, axis)
            if family is None or axis is None:
                continue
            before = found.get((weight.value, axis))
            if before is None:
                found[(weight.value, axis)] = Slot(weight, family, produced, (weight.node,))
            else:
                first = weight if produced and not before.produced else before.weight
                readers = (*before.readers, weight.node)
                found[(weight.value, axis)] = Slot(first, family, produced or before.produced, readers)
    yield from found.values()
