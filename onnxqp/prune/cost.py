"""What a channel costs to compute."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.axes import AxisLabels, Labels
from onnxqp.ops import rule_for


def channel_macs(
    graph: ir.Graph, labels: AxisLabels, roots: Labels, gone: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.float64]:
    """Multiply-accumulates that go with each class, by label: its share of every layer that makes or reads it.

    To first order: where both sides of a layer are cut, their shares overlap. Once labels are known to be `gone`, less
    goes with those that the layers make of them, or make them of.
    """
    cost = np.zeros(len(roots))
    nodes = {node.name: node for node in graph.all_nodes()}
    stored = {name for each in (graph, *graph.subgraphs()) for name in each.initializers}
    for weight in dict.fromkeys(labels.weights):
        node = nodes.get(weight.node)
        if weight.value not in stored and weight.value not in labels.rebuilt:
            continue
        axes = {weight.produced, weight.consumed} - {None}
        families = [family for axis in axes if axis is not None and (family := labels.family(weight.value, axis))]
        for family in families:
            if node is not None and family.labels.size:
                share = rule_for(node).macs(node) / family.labels.size
                for other in families:
                    if gone is not None and other is not family and other.labels.size:
                        share *= 1 - float(gone[other.labels].mean())
                np.add.at(cost, roots[family.labels].reshape(-1), share)
    return cost
