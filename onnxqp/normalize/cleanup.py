"""Names, constants, nodes that do nothing."""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as common

from onnxqp import ops
from onnxqp.graph import iterate
from onnxqp.specs import Note


def inputs_are_no_weights(model: ir.Model) -> list[Note]:
    """Weights listed as graph inputs (IR 3 had to) become plain initializers: nobody feeds weights."""
    listed = [value for value in model.graph.inputs if value.name in model.graph.initializers]
    if not listed:
        return []
    kept = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    model.graph.inputs.clear()
    model.graph.inputs.extend(kept)
    model.ir_version = max(model.ir_version, 4)  # before IR 4 every initializer had to be an input
    return [Note("normalize", model.graph.name or "graph", "", f"{len(listed)} weights were listed as graph inputs")]


def lift_constants(model: ir.Model) -> None:
    """Constant nodes become initializers."""
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)


def name_everything(model: ir.Model) -> None:
    """Unique, stable names for nodes and values. Inputs and outputs keep theirs."""
    for graph in model.graphs():
        graph.meta.pop("onnxqp.names", None)
    common.NameFixPass()(model)
    seen: set[str] = set()
    for index, node in enumerate(iterate(model)):
        name = node.name or f"{node.op_type}_{index}"
        while name in seen:
            name = f"{name}_{index}"
        seen.add(name)
        node.name = name


def remove_pass_through(model: ir.Model) -> None:
    """Identity, Dropout at inference and their like go, unless that would join a graph input to a graph output."""
    for node in list(model.graph):
        if not ops.rule_for(node).passes_through(node) or any(extra.uses() for extra in node.outputs[1:]):
            continue
        source, result = node.inputs[0], node.outputs[0]
        if source is None or any(extra.is_graph_output() for extra in node.outputs[1:]):
            continue
        if result.is_graph_output():
            _rename_source(node, source, result)
            continue
        if source.type is None:
            source.type, source.shape = result.type, result.shape
        ir.convenience.replace_all_uses_with(result, source)
        model.graph.remove(node, safe=True)


def _rename_source(node: ir.Node, source: ir.Value, result: ir.Value) -> None:
    """The value behind a graph output's Identity takes over the output's place and name."""
    graph = node.graph
    if not isinstance(graph, ir.Graph) or source.producer() is None or source.is_graph_output():
        return
    if source.producer().graph is not graph:  # type: ignore[union-attr]
        return
    position = next(index for index, output in enumerate(graph.outputs) if output is result)
    name = result.name
    graph.outputs[position] = source
    ir.convenience.replace_all_uses_with(result, source)
    result.name = f"{name}_removed"
    source.name = name
    source.type, source.shape = result.type or source.type, result.shape or source.shape
    graph.remove(node, safe=True)


def remove_dead(model: ir.Model) -> None:
    """Nodes and initializers that no output needs."""
    common.RemoveUnusedNodesPass()(model)
