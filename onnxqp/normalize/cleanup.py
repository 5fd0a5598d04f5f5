"""Names, constants, nodes that do nothing."""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as common

from onnxqp import ops
from onnxqp.graph import iterate, renew_names
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


def forget_origins(model: ir.Model) -> None:
    """What exporters noted of where a node comes from goes: stack traces, paths and modules of the training code, which
    no runtime reads (a third of a small network that PyTorch exported), and which a rewrite makes untrue."""
    for graph in model.graphs():
        _forget(graph)
        for value in (*graph.inputs, *graph.initializers.values()):
            _forget(value)
        for node in graph:
            _forget(node)
            node.doc_string = None
            for value in node.outputs:
                _forget(value)


def _forget(noted: ir.Graph | ir.Node | ir.Value) -> None:
    for key in [key for key in noted.metadata_props if key == "namespace" or key.startswith("pkg.")]:
        del noted.metadata_props[key]


def lift_constants(model: ir.Model) -> None:
    """Constant nodes become initializers."""
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)


def name_everything(model: ir.Model) -> None:
    """Unique, stable names for nodes and values. Inputs and outputs keep theirs."""
    common.NameFixPass()(model)
    _name_bodies(model)
    seen: set[str] = set()
    for index, node in enumerate(iterate(model)):
        name = node.name or f"{node.op_type}_{index}"
        while name in seen:
            name = f"{name}_{index}"
        seen.add(name)
        node.name = name
    renew_names(model)


def _name_bodies(model: ir.Model) -> None:
    """Values of the bodies of If, Loop and Scan have names of their own: two branches may have used the same."""
    main, *inner = model.graphs()
    seen = {value.name for value in (*main.inputs, *main.initializers.values())}
    seen.update(output.name for node in main for output in node.outputs)
    for number, body in enumerate(inner):
        made = [output for node in body for output in node.outputs]
        for value in (*body.inputs, *body.initializers.values(), *made):
            if value.name and value.name in seen and not (value.is_graph_input() and value.is_initializer()):
                value.name = _free(f"{value.name}_body{number}", seen)
            seen.add(value.name)


def _free(name: str, seen: set[str | None]) -> str:
    while name in seen:
        name += "_"
    return name


def remove_pass_through(model: ir.Model) -> bool:
    """Identity, Dropout at inference and their like go, unless that would join a graph input to a graph output.

    True when any went.
    """
    changed = False
    for node in list(model.graph):
        if not ops.rule_for(node).passes_through(node):
            continue
        if any(extra.uses() or extra.is_graph_output() for extra in node.outputs[1:]):
            continue
        source = node.inputs[0]
        if source is not None and can_bypass(node, source):
            bypass(node, source)
            changed = True
    return changed


def can_bypass(node: ir.Node, source: ir.Value) -> bool:
    """Whether readers of `node` may read `source` instead: a graph output must stay the output of some node."""
    if not node.outputs[0].is_graph_output():
        return True
    producer = source.producer()
    return producer is not None and producer.graph is node.graph and not source.is_graph_output()


def bypass(node: ir.Node, source: ir.Value) -> None:
    """Let all readers of output 0 of `node` read `source`, and remove the node; a graph output keeps its name."""
    graph, result = node.graph, node.outputs[0]
    if not isinstance(graph, ir.Graph):
        raise TypeError(f"{node.name} is in no graph")
    if result.is_graph_output():
        name = result.name
        graph.outputs[next(i for i, output in enumerate(graph.outputs) if output is result)] = source
        result.name = f"{name}_removed"
        source.name = name
    if result.type is not None:
        source.type, source.shape = result.type, result.shape or source.shape
    ir.convenience.replace_all_uses_with(result, source)
    graph.remove(node, safe=True)


def remove_dead(model: ir.Model) -> None:
    """Nodes and initializers that no output needs."""
    common.RemoveUnusedNodesPass()(model)
