"""Shapes: inferred, and folded to numbers wherever they are decided before any data comes."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx.shape_inference
import onnx_ir as ir

from onnxqp import ops
from onnxqp.graph import FOLDED, add_initializer, constant, is_constant, subgraphs
from onnxqp.integrity import bodies
from onnxqp.normalize.alike import infer_alike
from onnxqp.ops.operator import Elements
from onnxqp.protos import holds_map, light_proto

_MADE_UP = re.compile(r"unk__\d+")  # by onnx's inference
_LONGEST = 64  # elements of an integer tensor that can still be a shape
_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)


def infer_shapes(model: ir.Model) -> None:
    """Fill in every shape and type that onnx's inference finds, and what operators know beyond it."""
    _forget_made_up_names(model)
    for _ in range(_LONGEST):
        _infer(model)
        if not _refine(model):
            break


def _forget_made_up_names(model: ir.Model) -> None:
    """Sizes that an earlier inference could only number: one that follows values through Shape and Concat says more."""
    for value in (value for node in model.graph for value in node.outputs if not value.is_graph_output()):
        sizes = [] if value.shape is None else list(value.shape)
        known = [None if _is_made_up(size) else size for size in sizes]
        if known != sizes:
            value.shape = ir.Shape(known)


def _is_made_up(size: int | ir.SymbolicDim) -> bool:
    return isinstance(size, ir.SymbolicDim) and size.value is not None and bool(_MADE_UP.fullmatch(size.value))


def _refine(model: ir.Model) -> bool:
    """Write down dimensions that onnx's inference leaves open and an operator's record can tell."""
    changed = False
    for node in model.graph:
        rule = ops.rule_for(node)
        for output, inside in rule.returned(node):
            output.shape, changed = ir.Shape(list(inside.shape or ())), True
        known, alike = rule.infer(node), rule.alike(node)
        if known is None and alike is not None:
            known = infer_alike(node, alike)
        if known is not None:
            like = node.inputs[rule.type_from]
            node.outputs[0].shape = ir.Shape(known)
            node.outputs[0].type = node.outputs[0].type or (None if like is None else like.type)
            for twin in (node.outputs[index] for index in rule.twins if index < len(node.outputs)):
                twin.shape, twin.type = ir.Shape(known), node.outputs[0].type
            changed = True
    return changed


def _infer(model: ir.Model) -> None:
    """One run of onnx's inference; what it cannot find stays unknown."""
    try:
        proto = onnx.shape_inference.infer_shapes(light_proto(model), check_type=False, data_prop=True)
    except Exception:  # it knows no error tree; whoever needs a shape says so where it is missing
        return
    _take_over(model.graph, proto.graph)


def _take_over(graph: ir.Graph, inferred: onnx.GraphProto) -> None:
    """Write down the types and shapes of the same graph with inferred ones, and of the bodies inside it."""
    found = {info.name: info.type for infos in (inferred.value_info, inferred.output) for info in infos}
    for value in (*graph.inputs, *graph.outputs):
        _describe(value, found.get(value.name or ""))
    for node, same in zip(graph, inferred.node, strict=True):
        for value in node.outputs:
            _describe(value, found.get(value.name or ""))
        for body, described in zip(subgraphs(node), bodies(same), strict=True):
            _take_over(body, described)


def _describe(value: ir.Value, found: onnx.TypeProto | None) -> None:
    if found is None or value.const_value is not None or holds_map(found):
        return
    if value.type is None and found.WhichOneof("value") is not None:
        value.type = ir.serde.deserialize_type_proto_for_type(found)
    if found.HasField("tensor_type") and value.shape is not None:  # the same, mostly: do not make it only to compare
        if not found.tensor_type.HasField("shape"):
            return
        sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in found.tensor_type.shape.dim]
        if None not in sizes and value.shape == sizes:
            return
    shape = ir.serde.deserialize_type_proto_for_shape(found)
    if shape is not None and value.shape != shape:
        value.shape = shape


def fold_shape_values(model: ir.Model) -> bool:
    """Replace integer tensors whose every element follows from static dimensions by constants.

    This freezes what a graph computes from its own shape, such as 1/sqrt(head size), at the original numbers, before
    pruning changes the dimensions (rule 56 of the operator rules).
    """
    known: dict[ir.Value, Elements] = {}

    def lookup(value: ir.Value | None) -> Elements | None:
        if value is None:
            return None
        if value in known:
            return known[value]
        if value.dtype not in _INTEGERS or not is_constant(value):
            return None
        if value.const_value is None or value.const_value.size > _LONGEST or len(value.const_value.shape) > 1:
            return None
        array = constant(value)
        return None if array is None else [int(element) for element in np.ravel(array)]

    changed = False
    for node in list(model.graph):
        elements = ops.rule_for(node).elements(node, lookup)
        if elements is None or len(elements) > _LONGEST or not node.outputs:
            continue
        output = node.outputs[0]
        if output.shape is not None and len(output.shape) > 1:
            continue  # lists stand for numbers and vectors; a matrix of constants is folded by running it
        known[output] = elements
        if any(element is None for element in elements) or output.is_graph_output() or not output.uses():
            continue
        dtype = np.int32 if output.dtype == ir.DataType.INT32 else np.int64
        array = np.asarray(elements, dtype)
        if output.shape is not None and len(output.shape) == 0:
            array = array.reshape(())
        elif output.shape is None and node.outputs[0].dtype is None:
            continue
        ir.convenience.replace_all_uses_with(output, add_initializer(model.graph, f"{output.name}{FOLDED}", array))
        changed = True
    return changed
