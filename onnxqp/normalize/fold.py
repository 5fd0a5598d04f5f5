"""Compute once what never changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import onnx
import onnx_ir as ir

from onnxqp import ops
from onnxqp.errors import OnnxqpError
from onnxqp.graph import FOLDED, add_initializer, dims, is_constant, subgraphs
from onnxqp.runtime import Session

# A folded constant may be at most this many times larger than what it is made of, unless it is small anyway.
_SMALL = 1 << 20


def fold_constants(model: ir.Model) -> bool:
    """Evaluate, in onnxruntime, every node whose inputs are all constant; True when anything was folded."""
    folded: set[ir.Value] = set()
    nodes: list[ir.Node] = []
    for node in model.graph:
        if _foldable(node, folded):
            nodes.append(node)
            folded.update(node.outputs)
    if not nodes:
        return False
    inside = set(nodes)
    frontier = [
        output
        for node in nodes
        for output in node.outputs
        if any(user not in inside for user in output.consumers()) and not output.is_graph_output()
    ]
    arrays = _evaluate(model, nodes, frontier)
    for value, array in arrays.items():
        ir.convenience.replace_all_uses_with(value, add_initializer(model.graph, f"{value.name}{FOLDED}", array))
    return bool(arrays)


def _foldable(node: ir.Node, folded: set[ir.Value]) -> bool:
    if any(output.is_graph_output() for output in node.outputs) or next(iter(subgraphs(node)), None) is not None:
        return False
    inputs = [value for value in node.inputs if value is not None]
    if not inputs or not all(value in folded or is_constant(value) for value in inputs):
        return False
    return ops.rule_for(node).folds(node) and not _grows(node, inputs)


def _grows(node: ir.Node, inputs: Sequence[ir.Value]) -> bool:
    """Whether folding would blow the file up, as a large Expand of one number would; weights made so are folded."""
    sizes = [_elements(output) for output in node.outputs]
    if any(size is None for size in sizes):
        return False
    out = sum(size for size in sizes if size is not None)
    weight = any(_becomes_weight(output) for output in node.outputs) if out > _SMALL else False
    return out > _SMALL and not weight and out > 4 * sum(_elements(value) or 0 for value in inputs)


def _becomes_weight(value: ir.Value) -> bool:
    """Whether a node reads it, or what constant nodes make of it, in the place of a weight."""
    for user in value.consumers():
        if user.inputs.index(value) >= 1:
            return True
        others = [each for each in user.inputs if each is not None and each is not value]
        if all(is_constant(each) for each in others) and any(map(_becomes_weight, user.outputs)):
            return True
    return False


def _elements(value: ir.Value) -> int | None:
    shape = dims(value)
    return None if shape is None or None in shape else math.prod(d for d in shape if d is not None)


def _evaluate(
    model: ir.Model, nodes: Sequence[ir.Node], wanted: Sequence[ir.Value]
) -> dict[ir.Value, npt.NDArray[Any]]:
    """The arrays of `wanted`; all nodes in one session, or one by one when some node has no kernel."""
    try:
        return _run(model, nodes, wanted)
    except OnnxqpError:
        if len(nodes) == 1:
            return {}
    found: dict[ir.Value, npt.NDArray[Any]] = {}
    for node in nodes:
        if all(is_constant(value) for value in node.inputs if value is not None):
            found |= _evaluate(model, [node], list(node.outputs))
    return found


def _run(model: ir.Model, nodes: Sequence[ir.Node], wanted: Sequence[ir.Value]) -> dict[ir.Value, npt.NDArray[Any]]:
    graph = onnx.GraphProto(name="constants")
    graph.node.extend(ir.serde.serialize_node(node) for node in nodes)
    made = {output for node in nodes for output in node.outputs}
    sources = {value for node in nodes for value in node.inputs if value is not None and value not in made}
    for value in sorted(sources, key=lambda value: value.name or ""):
        if value.const_value is not None:
            tensor = ir.serde.serialize_tensor(ir.tensor(value.const_value.numpy(), name=value.name))
            graph.initializer.append(tensor)
    for value in wanted:
        graph.output.add(name=value.name or "")
    proto = onnx.ModelProto(ir_version=max(8, min(model.ir_version, 10)), graph=graph)
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    results = Session(proto.SerializeToString(), optimize=False).run({})
    return {value: results[value.name or ""] for value in wanted}
