"""Raise old opsets to one that quantization can use."""

from __future__ import annotations

import onnx.version_converter
import onnx_ir as ir

from onnxqp.graph import constant, iterate
from onnxqp.protos import LOWEST_IR, light_proto
from onnxqp.specs import Note

PER_CHANNEL_OPSET = 13  # DequantizeLinear got its `axis` there
RAISED_OPSET = 17

_LOST_AN_AXIS, _LOST_OPSET = ("Scan",), 9  # the opset in which it lost its batch axis
_ALONG_AN_AXIS = ("Softmax", "LogSoftmax", "Hardmax")


def raise_opset(model: ir.Model) -> list[Note]:
    """Convert a model below opset 13 to opset 17 in place; what is newer stays as it is."""
    old = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
    if old >= PER_CHANNEL_OPSET:
        model.ir_version = max(model.ir_version, LOWEST_IR)
        return []
    subject = model.graph.name or "graph"
    if old < _LOST_OPSET and any(node.op_type in _LOST_AN_AXIS for node in iterate(model)):
        reason = "the converter drops the batch axis of Scan"  # onnx/version_converter: 8 to 9 is taken as compatible
        return [Note("normalize", subject, "", f"opset {old} could not be raised: {reason}")]
    try:
        converted = ir.from_proto(onnx.version_converter.convert_version(light_proto(model), RAISED_OPSET))
    except Exception as err:  # the converter raises RuntimeError and its own kinds for any operator it does not know
        return [Note("normalize", subject, "", f"opset {old} could not be raised: {str(err).splitlines()[0][:160]}")]
    weights = {name: value.const_value for name, value in model.graph.initializers.items()}
    for name, value in list(converted.graph.initializers.items()):
        if name in weights:
            value.const_value = weights[name]
    kept = [value for value in converted.graph.inputs if value.name not in weights]
    for value in [value for value in converted.graph.inputs if value.name in weights]:
        value.const_value = weights[value.name or ""]
    lifted = [value for value in converted.graph.inputs if value.name in weights]
    converted.graph.inputs.clear()
    converted.graph.inputs.extend(kept)
    for value in lifted:
        converted.graph.register_initializer(value)
    model.graph = converted.graph
    model.ir_version = max(model.ir_version, LOWEST_IR)
    return [Note("normalize", subject, "", f"opset raised from {old} to {RAISED_OPSET}")]


def unflatten(model: ir.Model) -> bool:
    """Take the Flatten and Reshape away that raising the opset puts around a Softmax along the last axis.

    Before opset 13 it ran over all axes from `axis` on. Where that is the last axis alone, nothing need be flattened,
    and three nodes less run at every inference. Shapes must have been inferred. Whether the graph changed.
    """
    changed = False
    for node in list(model.graph):
        if node.op_type not in _ALONG_AN_AXIS or node.domain:
            continue
        flatten, users = node.inputs[0].producer() if node.inputs[0] else None, node.outputs[0].uses()
        reshape = next(iter(users)).node if len(users) == 1 else None
        if flatten is None or reshape is None or flatten.op_type != "Flatten" or reshape.op_type != "Reshape":
            continue
        source, output = flatten.inputs[0], reshape.outputs[0]
        if source is None or source.shape is None or node.outputs[0].is_graph_output():
            continue
        rank = len(source.shape)
        axis = flatten.attributes.get_int("axis", 1)
        if axis % max(rank, 1) != rank - 1 or not _restores(reshape.inputs[1], source):
            continue
        node.replace_input_with(0, source)
        node.attributes["axis"] = ir.AttrInt64("axis", -1)
        result, kept = node.outputs[0], output.name
        result.shape, result.type = source.shape, source.type
        ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
        model.graph.remove(reshape, safe=True)
        result.name = kept
        changed = True
    return changed


def _restores(shape: ir.Value | None, source: ir.Value) -> bool:
    """Whether a shape operand is that of `source`: read off it, or the same numbers."""
    producer = shape.producer() if shape is not None else None
    if producer is not None and producer.op_type == "Shape" and producer.inputs[0] is source:
        return not {"start", "end"} & set(producer.attributes)
    numbers = constant(shape)
    return numbers is not None and source.shape is not None and list(numbers) == list(source.shape)
