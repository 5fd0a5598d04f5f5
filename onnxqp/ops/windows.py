"""What is wrong with the window of a convolution or pool."""

from __future__ import annotations

import onnx_ir as ir

from onnxqp.graph import attribute_int, attribute_ints, dims


def window_fault(node: ir.Node) -> str | None:
    """Sizes that no window has."""
    for name in ("kernel_shape", "strides", "dilations"):
        sizes = attribute_ints(node, name) or []
        if any(size < 1 for size in sizes):
            return f"{name} is {sizes}"
    return None


def convolution_fault(node: ir.Node, *, transposed: bool) -> str | None:
    """Groups, a kernel or channels that contradict the weight, as far as its shape is known."""
    group, kernel = attribute_int(node, "group", 1), attribute_ints(node, "kernel_shape")
    weight = dims(node.inputs[1]) if len(node.inputs) > 1 else None
    if group < 1:
        return f"group is {group}"
    if weight is not None and len(weight) < 3:
        return f"its weight has shape {list(weight)}"
    if weight is not None:
        if kernel is not None and any(
            size not in (None, wanted) for size, wanted in zip(weight[2:], kernel, strict=False)
        ):
            return f"kernel_shape is {kernel}, its weight has shape {list(weight)}"
        if weight[0] is not None and weight[0] % group:
            return f"{weight[0]} filters cannot be shared among {group} groups"
        image, wanted = dims(node.inputs[0]), _channels(weight, group, transposed)
        if image is not None and len(image) > 1 and None not in (image[1], wanted) and image[1] != wanted:
            return f"its input has {image[1]} channels, its weight takes {wanted}"
    return window_fault(node)


def _channels(weight: tuple[int | None, ...], group: int, transposed: bool) -> int | None:
    if transposed:
        return weight[0]
    return None if weight[1] is None else weight[1] * group
