"""Operators that draw random numbers: never computed ahead, never cut."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from onnxqp.ops.operator import Operator


class Random(Operator):
    """Another result on every run: all it touches is pinned."""

    op_types: ClassVar[tuple[str, ...]] = (
        *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
        *("Bernoulli", "Multinomial"),
    )

    def folds(self, node: ir.Node) -> bool:
        return False
