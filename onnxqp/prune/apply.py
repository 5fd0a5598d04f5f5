"""Cut a graph: rewrite what nodes say about sizes, slice the initializers, set the new shapes."""

from __future__ import annotations

import onnx_ir as ir

from onnxqp.axes import AxisLabels, Cut
from onnxqp.graph import SCALES, constant, iterate, set_initializer, subgraphs
from onnxqp.model import clone
from onnxqp.ops import rule_for
from onnxqp.prune.spool import is_large, spooled
from onnxqp.prune.states import cut_states


def cut_model(model: ir.Model, labels: AxisLabels, cut: Cut) -> ir.Model:
    """A copy of `model` without the removed slices; untouched weights are shared with it.

    Operators rewrite themselves first, while all shapes are still those from before.
    """
    pruned, large = clone(model), is_large(model)
    for node in list(iterate(pruned)):
        if any(cut.masks(value) for value in (*node.inputs, *node.outputs)):
            rule_for(node).resize(node, cut)
    for value in [value for graph in pruned.graphs() for value in graph.initializers.values()]:
        array = constant(value) if cut.masks(value) else None
        if array is not None:
            set_initializer(value, spooled(cut.compact(value, array), large=large))
    scales = dict(pruned.meta.get(SCALES, {}))
    for node in pruned.graph:
        for output in node.outputs:
            mask = cut.mask(output, 1) if output.name in scales else None
            if mask is not None:
                scales[output.name] = scales[output.name][mask[1].reshape(-1)]
    pruned.meta[SCALES] = scales
    for node in iterate(pruned):
        for value in (*node.outputs, *(value for body in subgraphs(node) for value in body.inputs)):
            set_shape(value, cut.sizes(value))
    cut_states(pruned.graph, cut)
    return pruned


def set_shape(value: ir.Value, sizes: dict[int, int]) -> None:
    """Write new sizes into the shape of a value."""
    if value.shape is not None and sizes:
        value.shape = ir.Shape([sizes.get(axis, size) for axis, size in enumerate(value.shape)])


def never_empty(labels: AxisLabels, cut: Cut, graph: ir.Graph) -> list[str]:
    """Values of which some block would keep nothing at all."""
    constants = (value for each in (graph, *graph.subgraphs()) for value in each.initializers.values())
    values = [*constants, *(output for node in graph.all_nodes() for output in node.outputs)]
    return [value.name or "" for value in values if any(not kept.any(axis=-1).all() for _, kept in cut.masks(value))]
