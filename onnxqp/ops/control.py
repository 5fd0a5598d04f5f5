"""If, Loop and Scan: channels pass into their bodies and out again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import onnx_ir as ir

from onnxqp.axes import AxisLabels, CannotCouple, Family, Pin
from onnxqp.graph import attribute_int, attribute_ints, dims, rank, subgraphs
from onnxqp.ops.join import movable
from onnxqp.ops.operator import Operator


class If(Operator):
    """What both branches give out ties; the condition is pinned."""

    op_types: ClassVar[tuple[str, ...]] = ("If",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        """Ties nothing yet: its branches come first."""
        labels.freeze_value(node.inputs[0], _pin(node, "decides which branch is taken"))

    def leave(self, node: ir.Node, labels: AxisLabels) -> None:
        branches = list(subgraphs(node))
        for place, output in enumerate(node.outputs):
            given = [branch.outputs[place] for branch in branches]
            if any(value.is_graph_input() or rank(value) is None or rank(value) != rank(output) for value in given):
                for value in (*given, output):
                    labels.freeze_value(value, _pin(node, "branches give out what cannot be compared"))
                continue
            families = list(labels.families(given[0]))
            for value in given[1:]:
                families = _agree(node, labels, given[0], families, value)
            labels.give(output, families)


class Loop(Operator):
    """What is handed from one turn to the next ties; what each turn gives out is stacked on a new axis."""

    op_types: ClassVar[tuple[str, ...]] = ("Loop",)

    def returned(self, node: ir.Node) -> Sequence[tuple[ir.Value, ir.Value]]:
        """What is handed on, where every turn keeps its shape."""
        (body,) = subgraphs(node)
        turns = zip(node.inputs[2:], body.inputs[2:], body.outputs[1:], node.outputs, strict=False)
        return [
            (output, result)
            for value, inside, result, output in turns
            if output.shape is None and None not in (sizes := dims(result) or (None,)) and value is not None
            if dims(value) == dims(inside) == sizes
        ]

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        for value in node.inputs[:2]:
            labels.freeze_value(value, _pin(node, "decides how many turns are taken"))
        (body,) = subgraphs(node)
        for value, inside in zip(node.inputs[2:], body.inputs[2:], strict=True):
            _carry(node, labels, value, inside)

    def leave(self, node: ir.Node, labels: AxisLabels) -> None:
        (body,) = subgraphs(node)
        carried = len(body.inputs) - 2
        for inside, result, output in zip(body.inputs[2:], body.outputs[1:], node.outputs, strict=False):
            _return(node, labels, inside, result, output)
        for result, output in zip(body.outputs[1 + carried :], node.outputs[carried:], strict=True):
            labels.give(output, _moved(labels.families(result), 0, 1))


class Scan(Operator):
    """What is handed from one step to the next ties; sequences pass but for the axis that is walked along."""

    op_types: ClassVar[tuple[str, ...]] = ("Scan",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        (body,) = subgraphs(node)
        if len(body.inputs) != len(node.inputs):
            raise CannotCouple("a Scan with an input of lengths, as opset 8 has it")
        states = len(node.inputs) - attribute_int(node, "num_scan_inputs", 1)
        for value, inside in zip(node.inputs[:states], body.inputs, strict=False):
            _carry(node, labels, value, inside)
        sequences = node.inputs[states:]
        for value, inside, along in zip(
            sequences, body.inputs[states:], self._axes(node, "scan_input_axes", sequences), strict=True
        ):
            if value is None:
                continue
            movable(labels, value)
            labels.freeze(value, along, _pin(node, "is walked along"))
            rest = [labels.coarsen(family, [a for a in family.axes if a != along]) for family in labels.families(value)]
            labels.give(inside, _moved([family for family in rest if family.axes and family.inner != along], along, -1))

    def leave(self, node: ir.Node, labels: AxisLabels) -> None:
        (body,) = subgraphs(node)
        if len(body.inputs) != len(node.inputs):
            for result in body.outputs:
                labels.freeze_value(result, _pin(node, "has a batch axis that its body does not see"))
            return
        states = len(node.inputs) - attribute_int(node, "num_scan_inputs", 1)
        for inside, result, output in zip(body.inputs[:states], body.outputs, node.outputs, strict=False):
            _return(node, labels, inside, result, output)
        given = node.outputs[states:]
        for result, output, along in zip(
            body.outputs[states:], given, self._axes(node, "scan_output_axes", given), strict=True
        ):
            labels.give(output, _moved(labels.families(result), along, 1))

    @staticmethod
    def _axes(node: ir.Node, name: str, values: Sequence[ir.Value | None]) -> list[int]:
        axes = attribute_ints(node, name) or [0] * len(values)
        return [axis if axis >= 0 else axis + (rank(value) or 1) for axis, value in zip(axes, values, strict=True)]


def _pin(node: ir.Node, reason: str) -> Pin:
    return Pin(node.op_type, node.name or "", reason)


def _carry(node: ir.Node, labels: AxisLabels, value: ir.Value | None, inside: ir.Value) -> None:
    """What goes in the first time has the labels of what is handed on."""
    families = movable(labels, value)
    if value is not None and families:
        labels.give(inside, families)
    else:
        why = None if value is None else labels.why_free(value, 0)
        labels.freeze_value(inside, why or _pin(node, "starts with what is not cut"))


def _return(node: ir.Node, labels: AxisLabels, inside: ir.Value, result: ir.Value, output: ir.Value) -> None:
    """What is handed on, and comes out in the end, has the labels of what came in."""
    labels.give(output, _agree(node, labels, inside, list(labels.families(inside)), result))


def _agree(
    node: ir.Node, labels: AxisLabels, value: ir.Value, families: Sequence[Family], other: ir.Value
) -> list[Family]:
    """The families that two values have in common, tied; what only one of them has is pinned."""
    made = []
    pin = _pin(node, "is not cut on every way through the body")
    for family in families:
        axis = family.inner
        there = labels.family(other, axis) if isinstance(axis, int) else None
        if there is None:
            why = labels.why_free(other, axis) if isinstance(axis, int) else None
            labels.pin_because(family.labels, why or pin)
            continue
        common = [a for a in family.axes if a in there.axes]
        family, there = labels.coarsen(family, common), labels.coarsen(there, common)
        labels.tie(family.labels, there.labels.transpose([there.axes.index(a) for a in common]))
        made.append(family)
    for family in labels.families(other):
        axis = family.inner
        if axis not in {each.inner for each in families} and isinstance(axis, int):
            labels.pin_because(family.labels, labels.why_free(value, axis) or pin)
    return made


def _moved(families: Sequence[Family], axis: int, by: int) -> list[Family]:
    """Families after an axis was added before those from `axis` on, or taken away."""
    moved = []
    for family in families:
        axes = [a for a in family.axes if isinstance(a, int)]
        moved.append(family.renamed({a: a + by if a >= axis else a for a in axes}))
    return moved
