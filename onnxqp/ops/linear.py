"""Matrix products."""

from __future__ import annotations

from typing import ClassVar

from onnxqp.ops.operator import Operator


class Gemm(Operator):
    """Rows, columns and the contracted axis tie as in C += A·B, after transA and transB."""

    op_types: ClassVar[tuple[str, ...]] = ("Gemm",)


class MatMul(Operator):
    """The contracted axes tie, batch axes tie with broadcasting, rows and columns pass to the output."""

    op_types: ClassVar[tuple[str, ...]] = ("MatMul",)


class Einsum(Operator):
    """One axis per letter, tied over all its occurrences."""

    op_types: ClassVar[tuple[str, ...]] = ("Einsum",)
