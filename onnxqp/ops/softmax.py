"""Softmax and its like."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from onnxqp.axes import AxisLabels
from onnxqp.graph import attribute_int
from onnxqp.ops import quantizing
from onnxqp.ops.join import join, rank_of
from onnxqp.ops.operator import Operator
from onnxqp.specs import Compute, Role


class Softmax(Operator):
    """The normalised axis is pinned, the others pass."""

    op_types: ClassVar[tuple[str, ...]] = ("Softmax", "LogSoftmax", "Hardmax")

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        rank = rank_of(node.inputs[0])
        axis = attribute_int(node, "axis", -1) % rank
        names = [None if i == axis else i for i in range(rank)]
        join(labels, node, {0: names}, {0: names})

    def quantization(self, node: ir.Node) -> Role:
        return Compute("Softmax", (0,), low=0.0, high=1.0) if node.op_type == "Softmax" else quantizing.no_kernel(node)
