"""Axes of size one that are taken away and put back: exporters of recurrent models write chains of nothing else.

Raising the opset makes each of these nodes read its axes from a tensor, so they cost a little more than they did.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxqp.graph import add_initializer
from onnxqp.normalize.cleanup import bypass, can_bypass

_UNIT_AXES = ("Squeeze", "Unsqueeze")
_AXES_ARE_INPUTS = 13  # of both operators, since that opset


def fuse_unit_axes(model: ir.Model) -> bool:
    """Let a Squeeze or Unsqueeze behind another read what that one reads, in place; whether the graph changed.

    Which axes of size one come and go does not matter as long as the shape that is left is right. Shapes must have been
    inferred; with sizes that are not known nothing is done.
    """
    if model.opset_imports.get("", 0) < _AXES_ARE_INPUTS:
        return False
    changed = False
    for node in list(model.graph):
        first = node.inputs[0].producer() if node.op_type in _UNIT_AXES and node.inputs[0] is not None else None
        if first is None or node.domain or first.domain or first.op_type not in _UNIT_AXES:
            continue
        source, before, after = first.inputs[0], _sizes(first.inputs[0]), _sizes(node.outputs[0])
        if source is None or before is None or after is None or first.graph is not node.graph:
            continue
        if before == after and can_bypass(node, source):
            bypass(node, source)
            changed = True
        elif (axes := _dropped(before, after)) is not None:
            changed |= _becomes(node, "Squeeze", source, axes)
        elif (axes := _dropped(after, before)) is not None:
            changed |= _becomes(node, "Unsqueeze", source, axes)
    return changed


def _becomes(node: ir.Node, op_type: str, source: ir.Value, axes: list[int]) -> bool:
    graph = node.graph
    if not isinstance(graph, ir.Graph):
        return False
    operand = add_initializer(graph, f"{node.name}_axes", np.asarray(axes, np.int64))
    node.op_type = op_type
    node.resize_inputs(2)
    node.replace_input_with(0, source)
    node.replace_input_with(1, operand)
    return True


def _dropped(longer: list[int], shorter: list[int]) -> list[int] | None:
    """The axes of size one to take from `longer` so that `shorter` is left; None if that cannot be, or needs none."""
    axes, place = list[int](), 0
    for axis, size in enumerate(longer):
        if place < len(shorter) and shorter[place] == size:
            place += 1
        elif size == 1:
            axes.append(axis)
        else:
            return None
    return axes if axes and place == len(shorter) else None


def _sizes(value: ir.Value | None) -> list[int] | None:
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return list(value.shape.numpy())
