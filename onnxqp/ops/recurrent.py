"""Recurrent layers: hidden units are cut in all gates at once, the same number in each direction."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxqp.axes import AxisLabels, CannotCouple, Cut, Family, Labels, Pin, Reduction
from onnxqp.graph import attribute_int, constant
from onnxqp.ops import quantizing
from onnxqp.ops.contraction import Gates
from onnxqp.ops.cost import recurrent_macs
from onnxqp.ops.join import channel_labels, dims_of, is_weight
from onnxqp.ops.operator import Operator
from onnxqp.specs import AtRun, Role

_DATA, _WEIGHT, _RECURRENCE, _BIAS, _HIDDEN, _CELL, _PEEPHOLES = 0, 1, 2, 3, 5, 6, 7


class _Recurrent(Operator):
    """`gates`: blocks of rows that W and R hold for each hidden unit, one row in each."""

    gates: ClassVar[int]
    carries: ClassVar[Mapping[int, int]] = MappingProxyType({_HIDDEN: 1, _CELL: 2})

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        _Layer(node, labels, self.gates).couple()

    def resize(self, node: ir.Node, cut: Cut) -> None:
        hidden = cut.size(node.inputs[_RECURRENCE], 2)
        if hidden is not None:
            node.attributes["hidden_size"] = ir.AttrInt64("hidden_size", hidden)

    def macs(self, node: ir.Node) -> int:
        return recurrent_macs(node)

    def entering(self, node: ir.Node) -> Gates | None:
        weight, bias = constant(node.inputs[_WEIGHT]), node.inputs[_BIAS] if len(node.inputs) > _BIAS else None
        if weight is None or (bias is not None and constant(bias) is None):
            return None
        return Gates(weight.shape[0])

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class LSTM(_Recurrent):
    """A hidden unit is a row of each of four gates, a column of the recurrence, and its states."""

    op_types: ClassVar[tuple[str, ...]] = ("LSTM",)
    gates: ClassVar[int] = 4

    def quantization(self, node: ir.Node) -> Role:
        """onnxruntime's DynamicQuantizeLSTM has no `layout`."""
        if attribute_int(node, "layout", 0):
            return quantizing.no_kernel(node)
        reason = "an integer LSTM quantizes at every inference: taken by --target auto where it is faster and as exact"
        return AtRun(reason, "DynamicQuantizeLSTM", (_WEIGHT, _RECURRENCE))


class GRU(_Recurrent):
    """A hidden unit is a row of each of three gates, a column of the recurrence, and its state."""

    op_types: ClassVar[tuple[str, ...]] = ("GRU",)
    gates: ClassVar[int] = 3


class RNN(_Recurrent):
    """A hidden unit is a row, a column of the recurrence, and its state."""

    op_types: ClassVar[tuple[str, ...]] = ("RNN",)
    gates: ClassVar[int] = 1


class _Layer:
    """One layer: W (directions, gates * hidden, in), R (directions, gates * hidden, hidden), B, states, peepholes."""

    def __init__(self, node: ir.Node, labels: AxisLabels, gates: int) -> None:
        self.node, self.labels, self.gates = node, labels, gates
        weight, recurrence = self.value(_WEIGHT), self.value(_RECURRENCE)
        if weight is None or recurrence is None or not (is_weight(labels, weight) and is_weight(labels, recurrence)):
            raise CannotCouple("a recurrent layer with computed weights")
        if labels.families(weight) or labels.families(recurrence):
            raise CannotCouple("weights shared between recurrent layers")
        directions, _, hidden = dims_of(recurrence)
        if directions is None or hidden is None:
            raise CannotCouple("a recurrent layer of unknown size")
        self.weight, self.recurrence = weight, recurrence
        self.units: Labels = labels.fresh(directions, hidden)

    def value(self, index: int) -> ir.Value | None:
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def couple(self) -> None:
        self.labels.balance(self.units)
        self.weights()
        self.inputs()
        for index, blocks in ((_BIAS, 2 * self.gates), (_PEEPHOLES, 3)):
            value = self.value(index)
            if value is not None and is_weight(self.labels, value) and not self.labels.families(value):
                self.labels.attach(value, self.family(1, np.tile(self.units, (1, blocks))))
            elif value is not None:
                self.pin(f"'{value.name}' is computed, or shared with another node")
        batch_first = attribute_int(self.node, "layout", 0) == 1
        state = 1 if batch_first else 0  # the axis of directions of a state
        for index in (_HIDDEN, _CELL):
            self.state(self.value(index), state)
        sequence, *states = self.node.outputs
        self.labels.give(sequence, [self.family(3, self.units, 2 if batch_first else 1)])
        for value in states:
            self.labels.give(value, [self.family(2, self.units, state)])

    def family(self, inner: int, units: Labels, outer: int = 0) -> Family:
        """With one direction a plain axis, with two a family in blocks."""
        return Family((inner,), units[0]) if len(units) == 1 else Family((outer, inner), units)

    def weights(self) -> None:
        """Rows of all gates go with their unit, and so does what reads it: a column of the recurrence."""
        rows = np.tile(self.units, (1, self.gates))
        for value in (self.weight, self.recurrence):
            self.labels.attach(value, self.family(1, rows))
            self.labels.freeze(value, 0, Pin(self.node.op_type, self.node.name or "", "numbers directions"))
        self.labels.attach(self.recurrence, self.family(2, self.units))
        self.labels.consume(self.node, _RECURRENCE, 2, Reduction.SUM)
        self.labels.weigh(self.node, _WEIGHT, produced=1, consumed=2)
        self.labels.weigh(self.node, _RECURRENCE, produced=1, consumed=2)

    def inputs(self) -> None:
        """The features that are read tie with the columns of W; steps and samples are never cut."""
        data = self.value(_DATA)
        if data is None:
            raise CannotCouple("a recurrent layer without input")
        pin = Pin(self.node.op_type, self.node.name or "", f"{self.node.op_type} mixes the positions of this axis")
        for axis in (0, 1):
            self.labels.freeze(data, axis, pin)
        entering = channel_labels(self.labels, data, 2)
        if entering is None:
            why = self.labels.why_free(data, 2)
            reason = why or Pin(self.node.op_type, self.node.name or "", "meets features that are not cut")
            self.labels.freeze(self.weight, 2, reason)
            return
        self.labels.attach(self.weight, Family((2,), entering))
        self.labels.consume(self.node, _WEIGHT, 2, Reduction.SUM)

    def state(self, value: ir.Value | None, outer: int) -> None:
        """A state at the beginning has the same units; one that is not cut keeps them all."""
        if value is None:
            return
        there = self.labels.family(value, 2)
        if there is not None and len(there.axes) == 1:
            self.labels.tie(there.labels[None, :], self.units)
        elif there is not None and there.axes == (outer, 2):
            self.labels.tie(there.labels, self.units)
        elif is_weight(self.labels, value) and there is None:
            self.labels.attach(value, self.family(2, self.units, outer))
        else:
            why = self.labels.why_free(value, 2)
            self.labels.pin_because(
                self.units,
                why or Pin(self.node.op_type, self.node.name or "", f"meets '{value.name}', which is not cut"),
            )

    def pin(self, reason: str) -> None:
        self.labels.pin(self.units, self.node, reason)
