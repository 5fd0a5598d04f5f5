"""Walk over a graph once and let every operator tie its labels."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator

from onnxqp.axes import AxisLabels, CannotCouple, Pin
from onnxqp.graph import rank, subgraphs
from onnxqp.ops import rule_for
from onnxqp.ops.join import is_weight
from onnxqp.prune.states import find_states, label_state, settle_states


def label_axes(graph: ir.Graph, whole: Collection[str] = ()) -> AxisLabels:
    """The axis labels of a normalised graph: nodes in topological order, all values named and as far as known shaped.

    Graph inputs and outputs are never cut, but for recurrent states that a caller keeps. The bodies of If, Loop and
    Scan are labelled where they stand, as they read values of the graph around them. At the nodes named in `whole`,
    blocks (heads, groups of a convolution) are units of their own: they go as a whole.
    """
    labels = AxisLabels(whole)
    labels.images = image_values(graph)
    states = find_states(graph)
    for state in states:
        label_state(labels, state)
    for value in (value for value in graph.inputs if value not in {state.before for state in states}):
        labels.freeze_value(value, Pin("", "", f"graph input '{value.name}'"))
    rebuilding = list(_couple(graph, labels))
    for value in (value for value in graph.outputs if value not in {state.after for state in states}):
        labels.freeze_value(value, Pin("", "", f"graph output '{value.name}'"))
    settle_states(labels, states)
    for node in reversed(rebuilding):
        rule_for(node).settle(node, labels)
    return labels


def _couple(graph: ir.Graph, labels: AxisLabels) -> Iterator[ir.Node]:
    """Let every node tie its labels; yields those that rebuild weights, which hand labels on once all have some."""
    for node in graph:
        if _rebuilds(node, labels):
            labels.rebuilt.add(node.outputs[0].name or "")
            yield node
            continue
        try:
            rule_for(node).couple(node, labels)
        except CannotCouple as reason:
            labels.pin_node(node, reason.reason)
            for value in (value for body in subgraphs(node) for value in body.inputs):
                labels.freeze_value(value, Pin(node.op_type, node.name or "", reason.reason))
        for body in subgraphs(node):
            yield from _couple(body, labels)
        rule_for(node).leave(node, labels)
        labels.inherit(node)


def _rebuilds(node: ir.Node, labels: AxisLabels) -> bool:
    """Whether a node makes a weight of constants alone: what reads the weight gives it labels, as if it were one."""
    if not rule_for(node).rebuilds or node.outputs[0].dtype is ir.DataType.INT64 or not node.inputs:
        return False
    return all(value is None or is_weight(labels, value) for value in node.inputs)


def image_values(graph: ir.Graph) -> set[str]:
    """Names of values that reach, perhaps through elementwise operators, one that has its channels on axis 1."""
    found: set[str] = set()
    for node in reversed(list(RecursiveGraphIterator(graph))):
        rule = rule_for(node)
        if rule.channels_first and node.inputs and node.inputs[0] is not None:
            found.add(node.inputs[0].name or "")
        elif rule.keeps_axes and node.outputs[0].name in found:
            wide = [value for value in node.inputs if value is not None and rank(value) == rank(node.outputs[0])]
            found.update(value.name or "" for value in wide)
    return found
