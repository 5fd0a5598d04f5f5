"""Recurrent states that a caller keeps: they come in as one graph input and go out as one output, unit by unit.

A hidden unit that is cut leaves its place in both: the signature of a model never changes. Its place is not read on the
way in, and is 0 on the way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxqp.axes import AxisLabels, Cut, Family, Pin
from onnxqp.graph import dims, rank
from onnxqp.ops import rule_for
from onnxqp.ops.rewrite import Insertion


@dataclass(frozen=True)
class State:
    """A graph input and the graph output that it is the next value of."""

    before: ir.Value
    after: ir.Value


def find_states(graph: ir.Graph) -> list[State]:
    """Inputs that only recurrent layers begin with, and outputs that only these layers' last states are moved to."""
    found = []
    ends = {output: _givers(output) for output in graph.outputs}
    for value in graph.inputs:
        begun = _readers(value)
        if begun is None or dims(value) is None:
            continue
        fitting = [end for end, given in ends.items() if given == begun and _same_shape(value, end)]
        if len(fitting) == 1:
            found.append(State(value, fitting[0]))
    return found


def label_state(labels: AxisLabels, state: State) -> None:
    """Give the input labels as if it were a constant."""
    for axis, size in enumerate(dims(state.before) or ()):
        if size is not None and size > 1:
            labels.attach(state.before, Family((axis,), labels.fresh(size)))


def settle_states(labels: AxisLabels, states: Sequence[State]) -> None:
    """Pin whatever of a state does not stand at the same place when it comes in and when it goes out."""
    if not states:
        return
    roots = labels.classes()
    for state in states:
        for axis in range(rank(state.before) or 0):
            one, other = (labels.family(value, axis) for value in (state.before, state.after))
            alike = one is not None and other is not None and one.axes == other.axes == (axis,)
            if alike and one and other and np.array_equal(roots[one.labels], roots[other.labels]):
                continue
            labels.freeze(state.before, axis, Pin("", "", f"graph input '{state.before.name}'"))
            labels.freeze(state.after, axis, Pin("", "", f"graph output '{state.after.name}'"))


def cut_states(graph: ir.Graph, cut: Cut) -> None:
    """Let a cut graph take the places that are left out of its inputs, and put zeros where places of outputs went."""
    for value in graph.inputs:
        for (axis,), kept in cut.masks(value):
            uses, insertion = list(value.uses()), Insertion(graph[0])
            left = insertion.constant(np.flatnonzero(kept), np.int64)
            along = [ir.AttrInt64("axis", axis)]
            taken = insertion.add("Gather", [value, left], like=value, resized=True, attributes=along)
            for user, index in uses:
                user.replace_input_with(index, taken)
    for place, value in enumerate(list(graph.outputs)):
        for (axis,), kept in cut.masks(value):
            insertion = _behind(value)
            ends = [0] * (2 * (rank(value) or 0))
            ends[axis + len(ends) // 2] = 1
            longer = insertion.add("Pad", [value, insertion.constant(ends, np.int64)], like=value, resized=True)
            count = int(kept.sum())
            places = np.where(kept, np.cumsum(kept) - 1, count)
            along = [ir.AttrInt64("axis", axis)]
            whole = insertion.add(
                "Gather", [longer, insertion.constant(places, np.int64)], like=value, resized=True, attributes=along
            )
            _give_out(graph, place, value, whole, {axis: len(kept)})


def state_notes(graph: ir.Graph, cut: Cut) -> list[str]:
    """What a user should know of states that lost units."""
    return [
        f"state '{value.name}' keeps its shape: places of removed units are not read, and go out as 0"
        for value in graph.inputs
        if cut.masks(value)
    ]


def mask_states(graph: ir.Graph, cut: Cut) -> None:
    """What the cut graph puts out: 0 where places went."""
    for place, value in enumerate(list(graph.outputs)):
        for (axis,), kept in cut.masks(value):
            insertion, dtype = _behind(value), value.dtype
            assert dtype is not None
            shape = [-1 if n == axis else 1 for n in range(rank(value) or 0)]
            factor = insertion.constant(kept.reshape(shape), dtype.numpy())
            _give_out(graph, place, value, insertion.add("Mul", [value, factor], like=value), {})


def _behind(value: ir.Value) -> Insertion:
    node = value.producer()
    assert node is not None
    return Insertion(node, behind=True)


def _give_out(graph: ir.Graph, place: int, value: ir.Value, whole: ir.Value, sizes: dict[int, int]) -> None:
    """Make `whole` the output that `value` was, under its name."""
    whole.name, value.name = value.name, whole.name
    whole.shape = ir.Shape([sizes.get(axis, size) for axis, size in enumerate(value.shape or ())])
    graph.outputs[place] = whole


def _readers(value: ir.Value) -> set[tuple[ir.Node, int]] | None:
    """The recurrent layers that begin with a value, by the output that hands it on; None where others read it too."""
    found: set[tuple[ir.Node, int]] = set()
    waiting, seen = [value], {value}
    while waiting:
        here = waiting.pop()
        if here.is_graph_output():
            return None
        for node, index in here.uses():
            rule = rule_for(node)
            if index in rule.carries:
                found.add((node, rule.carries[index]))
            elif rule.moves and node.graph is here.graph and index == 0:
                fresh = [output for output in node.outputs if output not in seen]
                seen.update(fresh)
                waiting += fresh
            else:
                return None
    return found or None


def _givers(value: ir.Value) -> set[tuple[ir.Node, int]] | None:
    """The last states of recurrent layers that a value is put together of; None if of anything else."""
    found: set[tuple[ir.Node, int]] = set()
    waiting = [value]
    while waiting:
        here = waiting.pop()
        node = here.producer()
        if node is None:
            return None
        rule = rule_for(node)
        if here.index() in rule.carries.values():
            found.add((node, here.index() or 0))
        elif rule.moves:
            waiting += [operand for operand in (node.inputs if rule.joins else node.inputs[:1]) if operand is not None]
        else:
            return None
        if len(waiting) > 1000:
            return None
    return found


def _same_shape(one: ir.Value, other: ir.Value) -> bool:
    return one.dtype == other.dtype and dims(one) == dims(other) and rank(one) is not None
