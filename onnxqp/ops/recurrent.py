"""Recurrent layers: pinned, measured."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from onnxqp.axes import AxisLabels
from onnxqp.ops import quantizing
from onnxqp.ops.cost import recurrent_macs
from onnxqp.ops.operator import Operator
from onnxqp.specs import Role


class LSTM(Operator):
    """Pinned: hidden units are not cut."""

    op_types: ClassVar[tuple[str, ...]] = ("LSTM",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        labels.pin_node(node, "hidden units of recurrent layers are not cut")

    def macs(self, node: ir.Node) -> int:
        return recurrent_macs(node)

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class GRU(Operator):
    """Pinned: hidden units are not cut."""

    op_types: ClassVar[tuple[str, ...]] = ("GRU",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        labels.pin_node(node, "hidden units of recurrent layers are not cut")

    def macs(self, node: ir.Node) -> int:
        return recurrent_macs(node)

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class RNN(Operator):
    """Pinned: hidden units are not cut."""

    op_types: ClassVar[tuple[str, ...]] = ("RNN",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        labels.pin_node(node, "hidden units of recurrent layers are not cut")

    def macs(self, node: ir.Node) -> int:
        return recurrent_macs(node)

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)
