"""One record per ONNX operator, found by `rule_for(node)`. An unknown operator is pinned and stays in float."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from onnxqp.graph import constant
from onnxqp.ops import (
    attention,
    concat,
    control,
    conv,
    elementwise,
    extend,
    fused,
    generate,
    linear,
    normalization,
    pool,
    qdq,
    quantized,
    recurrent,
    reduce,
    resize,
    sampling,
    scatter,
    select,
    shape,
    shape_of,
    softmax,
)
from onnxqp.ops.operator import Operator

_FAMILIES = (
    attention,
    concat,
    control,
    conv,
    elementwise,
    extend,
    fused,
    generate,
    linear,
    normalization,
    pool,
    qdq,
    quantized,
    recurrent,
    reduce,
    resize,
    sampling,
    scatter,
    select,
    shape,
    shape_of,
    softmax,
)
_UNKNOWN = Operator()


def _register() -> dict[str, Operator]:
    rules: dict[str, Operator] = {}
    for family in _FAMILIES:
        for item in vars(family).values():
            own = isinstance(item, type) and item.__module__ == family.__name__
            if own and issubclass(item, Operator) and "op_types" in vars(item):
                record = item()
                for op_type in item.op_types:
                    if op_type in rules:
                        raise AssertionError(f"two records for operator {op_type}")
                    rules[op_type] = record
    return rules


RULES: dict[str, Operator] = _register()
"""Every operator that has a record, by type; outside the default domain by "domain.type"."""


def rule_for(node: ir.Node) -> Operator:
    """The record of a node's operator; for an unknown one the base record, which pins all it touches."""
    domain = node.domain
    key = node.op_type if domain in ("", "ai.onnx") else f"{domain}.{node.op_type}"
    return RULES.get(key, _UNKNOWN)


def rebuilt(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """The array of a constant, or what nodes that rebuild weights make of constants alone; None of anything else."""
    array, maker = constant(value), None if value is None else value.producer()
    if array is not None or maker is None or not rule_for(maker).rebuilds:
        return array
    operands = [rebuilt(operand) for operand in maker.inputs]
    if any(found is None and given is not None for found, given in zip(operands, maker.inputs, strict=True)):
        return None
    return rule_for(maker).rebuild(maker, operands)


__all__ = ["RULES", "Operator", "rebuilt", "rule_for"]
