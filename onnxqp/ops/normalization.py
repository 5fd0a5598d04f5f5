"""Normalisation layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy.typing as npt
import onnx_ir as ir

from onnxqp.axes import AxisLabels, CannotCouple, Cut
from onnxqp.graph import attribute_int, attribute_ints, constant
from onnxqp.ops import folding, quantizing
from onnxqp.ops.join import channel_labels, dims_of, join, rank_of, same_shape, tie_axis
from onnxqp.ops.operator import Affine, Operator
from onnxqp.specs import Role


class Normalization(Operator):
    """Rescales its first input and keeps its shape."""

    def infer(self, node: ir.Node) -> Sequence[int | str | None] | None:
        """onnx does not infer those that are functions of other operators, nor those that are not its own."""
        return same_shape(node)


class BatchNormalization(Normalization):
    """Channels tie to scale, bias, mean and variance."""

    op_types: ClassVar[tuple[str, ...]] = ("BatchNormalization",)
    channels_first: ClassVar[bool] = True

    def keeps_places(self, node: ir.Node) -> bool:
        return True

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        if attribute_int(node, "training_mode", 0):
            raise CannotCouple("a BatchNormalization in training mode")
        image = _image(node)
        join(labels, node, {0: image, **dict.fromkeys(range(1, 5), image[1:2])}, {0: image})

    def affine(self, node: ir.Node) -> Affine | None:
        return folding.batch_norm_affine(node)

    def learned_scale(self, node: ir.Node) -> npt.NDArray[Any] | None:
        return constant(node.inputs[1])

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class InstanceNormalization(Normalization):
    """Channels tie to scale and bias; a cut spatial axis has its statistics over the kept elements."""

    op_types: ClassVar[tuple[str, ...]] = ("InstanceNormalization",)
    keeps_axes: ClassVar[bool] = True

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        image = _image(node)
        join(labels, node, {0: image, 1: image[1:2], 2: image[1:2]}, {0: image}, statistic=image[2:])

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class LayerNormalization(Normalization):
    """Normalised axes tie to scale and bias; the statistics are those of the kept channels."""

    op_types: ClassVar[tuple[str, ...]] = (
        "LayerNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
    )

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        rank = rank_of(node.inputs[0])
        first = attribute_int(node, "axis", -1) % rank
        present = [index for index, value in enumerate(node.inputs) if value is not None]
        names = {index: range(rank - rank_of(node.inputs[index]), rank) for index in present}
        moments = [axis if axis < first else None for axis in range(rank)]
        outputs = {0: range(rank), **dict.fromkeys(range(1, len(node.outputs)), moments)}
        join(labels, node, names, outputs, statistic=range(first, rank))

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class GroupNormalization(Normalization):
    """Channels tie to scale and bias; every group keeps as many, or goes as a whole; statistics are of what is left."""

    op_types: ClassVar[tuple[str, ...]] = ("GroupNormalization",)
    channels_first: ClassVar[bool] = True

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        image, groups = _image(node), node.attributes["num_groups"].as_int()
        data = node.inputs[0]
        if data is None:
            raise CannotCouple("a GroupNormalization of nothing")
        each = dims_of(node.inputs[1]) == (dims_of(data)[1],)  # until opset 21 one number for each group
        whole = node.name in labels.whole
        vectors = {1: image[1:2], 2: image[1:2]} if each else {}
        join(labels, node, {0: image, **vectors}, {0: image}, statistic=image[2:] if whole else image[1:])
        channels = channel_labels(labels, data, 1)
        if channels is None:
            return
        labels.split(node, channels.reshape(groups, -1))
        for index in (1, 2) if whole and not each else ():
            tie_axis(labels, node, index, 0, channels.reshape(groups, -1)[:, 0])

    def resize(self, node: ir.Node, cut: Cut) -> None:
        channels, before = cut.size(node.inputs[0], 1), dims_of(node.inputs[0])[1]
        if channels and before and cut.whole(node):
            groups = node.attributes["num_groups"].as_int() * channels // before
            node.attributes["num_groups"] = ir.AttrInt64("num_groups", groups)

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class LpNormalization(Normalization):
    """Channels pass; the norm is that of the kept channels."""

    op_types: ClassVar[tuple[str, ...]] = ("LpNormalization",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        names = range(rank_of(node.inputs[0]))
        join(labels, node, {0: names}, {0: names}, statistic=[attribute_int(node, "axis", -1) % len(names)])

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


class MeanVarianceNormalization(Normalization):
    """Channels pass; the statistics are those of the kept channels."""

    op_types: ClassVar[tuple[str, ...]] = ("MeanVarianceNormalization",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        names = range(rank_of(node.inputs[0]))
        axes = attribute_ints(node, "axes") or [0, 2, 3]
        join(labels, node, {0: names}, {0: names}, statistic=[axis % len(names) for axis in axes])


class LRN(Normalization):
    """The channel axis is pinned: each output looks at neighbouring channels."""

    op_types: ClassVar[tuple[str, ...]] = ("LRN",)
    channels_first: ClassVar[bool] = True

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        names = [None if axis == 1 else axis for axis in range(rank_of(node.inputs[0]))]
        join(labels, node, {0: names}, {0: names})

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


def _image(node: ir.Node) -> list[str]:
    """Names of an image's axes: batch, channels, and space."""
    return ["batch", "channels", *(f"space{axis}" for axis in range(rank_of(node.inputs[0]) - 2))]
