"""Convolutions: plain, grouped, depthwise, transposed."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from onnxqp.axes import AxisLabels, Cut, Name
from onnxqp.graph import attribute_int, attribute_ints, attribute_string, dims, is_constant
from onnxqp.ops import folding, quantizing
from onnxqp.ops.contraction import Windows
from onnxqp.ops.cost import dimension, element_count
from onnxqp.ops.grouped import Layer, couple_grouped
from onnxqp.ops.join import dims_of, join, rank_of
from onnxqp.ops.operator import Affine, Operator
from onnxqp.ops.windows import Window, convolution_fault, free_window
from onnxqp.specs import Compute, Role


class Conv(Operator):
    """Input channels tie to weight axis 1 (group by group), output channels to weight axis 0 and the bias."""

    op_types: ClassVar[tuple[str, ...]] = ("Conv",)
    channels_first: ClassVar[bool] = True

    def fault(self, node: ir.Node) -> str | None:
        return convolution_fault(node, transposed=False)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        couple_conv(node, labels)

    def resize(self, node: ir.Node, cut: Cut) -> None:
        resize_groups(node, cut)

    def macs(self, node: ir.Node) -> int:
        weight = node.inputs[1]
        return element_count(node.outputs[0]) * element_count(weight) // dimension(weight, 0)

    def absorb(self, node: ir.Node, affine: Affine) -> bool:
        return folding.absorb(node, affine, output_axis=1, weight_axis=0)

    def contraction(self, node: ir.Node) -> Windows | None:
        return _windows(node, transposed=False)

    def window(self, node: ir.Node) -> Window | None:
        weight = dims(node.inputs[1])
        return None if weight is None or None in weight else free_window(node, [size or 1 for size in weight[2:]])

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.conv_role(node)

    def plain(self, node: ir.Node) -> bool:
        return quantizing.absorb_pad(node)


class ConvTranspose(Operator):
    """Input channels tie to weight axis 0, output channels to weight axis 1 (group by group) and the bias."""

    op_types: ClassVar[tuple[str, ...]] = ("ConvTranspose",)
    channels_first: ClassVar[bool] = True

    def fault(self, node: ir.Node) -> str | None:
        return convolution_fault(node, transposed=True)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        group = attribute_int(node, "group", 1)
        if group != 1:
            couple_grouped(Layer(node, labels, group), transposed=True)
            return
        names = _names(node, weight=("in", "out"))
        join(labels, node, names, {0: image_names(node, "out")})
        labels.weigh(node, 1, produced=1, consumed=0)

    def resize(self, node: ir.Node, cut: Cut) -> None:
        resize_groups(node, cut, transposed=True)

    def macs(self, node: ir.Node) -> int:
        weight = node.inputs[1]
        return element_count(node.inputs[0]) * element_count(weight) // dimension(weight, 0)

    def absorb(self, node: ir.Node, affine: Affine) -> bool:
        return folding.absorb(node, affine, output_axis=1, weight_axis=1, groups=attribute_int(node, "group", 1))

    def contraction(self, node: ir.Node) -> Windows | None:
        return _windows(node, transposed=True)

    def quantization(self, node: ir.Node) -> Role:
        return Compute("ConvTranspose", (0,))


def couple_conv(node: ir.Node, labels: AxisLabels) -> None:
    """Tie the channels of image, weight, bias and output."""
    group = attribute_int(node, "group", 1)
    if group != 1:
        couple_grouped(Layer(node, labels, group), transposed=False)
        return
    names = _names(node, weight=("out", "in"))
    join(labels, node, names, {0: image_names(node, "out")})
    labels.weigh(node, 1, produced=0, consumed=1)


def image_names(node: ir.Node, channels: str) -> list[Name | None]:
    """Names of an image's axes: batch, channels, and space, which is convolved."""
    return ["batch", channels, *[None] * (rank_of(node.inputs[0]) - 2)]


def _names(node: ir.Node, weight: tuple[str, str]) -> dict[int, list[Name | None]]:
    names: dict[int, list[Name | None]] = {0: image_names(node, "in"), 1: [*weight, *image_names(node, "in")[2:]]}
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        names[2] = ["out"]
    return names


def resize_groups(node: ir.Node, cut: Cut, weight: int = 1, *, transposed: bool = False) -> None:
    """As many groups as channels are left for: depthwise, or where whole groups went; else their number stays."""
    if attribute_int(node, "group", 1) == 1:
        return
    image = node.outputs[0] if transposed else node.inputs[0]  # of which each group has as many as the weight's axis 1
    sizes = [cut.size(value, 1) or dims_of(value)[1] for value in (image, node.inputs[weight])]
    if sizes[0] and sizes[1]:
        node.attributes["group"] = ir.AttrInt64("group", sizes[0] // sizes[1])


def _windows(node: ir.Node, *, transposed: bool) -> Windows | None:
    """How a convolution with a constant weight sees its input."""
    shape = dims_of(node.inputs[1]) if is_constant(node.inputs[1]) else ()
    kernel = tuple(size for size in shape[2:] if size is not None)
    if not kernel:
        return None
    ones = [1] * len(kernel)
    automatic = attribute_string(node, "auto_pad", "NOTSET")
    pads = attribute_ints(node, "pads") or [0] * (2 * len(kernel))
    explicit = automatic == "NOTSET" and "output_shape" not in node.attributes
    return Windows(
        groups=attribute_int(node, "group", 1),
        kernel=kernel,
        strides=tuple(attribute_ints(node, "strides") or ones),
        dilations=tuple(attribute_ints(node, "dilations") or ones),
        pads=tuple(pads[: len(kernel)]) if explicit else None,
        automatic={"SAME_UPPER": "upper", "VALID": "valid"}.get(automatic, "lower"),
        transposed=transposed,
        extra=tuple(attribute_ints(node, "output_padding") or ()),
    )
