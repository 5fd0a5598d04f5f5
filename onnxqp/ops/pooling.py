"""What averaging operators share for quantization: the forms in which their integer kernels are fast."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxqp.graph import (
    add_initializer,
    attribute_int,
    attribute_ints,
    attribute_string,
    dims,
    rank,
    unique_name,
)
from onnxqp.specs import Compute, Role


def average_role(node: ir.Node) -> Role:
    """A window that divides by its full size everywhere is a depthwise convolution, exactly."""
    shape = dims(node.inputs[0])
    if shape is None or len(shape) < 3 or shape[1] is None or not _divides_by_its_size(node, shape):
        return Compute("AveragePoolPartly", (0,))
    return Compute("AveragePool", (0,), lowered=True)


def _divides_by_its_size(node: ir.Node, shape: Sequence[int | None]) -> bool:
    """Whether no window is divided by fewer elements than it has: padding counts, or there is none."""
    automatic = attribute_string(node, "auto_pad", "NOTSET")
    pads = attribute_ints(node, "pads") or [0]
    padded = automatic in ("SAME_UPPER", "SAME_LOWER") or (automatic == "NOTSET" and any(pads))
    if attribute_int(node, "ceil_mode", 0) and not _ends_at_the_border(node, shape):
        return False  # the last window hangs over: what is outside never counts
    return not padded or attribute_int(node, "count_include_pad", 0) == 1


def _ends_at_the_border(node: ir.Node, shape: Sequence[int | None]) -> bool:
    """Whether rounding the output's size up and down gives the same."""
    kernel = attribute_ints(node, "kernel_shape") or []
    strides = attribute_ints(node, "strides") or [1] * len(kernel)
    dilations = attribute_ints(node, "dilations") or [1] * len(kernel)
    pads = attribute_ints(node, "pads") or [0] * (2 * len(kernel))
    if attribute_string(node, "auto_pad", "NOTSET") != "NOTSET":
        return False
    for axis, size in enumerate(shape[2:]):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        if size is None or (size + pads[axis] + pads[axis + len(kernel)] - reach) % strides[axis]:
            return False
    return True


def convolution_from_average(node: ir.Node) -> None:
    """The window as a depthwise QLinearConv of int8 ones with the scale 1 / size: the same sums, the same rounding.

    onnxruntime's QLinearAveragePool takes ten times as long (its kernel is not vectorised).
    """
    graph, shape = node.graph, dims(node.inputs[0])
    kernel = attribute_ints(node, "kernel_shape") or []
    if not isinstance(graph, ir.Graph) or shape is None or shape[1] is None:
        raise ValueError(f"{node.name} has no known number of channels")
    ones = np.ones((shape[1], 1, *kernel), np.int8)
    name = node.name or "AveragePool"
    operands = [
        add_initializer(graph, f"{name}_ones", ones),
        add_initializer(graph, f"{name}_share", np.asarray(1 / math.prod(kernel), np.float32)),
        add_initializer(graph, f"{name}_zero", np.zeros((), np.int8)),
    ]
    rebuilt = ir.Node("", "DequantizeLinear", operands, name=unique_name(graph, f"{name}_weight"))
    rebuilt.outputs[0].name = unique_name(graph, f"{name}_weight_dequantized")
    graph.insert_before(node, rebuilt)
    for key in ("count_include_pad", "ceil_mode", "kernel_shape"):
        node.attributes.pop(key, None)
    node.op_type = "Conv"
    node.attributes["group"] = ir.AttrInt64("group", shape[1])
    node.resize_inputs(2)
    node.replace_input_with(1, rebuilt.outputs[0])


def is_whole_window(node: ir.Node) -> bool:
    """Whether there is one window, over the whole image."""
    shape, kernel = dims(node.inputs[0]), attribute_ints(node, "kernel_shape")
    if shape is None or kernel is None or None in shape[2:] or tuple(kernel) != shape[2:]:
        return False
    if any(attribute_ints(node, "pads") or []) or attribute_string(node, "auto_pad", "NOTSET").startswith("SAME"):
        return False
    return all(step == 1 for step in attribute_ints(node, "dilations") or [])


def global_from_window(node: ir.Node) -> bool:
    """A window over the whole image is a GlobalAveragePool, whose integer kernel is as fast as the float one."""
    if not is_whole_window(node):
        return False
    node.op_type = "GlobalAveragePool"
    node.attributes.clear()
    return True


def is_mean_of_space(node: ir.Node, axes: Sequence[int]) -> bool:
    """Whether a mean is over the axes of space of an image, in float32."""
    source, count = node.inputs[0], rank(node.inputs[0])
    if source is None or count is None or count < 4 or sorted(axes) != list(range(2, count)):
        return False
    return isinstance(node.graph, ir.Graph) and source.dtype == ir.DataType.FLOAT


def global_from_mean(node: ir.Node, axes: Sequence[int]) -> bool:
    """A mean over the axes of space of an image is a GlobalAveragePool, and a Flatten where they are not kept.

    Not over the last axis of a sequence: onnxruntime finds LayerNormalization by its ReduceMean.
    """
    graph, count = node.graph, rank(node.inputs[0]) or 0
    if not is_mean_of_space(node, axes) or not isinstance(graph, ir.Graph):
        return False
    kept = attribute_int(node, "keepdims", 1) == 1
    node.op_type = "GlobalAveragePool"
    node.attributes.clear()
    node.resize_inputs(1)
    if kept:
        return True
    output = node.outputs[0]
    flat = ir.Node("", "Flatten", [output], name=unique_name(graph, f"{node.name}_flatten"))
    flattened = flat.outputs[0]
    flattened.type, flattened.shape = output.type, output.shape
    flattened.name = unique_name(graph, f"{output.name}_flat")
    graph.insert_after(node, flat)
    ir.convenience.replace_all_uses_with(output, flattened, replace_graph_outputs=True)
    flat.replace_input_with(0, output)
    name, output.name = output.name, unique_name(graph, f"{output.name}_mean")
    flattened.name = name
    if flattened.shape is not None:
        output.shape = ir.Shape([*flattened.shape, *[1] * (count - 2)])
    return True
