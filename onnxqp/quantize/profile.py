"""What every unit costs in float and in int8 on this machine, read off onnxruntime's profiler."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxqp.kernel_times import KernelTime, kernel_times
from onnxqp.quantize.annotate import Unit
from onnxqp.quantize.candidate import Candidate, Material
from onnxqp.quantize.costs import Costs
from onnxqp.quantize.quality import Probe

PROFILE_SECONDS = 0.12  # of each of the two profiles
PROFILE_FEEDS = 4  # different inputs

_BLOCKED = "_nchwc"  # what onnxruntime appends to the name of a value for the node that makes it in blocked layout
_ADDED = re.compile(r"(_token_\d+|/duplicated|_nhwc|/MatMulScaleFusion/?)+$")  # and to the names of nodes
_STEP = re.compile(r"_d?q(_\d+)?$")  # and we, to those of values
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "Transpose")


def measure_costs(material: Material, table: Costs, whole: Candidate, probe: Probe, *, threads: int) -> Costs:
    """The costs of every unit, from a profile of the model in float and one with all in int8 that can be (`whole`)."""
    units, integer = material.annotation.units, whole.decision.integer

    @functools.cache
    def in_integers() -> list[KernelTime]:
        return _profile(whole.model, probe, threads)

    def of_nodes() -> list[float]:
        in_float = _by_node(material.model, _profile(material.original, probe, threads))
        quantized = _by_node(material.model, in_integers())
        return [_sum(in_float, unit) for unit in units] + [_sum(quantized, unit) for unit in integer]

    times = probe.measured.of("nanoseconds of nodes", of_nodes, len(units) + len(integer))
    border = probe.measured.of("nanoseconds of conversions", lambda: _border(table, whole, in_integers()), 2)
    return replace(
        table,
        as_float={unit.node.name or "": time for unit, time in zip(units, times[: len(units)], strict=True)},
        as_integer={unit.node.name or "": time for unit, time in zip(integer, times[len(units) :], strict=True)},
        measured_border=(border[0], border[1]),
    )


def _profile(model: ir.Model, probe: Probe, threads: int) -> list[KernelTime]:
    return kernel_times(model, probe.feeds[:PROFILE_FEEDS], seconds=PROFILE_SECONDS, threads=threads)


def _sum(times: dict[str, float], unit: Unit) -> float:
    """A node without a time of its own was fused into another, or removed."""
    return sum(times.get(node.name or "", 0.0) for node in (unit.node, *unit.absorbed))


def _by_node(model: ir.Model, times: Sequence[KernelTime]) -> dict[str, float]:
    """Nanoseconds by the node of `model` that a kernel stands for; kernels that stand for none are left out."""
    nodes = {node.name or "" for node in model.graph}
    makers = {value.name or "": node.name or "" for node in model.graph for value in node.outputs}
    found: dict[str, float] = {}
    for time in times:
        blocked = _BLOCKED in time.node
        own = _ADDED.sub("", time.node)
        values = (own.removesuffix(_BLOCKED), *time.outputs, *(_STEP.sub("", name) for name in time.outputs))
        made = next((makers[name] for name in values if name in makers), None)
        name = own if own in nodes and not blocked else made
        if name is not None and time.op_type not in _CONVERSIONS:
            found[name] = found.get(name, 0.0) + time.nanoseconds
    return found


def _border(table: Costs, whole: Candidate, times: Sequence[KernelTime]) -> tuple[float, float]:
    """Nanoseconds of a conversion per element and per node, from those that there were; else as the table has it.

    What a few borders cost does not tell elements from nodes, so the rate stays within twice that of the table.
    """
    spent = sum(time.nanoseconds for time in times if time.op_type in _CONVERSIONS)
    units = whole.decision.integer
    made = {value for unit in units for value in unit.outputs}
    entered = {value for unit in units for _, value in unit.inputs} - made
    if not entered:
        return table.target.border_ns, table.target.node_ns
    elements = sum(table.count(value) for value in entered)
    rate, overhead = table.target.border_ns, table.target.node_ns * len(entered)
    rate = min(max((spent - overhead) / elements, rate / 2), rate * 2)
    return rate, max(spent - elements * rate, 0.0) / len(entered)
