"""Matrix products."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from onnxqp.graph import attribute_float, attribute_int, rank
from onnxqp.ops import folding
from onnxqp.ops.operator import Affine, Operator


class Gemm(Operator):
    """Rows, columns and the contracted axis tie as in C += A·B, after transA and transB."""

    op_types: ClassVar[tuple[str, ...]] = ("Gemm",)

    def absorb(self, node: ir.Node, affine: Affine) -> bool:
        if attribute_float(node, "alpha", 1.0) != 1.0 or attribute_float(node, "beta", 1.0) != 1.0:
            return False
        axis = 0 if attribute_int(node, "transB", 0) else 1
        return folding.absorb(node, affine, output_axis=1, weight_axis=axis)


class MatMul(Operator):
    """The contracted axes tie, batch axes tie with broadcasting, rows and columns pass to the output."""

    op_types: ClassVar[tuple[str, ...]] = ("MatMul",)

    def absorb(self, node: ir.Node, affine: Affine) -> bool:
        columns, out = rank(node.inputs[1]), rank(node.outputs[0])
        if columns != 2 or out is None or affine.shift.any():
            return False  # it has no bias to take the shift
        return folding.absorb(node, affine, output_axis=out - 1, weight_axis=1)


class Einsum(Operator):
    """One axis per letter, tied over all its occurrences."""

    op_types: ClassVar[tuple[str, ...]] = ("Einsum",)
