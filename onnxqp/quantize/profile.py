"""What every unit costs in float and in int8 on this machine, read off onnxruntime's profiler."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxqp.quantize.candidate import Candidate, Material
from onnxqp.quantize.costs import Costs
from onnxqp.runtime import KernelTime, kernel_times
from onnxqp.specs import Feed

PROFILE_SECONDS = 0.12  # of each of the two profiles

_BLOCKED = "_nchwc"  # what onnxruntime appends to the name of a value for the node that makes it in blocked layout
_ADDED = re.compile(r"(_token_\d+|/duplicated|_nhwc|/MatMulScaleFusion/?)+$")  # and to the names of nodes
_STEP = re.compile(r"_(de)?quantized(_\d+)?$")  # and we, to those of values
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "Transpose")


def measure_costs(material: Material, table: Costs, whole: Candidate, feeds: Sequence[Feed], *, threads: int) -> Costs:
    """The costs of every unit, from a profile of the model in float and one with all in int8 that can be (`whole`)."""
    as_float = _by_node(
        material.model, kernel_times(material.original, feeds, seconds=PROFILE_SECONDS, threads=threads)
    )
    times = kernel_times(whole.model, feeds, seconds=PROFILE_SECONDS, threads=threads)
    as_integer = _by_node(material.model, times)
    units = material.annotation.units
    return replace(
        table,
        as_float={unit.node.name or "": _sum(as_float, (unit.node, *unit.absorbed)) for unit in units},
        as_integer={
            unit.node.name or "": _sum(as_integer, (unit.node, *unit.absorbed)) for unit in whole.decision.integer
        },
        measured_border=_border(table, whole, times),
    )


def _sum(times: dict[str, float], nodes: Iterable[ir.Node]) -> float:
    """A node without a time of its own was fused into another, or removed."""
    return sum(times.get(node.name or "", 0.0) for node in nodes)


def _by_node(model: ir.Model, times: Sequence[KernelTime]) -> dict[str, float]:
    """Nanoseconds by the node of `model` that a kernel stands for; kernels that stand for none are left out."""
    nodes = {node.name or "" for node in model.graph}
    makers = {value.name or "": node.name or "" for node in model.graph for value in node.outputs}
    found: dict[str, float] = {}
    for time in times:
        blocked = _BLOCKED in time.node
        own = _ADDED.sub("", time.node)
        values = (own.removesuffix(_BLOCKED), *(_STEP.sub("", name) for name in time.outputs))
        made = next((makers[name] for name in values if name in makers), None)
        name = own if own in nodes and not blocked else made
        if name is not None and time.op_type not in _CONVERSIONS:
            found[name] = found.get(name, 0.0) + time.nanoseconds
    return found


def _border(table: Costs, whole: Candidate, times: Sequence[KernelTime]) -> tuple[float, float] | None:
    """Nanoseconds of a conversion per element and per node, from those that there were; None where there was none.

    What a few borders cost does not tell elements from nodes, so the rate stays within twice that of the table.
    """
    spent = sum(time.nanoseconds for time in times if time.op_type in _CONVERSIONS)
    units = whole.decision.integer
    made = {value for unit in units for value in unit.outputs}
    entered = {value for unit in units for _, value in unit.inputs} - made
    if not entered:
        return None
    elements = sum(table.count(value) for value in entered)
    rate, overhead = table.target.border_ns, table.target.node_ns * len(entered)
    rate = min(max((spent - overhead) / elements, rate / 2), rate * 2)
    return rate, max(spent - elements * rate, 0.0) / len(entered)
