"""Look at what the runtime really made of a quantized model: which nodes fused, and of the others, why not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnxqp.graph import iterate
from onnxqp.plan import PlannedNode, QuantizationPlan
from onnxqp.quantize.conditions import broken_condition
from onnxqp.report.records import NodeNote
from onnxqp.runtime import RunningNode, open_and_look

_SUFFIX = re.compile(r"(_token_\d+|/duplicated)+$")  # what onnxruntime's layout passes append to a node's name


def unfused_nodes(
    model: ir.Model, plan: QuantizationPlan, running: Sequence[RunningNode] | None = None
) -> list[NodeNote]:
    """List the planned nodes of the quantized `model` that did not become kernels.

    `running` are the nodes of the optimised graph; without them the model is opened for that, and what the runtime says
    is raised when it does not load.
    """
    found: dict[str, list[str]] = {}
    for node in open_and_look(model)[1] if running is None else running:
        found.setdefault(_SUFFIX.sub("", node.name), []).append(node.op_type)
    nodes = {node.name or "": node for node in iterate(model)}
    notes = []
    for planned in plan.integer_nodes:
        if not any(op_type in planned.fused for op_type in found.get(planned.node, ())):
            notes.append(NodeNote(planned.node, planned.op_type, _explain(planned, nodes[planned.node], found)))
    return notes


def _explain(planned: PlannedNode, node: ir.Node, found: Mapping[str, list[str]]) -> str:
    """The condition of the fusion that does not hold (onnxruntime's QDQ selectors), in words."""
    outputs = (f"{value.name}_nchwc" for value in node.outputs)  # how a float node in blocked layout is called
    became = next((found[name] for name in (planned.node, *outputs) if name in found), None)
    broken = broken_condition(node)
    if became is None:
        removed = f"onnxruntime removed it instead of making {' or '.join(planned.fused)} of it"
        return f"{removed}: {broken}" if broken else removed
    return f"it runs as {became[0]}: {broken or 'no known condition of the fusion is broken'}"
