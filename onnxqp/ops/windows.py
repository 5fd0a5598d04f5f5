"""What is wrong with the window of a convolution or pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxqp.graph import attribute_int, attribute_ints, attribute_string, dims


@dataclass(frozen=True)
class Window:
    """What a node reads for one place of its output, one number for each axis of space; `pads` as ONNX has them."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]

    @property
    def is_point(self) -> bool:
        """Whether each place of the output follows from the same place of the input alone."""
        return not any(self.pads) and {*self.kernel, *self.strides} == {1}


def free_window(node: ir.Node, kernel: list[int] | None) -> Window | None:
    """The window of a node whose strides may be multiplied: the output is then every n-th place of what it was.

    None where sizes follow from strides in another way (rounding up, automatic padding of strided windows), or places
    are numbered.
    """
    numbered = len(node.outputs) > 1 and bool(node.outputs[1].uses() or node.outputs[1].is_graph_output())
    if kernel is None or attribute_int(node, "ceil_mode", 0) or numbered:
        return None
    strides = attribute_ints(node, "strides") or [1] * len(kernel)
    pads = _explicit_pads(node, kernel, strides)
    return None if pads is None else Window(tuple(kernel), tuple(strides), tuple(pads))


def _explicit_pads(node: ir.Node, kernel: list[int], strides: list[int]) -> list[int] | None:
    automatic = attribute_string(node, "auto_pad", "NOTSET")
    if automatic == "NOTSET":
        return attribute_ints(node, "pads") or [0] * (2 * len(kernel))
    if automatic == "VALID":
        return [0] * (2 * len(kernel))
    if any(step != 1 for step in strides):
        return None
    dilations = attribute_ints(node, "dilations") or [1] * len(kernel)
    whole = [(size - 1) * step for size, step in zip(kernel, dilations, strict=True)]
    small, large = [size // 2 for size in whole], [size - size // 2 for size in whole]
    return [*small, *large] if automatic == "SAME_UPPER" else [*large, *small]


def multiply_strides(node: ir.Node, window: Window, steps: Sequence[int]) -> None:
    """Every n-th place of the output only."""
    node.attributes.pop("auto_pad", None)
    node.attributes["pads"] = ir.AttrInt64s("pads", window.pads)
    strides = [old * step for old, step in zip(window.strides, steps, strict=True)]
    node.attributes["strides"] = ir.AttrInt64s("strides", strides)


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
