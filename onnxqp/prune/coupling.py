"""Walk over a graph once and let every operator tie its labels."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from onnxqp.axes import AxisLabels, CannotCouple, Pin
from onnxqp.graph import rank, subgraphs
from onnxqp.ops import rule_for
from onnxqp.ops.join import is_weight


def label_axes(graph: ir.Graph) -> AxisLabels:
    """The axis labels of a normalised graph: nodes in topological order, all values named and as far as known shaped.

    Graph inputs, graph outputs and what the bodies of If, Loop and Scan read from outside are never cut.
    """
    labels = AxisLabels()
    labels.images = image_values(graph)
    for value in graph.inputs:
        labels.freeze_value(value, Pin("", "", f"graph input '{value.name}'"))
    rebuilding: list[ir.Node] = []
    for node in graph:
        if _rebuilds(node, labels):
            rebuilding.append(node)
            labels.rebuilt.add(node.outputs[0].name or "")
            continue
        try:
            rule_for(node).couple(node, labels)
        except CannotCouple as reason:
            labels.pin_node(node, reason.reason)
        for value in captured(node):
            labels.freeze_value(value, Pin(node.op_type, node.name or "", f"read inside the body of {node.op_type}"))
        labels.inherit(node)
    for value in graph.outputs:
        labels.freeze_value(value, Pin("", "", f"graph output '{value.name}'"))
    for node in reversed(rebuilding):
        rule_for(node).settle(node, labels)
    return labels


def _rebuilds(node: ir.Node, labels: AxisLabels) -> bool:
    """Whether a node makes a weight of constants alone: what reads the weight gives it labels, as if it were one."""
    if not rule_for(node).rebuilds or node.outputs[0].dtype is ir.DataType.INT64 or not node.inputs:
        return False
    return all(value is None or is_weight(labels, value) for value in node.inputs)


def image_values(graph: ir.Graph) -> set[str]:
    """Names of values that reach, perhaps through elementwise operators, one that has its channels on axis 1."""
    found: set[str] = set()
    for node in reversed(graph):
        rule = rule_for(node)
        if rule.channels_first and node.inputs and node.inputs[0] is not None:
            found.add(node.inputs[0].name or "")
        elif rule.keeps_axes and node.outputs[0].name in found:
            wide = [value for value in node.inputs if value is not None and rank(value) == rank(node.outputs[0])]
            found.update(value.name or "" for value in wide)
    return found


def captured(node: ir.Node) -> Iterator[ir.Value]:
    """Values of the outer graph that the bodies of a control-flow node read."""
    for body in subgraphs(node):
        own: set[ir.Value] = set(body.inputs) | set(body.initializers.values())
        inner = list(ir.traversal.RecursiveGraphIterator(body))
        for nested in inner:
            own.update(nested.outputs)
            for deeper in subgraphs(nested):
                own.update(deeper.inputs)
                own.update(deeper.initializers.values())
        for nested in inner:
            yield from (value for value in nested.inputs if value is not None and value not in own)
        yield from (value for value in body.outputs if value not in own)
