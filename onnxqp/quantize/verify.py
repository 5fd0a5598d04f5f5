"""Look at what the runtime really made of a quantized model: which nodes fused, and of the others, why not."""

from __future__ import annotations

import re
from collections.abc import Mapping

import onnx_ir as ir

from onnxqp.graph import constant
from onnxqp.plan import PlannedNode, QuantizationPlan
from onnxqp.report.records import NodeNote
from onnxqp.runtime import optimized_graph

_SUFFIX = re.compile(r"(_token_\d+|/duplicated)+$")  # what onnxruntime's layout passes append to a node's name


def unfused_nodes(model: ir.Model, plan: QuantizationPlan) -> list[NodeNote]:
    """Open the quantized `model`, dump the optimised graph, and list the planned nodes that did not become kernels.

    Raises what the runtime says when the model does not load.
    """
    found: dict[str, list[str]] = {}
    for node in optimized_graph(model).graph.node:
        found.setdefault(_SUFFIX.sub("", node.name), []).append(node.op_type)
    nodes = {node.name or "": node for node in model.graph}
    notes = []
    for planned in plan.integer_nodes:
        if not any(op_type in planned.fused for op_type in found.get(planned.node, ())):
            notes.append(NodeNote(planned.node, planned.op_type, _explain(planned, nodes[planned.node], found)))
    return notes


def _explain(planned: PlannedNode, node: ir.Node, found: Mapping[str, list[str]]) -> str:
    """The condition of the fusion that does not hold (onnxruntime's QDQ selectors), in words."""
    became = found.get(planned.node)
    if became is None:
        return f"onnxruntime removed it instead of making {' or '.join(planned.fused)} of it"
    broken = _broken_condition(node)
    return f"it runs as {became[0]}: {broken or 'no known condition of the fusion is broken'}"


def _broken_condition(node: ir.Node) -> str | None:
    for value in node.inputs:
        producer = value.producer() if value is not None else None
        if value is not None and (producer is None or producer.op_type != "DequantizeLinear"):
            return f"its input {value.name} is not dequantized"
        if producer is not None and producer.inputs[0] is not None and producer.inputs[0].const_value is None:
            scale = constant(producer.inputs[1])
            if scale is None or scale.ndim:
                return f"the scale of its input {producer.outputs[0].name} is not a constant scalar"
    output, absorbed = node.outputs[0], None
    readers = _readers(output)
    while len(readers) == 1 and readers[0].op_type != "QuantizeLinear" and len(readers[0].outputs) == 1:
        absorbed, output = readers[0], readers[0].outputs[0]
        readers = _readers(output)
    if absorbed is not None and readers and all(reader.op_type == "QuantizeLinear" for reader in readers):
        return f"the {absorbed.op_type} behind it is not covered by the range of its output"
    output = node.outputs[0]
    if output.is_graph_output() or any(reader.op_type != "QuantizeLinear" for reader in _readers(output)):
        return f"its output {output.name} is read in float"
    return None


def _readers(value: ir.Value) -> list[ir.Node]:
    """The nodes that read a value; none tells the whole story of a graph output."""
    return [] if value.is_graph_output() else list(dict.fromkeys(use.node for use in value.uses()))
