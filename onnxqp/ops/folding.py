"""What operators share when constants are folded: per-channel scales and shifts, and integers that shapes decide."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.graph import (
    add_initializer,
    attribute_float,
    attribute_int,
    constant,
    own_initializer,
    rank,
    set_initializer,
)
from onnxqp.ops.operator import Affine, Elements

Known = Callable[[ir.Value | None], Elements | None]

# ---- scale and shift ---------------------------------------------------------------------------------------------


def per_channel(value: ir.Value | None, output_rank: int | None) -> tuple[int, npt.NDArray[np.float64]] | None:
    """A constant operand as (axis of the output, float64 values), when it varies along one axis at most."""
    array = constant(value)
    if array is None or output_rank is None or array.dtype not in (np.float32, np.float64):
        return None
    if array.ndim > output_rank:
        return None
    wide = [axis for axis, size in enumerate(array.shape) if size != 1]
    if len(wide) > 1:
        return None
    axis = wide[0] + output_rank - array.ndim if wide else 1
    return axis, array.astype(np.float64).ravel()


def binary_affine(node: ir.Node, *, scales: bool) -> Affine | None:
    """Mul (`scales`) or Add with one constant operand."""
    for data, other in ((0, 1), (1, 0)):
        found = per_channel(node.inputs[other], rank(node.inputs[data]))
        if found is None or rank(node.outputs[0]) != rank(node.inputs[data]):
            continue
        axis, values = found
        one, zero = np.ones_like(values), np.zeros_like(values)
        return Affine(data, axis, values if scales else one, zero if scales else values)
    return None


def inverse_affine(node: ir.Node, *, scales: bool) -> Affine | None:
    """Div (`scales`) or Sub with a constant second operand."""
    found = per_channel(node.inputs[1], rank(node.inputs[0]))
    if found is None or rank(node.outputs[0]) != rank(node.inputs[0]):
        return None
    axis, values = found
    if scales and not values.all():
        return None
    one, zero = np.ones_like(values), np.zeros_like(values)
    return Affine(0, axis, 1 / values if scales else one, zero if scales else -values)


def batch_norm_affine(node: ir.Node) -> Affine | None:
    """BatchNormalization at inference: scale / sqrt(var + epsilon), and the shift that goes with it."""
    arrays = [constant(value) for value in node.inputs[1:5]]
    if len(arrays) < 4 or any(array is None for array in arrays) or attribute_int(node, "training_mode", 0):
        return None
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in arrays)
    scale = gamma / np.sqrt(variance + attribute_float(node, "epsilon", 1e-5))
    return Affine(0, 1, scale, beta - mean * scale)


def absorb(node: ir.Node, affine: Affine, *, output_axis: int, weight_axis: int, groups: int = 1) -> bool:
    """W' = scale W and b' = scale b + shift for a layer whose weight is input 1 and bias, if any, input 2.

    `output_axis` is the channel axis of the output, `weight_axis` that of the weight; with `groups` > 1 the weight's
    axis holds one group's channels and the groups follow each other along axis 0 (ConvTranspose).
    """
    weight, bias = constant(node.inputs[1]), None
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    if has_bias:
        bias = constant(node.inputs[2])
    if weight is None or (has_bias and bias is None) or weight.dtype != np.float32:
        return False
    channels = weight.shape[weight_axis] * groups
    if affine.scale.size not in (1, channels) or (affine.scale.size > 1 and affine.axis != output_axis):
        return False
    scale, shift = (np.broadcast_to(values, (channels,)) for values in (affine.scale, affine.shift))
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return False
    if groups == 1:
        spread = scale.reshape([-1 if axis == weight_axis else 1 for axis in range(weight.ndim)])
        scaled = weight * spread
    else:
        block = [groups, weight.shape[0] // groups, *weight.shape[1:]]
        spread = scale.reshape([groups if axis == 0 else block[2] if axis == 2 else 1 for axis in range(len(block))])
        scaled = (weight.reshape(block) * spread).reshape(weight.shape)
    old = np.zeros(channels) if bias is None else np.broadcast_to(bias.astype(np.float64).ravel(), (channels,))
    if (scale != 1).any():  # a mere shift leaves a weight that layers share with all of them
        set_initializer(own_initializer(node, 1), scaled.astype(np.float32))
    _set_bias(node, (old * scale + shift).astype(np.float32), had_one=has_bias)
    return True


def _set_bias(node: ir.Node, bias: npt.NDArray[np.float32], *, had_one: bool) -> None:
    if had_one:
        set_initializer(own_initializer(node, 2), bias)
    elif bias.any() and isinstance(node.graph, ir.Graph):
        if len(node.inputs) < 3:
            node.resize_inputs(3)
        node.replace_input_with(2, add_initializer(node.graph, f"{node.name}_bias", bias))


# ---- integers that shapes decide ---------------------------------------------------------------------------------


def shape_elements(node: ir.Node) -> Elements | None:
    """Shape: the dimensions, those that are static; `start` and `end` select."""
    source = node.inputs[0]
    if source is None or source.shape is None:
        return None
    sizes = [size if isinstance(size, int) else None for size in source.shape]
    start, end = attribute_int(node, "start", 0), attribute_int(node, "end", len(sizes))
    return sizes[slice(*slice(start, end).indices(len(sizes)))]


def gather_elements(node: ir.Node, known: Known) -> Elements | None:
    """Gather on axis 0 of a vector, by known indices."""
    source, indices = known(node.inputs[0]), known(node.inputs[1])
    if source is None or indices is None or rank(node.inputs[0]) != 1 or attribute_int(node, "axis", 0) not in (0, -1):
        return None
    if any(index is None or not -len(source) <= index < len(source) for index in indices):
        return None
    return [source[index] for index in indices if index is not None]


def slice_elements(node: ir.Node, known: Known) -> Elements | None:
    """Slice of a vector by known bounds."""
    source = known(node.inputs[0])
    bounds = [known(value) for value in node.inputs[1:] if value is not None]
    if source is None or rank(node.inputs[0]) != 1 or len(bounds) != len(node.inputs) - 1:
        return None
    if any(bound is None or len(bound) != 1 or bound[0] is None for bound in bounds):
        return None
    start, end, _, step = (*(bound[0] for bound in bounds if bound), *(None, None, 0, 1)[len(bounds) :])
    return None if start is None or end is None or not step else list(source)[start:end:step]


def concat_elements(node: ir.Node, known: Known) -> Elements | None:
    parts = [known(value) for value in node.inputs]
    if any(part is None for part in parts) or any(rank(value) != 1 for value in node.inputs):
        return None
    return [element for part in parts if part is not None for element in part]


def same_elements(node: ir.Node, known: Known) -> Elements | None:
    """Cast between integers, Squeeze, Unsqueeze, Reshape: the elements stay as they are."""
    if not node.inputs or node.outputs[0].dtype not in (ir.DataType.INT64, ir.DataType.INT32):
        return None
    return known(node.inputs[0])


def arithmetic_elements(node: ir.Node, known: Known, compute: Callable[[int, int], int | None]) -> Elements | None:
    """Add, Sub, Mul, Div of two known vectors; a single element goes with every one of the other."""
    left, right = known(node.inputs[0]), known(node.inputs[1])
    if left is None or right is None or not left or not right:
        return None
    if len(left) != len(right) and 1 not in (len(left), len(right)):
        return None
    length = max(len(left), len(right))
    return [
        None if a is None or b is None else compute(a, b)
        for a, b in zip(_stretch(left, length), _stretch(right, length), strict=True)
    ]


def _stretch(elements: Sequence[int | None], length: int) -> Sequence[int | None]:
    return list(elements) * length if len(elements) == 1 else elements


def truncated_quotient(a: int, b: int) -> int | None:
    """Integer Div of ONNX rounds towards zero."""
    if b == 0:
        return None
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient
