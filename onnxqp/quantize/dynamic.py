"""Dynamic quantization of matrix products: the weight int8 in the file, the activation quantized at every inference.

DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul(scales) [-> Add(bias)], which onnxruntime fuses into one
DynamicQuantizeMatMul, or into MatMulIntegerToFloat where several products share the activation (its
MatMulIntegerToFloatFusion and DynamicQuantizeMatMulFusion). No calibration and no Q/DQ around the LayerNormalization,
Softmax and GELU between the products: that is why it beats the static form on small transformers.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxqp.graph import add_initializer, constant, dims, is_constant, renew_names, unique_name
from onnxqp.ops import rule_for
from onnxqp.quantize.arithmetic import Floats
from onnxqp.quantize.naming import Labels
from onnxqp.quantize.tied import IntegerCopy
from onnxqp.quantize.weights import quantize_weight
from onnxqp.specs import Compute, Float, Weight

FUSED = ("DynamicQuantizeMatMul", "MatMulIntegerToFloat")  # one of them per product in the optimised graph
_PRODUCTS = ("MatMul", "Gemm")  # forms of roles


def reason_against_dynamic(node: ir.Node) -> str | None:
    """Why a node cannot be quantized dynamically, or None where it can."""
    role = rule_for(node).quantization(node)
    if isinstance(role, Float):
        return role.reason
    if not isinstance(role, Compute) or role.form not in _PRODUCTS or role.weight is None:
        return "only products with a constant matrix can be quantized dynamically"
    matrix, source = node.inputs[role.weight.index], node.inputs[role.activations[0]]
    if not is_constant(matrix) or matrix is None or matrix.dtype != ir.DataType.FLOAT:
        return "its weight is not a constant float32 matrix"
    if len(dims(matrix) or ()) != 2:
        return "an integer MatMul needs a matrix"
    if source is None or source.dtype != ir.DataType.FLOAT or is_constant(source):
        return "its input is not a float32 activation"
    return None


@dataclass(frozen=True)
class Rewritten:
    """How many products, and the integers of their weights by the names of these."""

    products: int
    copies: dict[str, IntegerCopy]


def make_dynamic(model: ir.Model, nodes: Collection[str], *, per_tensor: bool, saturates: bool = True) -> Rewritten:
    """Rewrite the named products of a float graph in place.

    Named nodes that `reason_against_dynamic` speaks against stay as they are; bodies of If, Loop and Scan are not
    looked into. `per_tensor`: one scale per weight instead of one per column. `saturates`: the CPU adds neighbouring
    products in 16 bits (`onnxqp.quantize.weights`), and activations take the whole of 0..255 here. The opset must be
    11 or more, that of DynamicQuantizeLinear.
    """
    renew_names(model)
    rewriter = _Rewriter(model.graph, per_tensor, saturates)
    chosen = [node for node in model.graph if node.name in nodes and reason_against_dynamic(node) is None]
    for node in chosen:
        rewriter.rewrite(node)
    return Rewritten(len(chosen), rewriter.copies)


class _Rewriter:
    def __init__(self, graph: ir.Graph, per_tensor: bool, saturates: bool) -> None:
        self.graph = graph
        self.per_tensor = per_tensor
        self.saturates = saturates
        self.labels = Labels()
        self.activations: dict[ir.Value, tuple[ir.Value, ...]] = {}  # one DynamicQuantizeLinear per value
        self.copies: dict[str, IntegerCopy] = {}
        self.weights: dict[tuple[ir.Value, Weight], tuple[ir.Value, ir.Value]] = {}  # one copy per shared weight

    def rewrite(self, node: ir.Node) -> None:
        role = rule_for(node).quantization(node)
        if not isinstance(role, Compute) or role.weight is None:
            raise ValueError(f"{node.name} has no weight")
        source, weight = node.inputs[role.activations[0]], node.inputs[role.weight.index]
        if source is None or weight is None:
            raise ValueError(f"{node.name} lacks an operand")
        bias = node.inputs[role.bias] if role.bias is not None and len(node.inputs) > role.bias else None
        integers, scale, zero_point = self._activation(source, node)
        stored, step = self._weight(weight, role.weight)
        name, output = self.labels.short(node.name or "MatMul"), node.outputs[0]
        total = self._node(node, "MatMulInteger", [integers, stored, zero_point], name, output, ir.DataType.INT32)
        to = [ir.AttrInt64("to", ir.DataType.FLOAT)]
        real = self._node(node, "Cast", [total], f"{name}_cast", output, attributes=to)
        both = self._node(node, "Mul", [scale, step], f"{name}_scales", step)
        result = self._node(node, "Mul", [real, both], f"{name}_scale", output)
        if bias is not None:
            result = self._node(node, "Add", [result, bias], f"{name}_add", output)
        ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
        kept, product = output.name, total.producer()
        self.graph.remove(node, safe=True)
        result.name = kept
        if product is not None:
            product.name = node.name  # the kernel that onnxruntime makes of it carries this name
        if not weight.uses() and not weight.is_graph_output():
            self.graph.initializers.pop(weight.name or "", None)

    def _activation(self, value: ir.Value, node: ir.Node) -> tuple[ir.Value, ...]:
        if value not in self.activations:
            name = f"{self.labels.short(value.name or '')}_dynamic"
            quantize = ir.Node("", "DynamicQuantizeLinear", [value], num_outputs=3, name=unique_name(self.graph, name))
            kinds = (ir.DataType.UINT8, ir.DataType.FLOAT, ir.DataType.UINT8)
            for output, part, kind in zip(quantize.outputs, ("q", "s", "zp"), kinds, strict=True):
                output.name = unique_name(self.graph, f"{name}_{part}")
                output.type, output.shape = ir.TensorType(kind), ir.Shape([])
            quantize.outputs[0].shape = value.shape
            self.graph.insert_before(node, quantize)
            self.activations[value] = tuple(quantize.outputs)
        return self.activations[value]

    def _weight(self, value: ir.Value, role: Weight) -> tuple[ir.Value, ir.Value]:
        """The integers [inputs, outputs] and their scale, a scalar or [outputs]."""
        if (value, role) not in self.weights:
            array: Floats | None = constant(value)
            if array is None or role.channel_axis is None:
                raise ValueError(f"{value.name} is not a constant matrix")
            matrix = array if role.channel_axis == 1 else np.ascontiguousarray(array.T)
            axis = None if self.per_tensor else 1
            done = quantize_weight(matrix, axis, summed=(0,), safe=self.saturates)
            name = self.labels.short(value.name or "weight")
            stored = add_initializer(self.graph, f"{name}_quantized", done.values)
            scale = add_initializer(self.graph, f"{name}_scale", done.scale)
            self.weights[value, role] = (stored, scale)
            self.copies[value.name or ""] = IntegerCopy(stored, scale, axis, transposed=role.channel_axis == 0)
        return self.weights[value, role]

    def _node(
        self,
        place: ir.Node,
        op_type: str,
        inputs: list[ir.Value],
        name: str,
        like: ir.Value,
        kind: ir.DataType = ir.DataType.FLOAT,
        attributes: Collection[ir.Attr] = (),
    ) -> ir.Value:
        node = ir.Node("", op_type, inputs, list(attributes), name=unique_name(self.graph, name))
        output = node.outputs[0]
        output.name = unique_name(self.graph, f"{name}_out")
        output.type, output.shape = ir.TensorType(kind), like.shape
        self.graph.insert_before(place, node)
        return output
