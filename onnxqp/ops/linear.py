"""Matrix products."""

from __future__ import annotations

import math
import string
from typing import ClassVar

import onnx_ir as ir

from onnxqp.axes import AxisLabels, CannotCouple, Name
from onnxqp.graph import attribute_float, attribute_int, constant, is_constant, rank
from onnxqp.ops import folding, quantizing
from onnxqp.ops.contraction import Product
from onnxqp.ops.cost import dimension, element_count
from onnxqp.ops.join import join, rank_of
from onnxqp.ops.operator import Affine, Operator
from onnxqp.specs import Role


class Gemm(Operator):
    """Rows, columns and the contracted axis tie as in C += A·B, after transA and transB."""

    op_types: ClassVar[tuple[str, ...]] = ("Gemm",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        left = ("k", "m") if attribute_int(node, "transA", 0) else ("m", "k")
        right = ("n", "k") if attribute_int(node, "transB", 0) else ("k", "n")
        names: dict[int, tuple[str, ...]] = {0: left, 1: right}
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            names[2] = ("m", "n")[2 - rank_of(node.inputs[2]) :]
        join(labels, node, names, {0: ("m", "n")})
        labels.weigh(node, 0, produced=left.index("m"), consumed=left.index("k"))
        labels.weigh(node, 1, produced=right.index("n"), consumed=right.index("k"))

    def macs(self, node: ir.Node) -> int:
        contracted = dimension(node.inputs[1], 1 if attribute_int(node, "transB", 0) else 0)
        return element_count(node.outputs[0]) * contracted

    def absorb(self, node: ir.Node, affine: Affine) -> bool:
        if attribute_float(node, "alpha", 1.0) != 1.0 or attribute_float(node, "beta", 1.0) != 1.0:
            return False
        axis = 0 if attribute_int(node, "transB", 0) else 1
        return folding.absorb(node, affine, output_axis=1, weight_axis=axis)

    def contraction(self, node: ir.Node) -> Product | None:
        alpha, beta = attribute_float(node, "alpha", 1.0), attribute_float(node, "beta", 1.0)
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        wide = rank(bias) == 2 and dimension(bias, 0) != 1  # another bias for every row
        if not is_constant(node.inputs[1]) or not alpha or not beta or wide:
            return None
        if bias is not None and constant(bias) is None:
            return None
        across, flipped = attribute_int(node, "transA", 0) != 0, attribute_int(node, "transB", 0) != 0
        return Product(bias=2, across=across, flipped=flipped, scale=alpha, shift=beta)

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.gemm_role(node)

    def plain(self, node: ir.Node) -> bool:
        return quantizing.fold_gemm_factors(node)


class MatMul(Operator):
    """The contracted axes tie, batch axes tie with broadcasting, rows and columns pass to the output."""

    op_types: ClassVar[tuple[str, ...]] = ("MatMul",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        ranks = [rank_of(value) for value in node.inputs[:2]]
        left, right, output = product_names(*ranks)
        join(labels, node, {0: left, 1: right}, {0: output})
        if ranks[0] > 1:
            labels.weigh(node, 0, produced=ranks[0] - 2, consumed=ranks[0] - 1)
        labels.weigh(node, 1, produced=ranks[1] - 1 if ranks[1] > 1 else None, consumed=max(ranks[1] - 2, 0))

    def macs(self, node: ir.Node) -> int:
        return element_count(node.outputs[0]) * dimension(node.inputs[0], -1)

    def absorb(self, node: ir.Node, affine: Affine) -> bool:
        columns, out = rank(node.inputs[1]), rank(node.outputs[0])
        if columns != 2 or out is None or affine.shift.any():
            return False  # it has no bias to take the shift
        return folding.absorb(node, affine, output_axis=out - 1, weight_axis=1)

    def contraction(self, node: ir.Node) -> Product | None:
        flat = is_constant(node.inputs[1]) and rank(node.inputs[1]) == 2 and (rank(node.inputs[0]) or 0) > 1
        return Product(bias=None) if flat else None

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.matmul_role(node)

    def plain(self, node: ir.Node) -> bool:
        return quantizing.gemm_from_matmul(node)


def product_names(left: int, right: int) -> tuple[list[Name | None], list[Name | None], list[Name | None]]:
    """Names of the axes of both operands, of these ranks, and of the product."""
    batch: list[Name] = [("batch", i) for i in reversed(range(max(left, right, 2) - 2))]
    first: list[Name | None] = ["k"] if left == 1 else [*batch[len(batch) - left + 2 :], "m", "k"]
    second: list[Name | None] = ["k"] if right == 1 else [*batch[len(batch) - right + 2 :], "k", "n"]
    return first, second, [*batch, *first[-2:-1], *second[-1:]] if right > 1 else [*batch, *first[-2:-1]]


class Einsum(Operator):
    """One axis per letter, tied over all its occurrences."""

    op_types: ClassVar[tuple[str, ...]] = ("Einsum",)

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        terms, output = _einsum_terms(node)
        join(labels, node, dict(enumerate(terms)), {0: output})
        for index, term in enumerate(terms):
            elsewhere = set("".join(other for i, other in enumerate(terms) if i != index))
            produced = [axis for axis, letter in enumerate(term) if letter in output and letter not in elsewhere]
            consumed = [axis for axis, letter in enumerate(term) if letter not in output]
            if produced or consumed:
                produces, consumes = (axes[-1] if axes else None for axes in (produced, consumed))
                labels.weigh(node, index, produced=produces, consumed=consumes)

    def macs(self, node: ir.Node) -> int:
        try:
            terms, _ = _einsum_terms(node)
        except CannotCouple:
            return 0
        sizes = {
            letter: dimension(value, axis)
            for value, term in zip(node.inputs, terms, strict=True)
            for axis, letter in enumerate(term)
        }
        return math.prod(sizes.values())

    def quantization(self, node: ir.Node) -> Role:
        return quantizing.no_kernel(node)


def _einsum_terms(node: ir.Node) -> tuple[list[str], str]:
    """The letters of each operand and of the output."""
    equation = node.attributes["equation"].as_string().replace(" ", "")
    left, arrow, output = equation.partition("->")
    letters = left.replace(",", "").replace(".", "")
    if not arrow:
        dots = "..." if "..." in left else ""
        output = dots + "".join(c for c in sorted(set(letters)) if letters.count(c) == 1)
    terms = left.split(",")
    if "..." not in equation:
        return terms, output
    unused = [c for c in string.ascii_letters if c not in equation]
    counts = [rank_of(value) - len(term) + 3 for value, term in zip(node.inputs, terms, strict=True) if "..." in term]
    whole = "".join(unused[: max(counts)])  # axes of the ellipsis align from the right
    filled = [
        term.replace("...", whole[len(whole) - (rank_of(value) - len(term) + 3) :])
        for value, term in zip(node.inputs, terms, strict=True)
    ]
    return filled, output.replace("...", whole)
