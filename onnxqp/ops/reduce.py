"""Reductions, and operators that order or accumulate along an axis."""

from __future__ import annotations

from typing import ClassVar

from onnxqp.ops.operator import Operator


class ReduceMean(Operator):
    """Kept axes pass; over a cut axis the mean is that of the kept channels."""

    op_types: ClassVar[tuple[str, ...]] = ("ReduceMean",)


class ReduceSum(Operator):
    """Kept axes pass; over a cut axis the removed channels add nothing."""

    op_types: ClassVar[tuple[str, ...]] = (*("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum"),)


class ReduceMax(Operator):
    """Kept axes pass; over a cut axis the removed channels never win."""

    op_types: ClassVar[tuple[str, ...]] = ("ReduceMax", "ReduceLogSumExp")


class ReduceMin(Operator):
    """Kept axes pass; over a cut axis the removed channels never win."""

    op_types: ClassVar[tuple[str, ...]] = ("ReduceMin",)


class ReduceProd(Operator):
    """Kept axes pass; over a cut axis the removed channels count as 1."""

    op_types: ClassVar[tuple[str, ...]] = ("ReduceProd",)


class ArgMax(Operator):
    """The axis whose positions are counted is pinned, the others pass."""

    op_types: ClassVar[tuple[str, ...]] = ("ArgMax", "ArgMin")


class CumSum(Operator):
    """The accumulated axis is pinned, the others pass."""

    op_types: ClassVar[tuple[str, ...]] = ("CumSum",)
