"""What operators share for quantization: roles that depend on weights, and exact rewrites for integer kernels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxqp.graph import (
    add_initializer,
    attribute_float,
    attribute_int,
    attribute_ints,
    attribute_string,
    constant,
    dims,
    is_constant,
    own_initializer,
    rank,
    set_initializer,
    unique_name,
)
from onnxqp.specs import Activation, Compute, Float, Movement, Role, Weight

# ---- roles ------------------------------------------------------------------------------------------------------


def no_kernel(node: ir.Node) -> Float:
    return Float(f"onnxruntime has no integer {node.op_type} on the CPU")


def conv_role(node: ir.Node) -> Role:
    """Integer kernels lay a patch out with the channel fastest; depthwise ones never add neighbouring products."""
    shape = _stored_dims(node.inputs[1])
    if shape is None or None in shape:
        return Float("the shape of the weight is not known")
    group = attribute_int(node, "group", 1)
    summed = (*range(2, len(shape)), 1)
    if group > 1 and shape[0] == group and shape[1] == 1:
        return Compute("DepthwiseConv", (0,), Weight(1, 0, summed), bias=2)
    return Compute("Conv" if group == 1 else "GroupedConv", (0,), Weight(1, 0, summed), bias=2)


def _stored_dims(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """The dimensions of a weight, also where it is rebuilt from integers and its shape is not declared."""
    source = None if value is None or value.shape is not None else value.producer()
    return dims(source.inputs[0] if source is not None and source.inputs else value)


def gemm_role(node: ir.Node) -> Role:
    if attribute_int(node, "transA", 0):
        return Float("no integer Gemm takes a transposed A")
    if attribute_float(node, "alpha", 1.0) != 1.0 or attribute_float(node, "beta", 1.0) != 1.0:
        return Float("an integer Gemm needs alpha = beta = 1, and they cannot be folded into these operands")
    transposed = attribute_int(node, "transB", 0)
    weight = Weight(1, 0, (1,)) if transposed else Weight(1, 1, (0,))
    return Compute("Gemm", (0,), weight, bias=2, channels=-1)


def inverse_role(node: ir.Node, opposite: str) -> Role:
    """Sub and Div: with a constant behind them they are an Add and a Mul."""
    array = constant(node.inputs[1])
    if array is None or array.dtype != np.float32 or (opposite == "Mul" and not array.all()):
        return no_kernel(node)
    return Compute(opposite, (0, 1), lowered=True)


def matmul_role(node: ir.Node) -> Role:
    columns = rank(node.inputs[1])
    if not is_constant(node.inputs[1]):
        if is_constant(node.inputs[0]):
            return Float("the constant of an integer MatMul must be its second operand")
        return Compute("MatMulActivations", (0, 1), channels=-1)
    if columns is None or columns < 2:
        return Float("an integer MatMul needs a matrix")
    return Compute("MatMul", (0,), Weight(1, 1 if columns == 2 else None, (columns - 2,)), channels=-1)


def clip_role(node: ir.Node) -> Role:
    bounds: list[float | None] = []
    for value in (*node.inputs[1:3], None, None)[:2]:
        array = constant(value)
        if value is not None and (array is None or array.size != 1):
            return Float("the bounds are not constant")
        bounds.append(None if array is None else float(array.reshape(())))
    return Activation(bounds[0], bounds[1])


def pad_role(node: ir.Node) -> Role:
    """Zero is a value that every range holds; another constant may be none."""
    if attribute_string(node, "mode", "constant") != "constant":
        return Movement("Pad")
    fill = node.inputs[2] if len(node.inputs) > 2 else None
    number = constant(fill)
    if fill is not None and (number is None or number.any()):
        return Float("it pads with something else than zero")
    return Movement("Pad", fill=2)


def resize_role(node: ir.Node) -> Role:
    if attribute_string(node, "mode", "nearest") != "nearest":
        return Float("only a nearest-neighbour Resize can run on integers")
    return Movement("ResizeNearest")


def max_pool_role(node: ir.Node) -> Role:
    if len(node.outputs) > 1 and node.outputs[1].uses():
        return Float("its indices are used")
    return Movement("MaxPool")


# ---- exact rewrites ---------------------------------------------------------------------------------------------


def fold_gemm_factors(node: ir.Node) -> bool:
    """alpha into B and beta into C, where these are constant; C as a vector."""
    changed = False
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    columns = dims(node.outputs[0])
    width = columns[-1] if columns else None
    if (
        bias is not None
        and bias.ndim != 1
        and width is not None
        and bias.size in (1, *bias.shape[-1:])
        and (bias.size in (1, width))
    ):
        set_initializer(own_initializer(node, 2), np.broadcast_to(bias.reshape(-1), (width,)))
        changed = True
    for name, index in (("alpha", 1), ("beta", 2)):
        factor = attribute_float(node, name, 1.0)
        operand = node.inputs[index] if len(node.inputs) > index else None
        if factor == 1.0:
            continue
        array = constant(operand)
        if operand is not None and array is None:
            continue
        if array is not None:
            set_initializer(own_initializer(node, index), (array * array.dtype.type(factor)))
        node.attributes[name] = ir.AttrFloat32(name, 1.0)
        changed = True
    return changed


def invert(node: ir.Node, op_type: str, inverse: np.ufunc) -> None:
    """An operator with a float constant behind it as the opposite operator with the constant's inverse.

    Only on integers: in float, onnxruntime finds Gelu by its Div.
    """
    array = constant(node.inputs[1])
    if array is None:
        raise ValueError(f"the second operand of {node.name} is not constant")
    set_initializer(own_initializer(node, 1), inverse(array).astype(np.float32))
    node.op_type = op_type


def absorb_pad(node: ir.Node) -> bool:
    """Zero padding of the spatial axes before a Conv becomes the Conv's own."""
    source = node.inputs[0]
    pad = source.producer() if source is not None else None
    if source is None or pad is None or pad.op_type != "Pad" or pad.domain or source.is_graph_output():
        return False
    if attribute_string(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID") or len(pad.inputs) > 3:
        return False
    amounts, fill = constant(pad.inputs[1]), constant(pad.inputs[2]) if len(pad.inputs) > 2 else None
    filled = len(pad.inputs) > 2 and pad.inputs[2] is not None
    if amounts is None or attribute_string(pad, "mode", "constant") != "constant" or (filled and fill is None):
        return False
    axes = amounts.size // 2
    before, after = amounts[:axes], amounts[axes:]
    if (amounts < 0).any() or before[:2].any() or after[:2].any() or (fill is not None and fill.any()):
        return False
    own = attribute_ints(node, "pads") or [0] * (2 * (axes - 2))
    pads = [a + int(b) for a, b in zip(own, (*before[2:], *after[2:]), strict=True)]
    node.attributes["pads"] = ir.AttrInt64s("pads", pads)
    node.attributes["auto_pad"] = ir.AttrString("auto_pad", "NOTSET")
    node.replace_input_with(0, pad.inputs[0])
    if not source.uses() and isinstance(pad.graph, ir.Graph):
        pad.graph.remove(pad, safe=True)
    return True


def gemm_from_matmul(node: ir.Node) -> bool:
    """MatMul and the Add of its bias as one Gemm, which takes the bias into the integer sum.

    onnxruntime does the same to float graphs of static shape (its MatMulAddFusion), before it looks for quantized
    patterns, and a Gemm with a float bias and no QuantizeLinear behind it is not one. Inputs of more than two axes are
    reshaped around the Gemm, where all shapes are static; others stay, for there onnxruntime leaves them too.
    """
    graph, product = node.graph, node.outputs[0]
    weight = constant(node.inputs[1])
    uses = product.uses()
    if not isinstance(graph, ir.Graph) or weight is None or weight.ndim != 2 or len(uses) != 1:
        return False
    add, place = next(iter(uses))
    bias = constant(add.inputs[1 - place]) if add.op_type == "Add" and not add.domain else None
    columns = weight.shape[1]
    shape = dims(product)
    if bias is None or shape is None or product.is_graph_output() or add.graph is not graph:
        return False
    if bias.size != columns or bias.shape[-1:] != (columns,) or bias.ndim > len(shape) or bias.dtype != weight.dtype:
        return False
    if len(shape) < 2 or (len(shape) > 2 and None in (*shape, *(dims(node.inputs[0]) or (None,)))):
        return False
    _replace(graph, node, add, bias.reshape(columns), list(shape))
    return True


def _replace(graph: ir.Graph, node: ir.Node, add: ir.Node, bias: np.ndarray, shape: list[int | None]) -> None:
    """Put the Gemm, under the name of the MatMul, where the Add stood."""
    name, source, weight = node.name or "MatMul", node.inputs[0], node.inputs[1]
    if source is None or weight is None:
        raise ValueError(f"{name} lacks an operand")
    output = add.outputs[0]
    new: list[ir.Node] = []
    flat = len(shape) > 2
    if flat:
        matrix = add_initializer(graph, f"{name}_matrix", np.array([-1, weight.shape[0] if weight.shape else -1]))
        new.append(_node(graph, "Reshape", [source, matrix], f"{name}_rows", source))
        source = new[-1].outputs[0]
        rows = int(np.prod([size for size in shape[:-1] if size is not None]))
        source.shape = ir.Shape([rows, weight.shape[0] if weight.shape else None])
    new.append(_node(graph, "Gemm", [source, weight, add_initializer(graph, f"{name}_bias", bias)], name, output))
    gemm = new[-1]
    gemm.name = name
    if flat:
        gemm.outputs[0].shape = ir.Shape([rows, bias.size])
        back = add_initializer(graph, f"{name}_shape", np.array(shape))
        new.append(_node(graph, "Reshape", [gemm.outputs[0], back], f"{name}_back", output))
    last = new[-1].outputs[0]
    last.shape, last.type = output.shape, output.type
    graph.insert_before(add, new)
    ir.convenience.replace_all_uses_with(output, last, replace_graph_outputs=True)
    kept = output.name
    graph.remove([add, node], safe=True)
    last.name = kept


def _node(graph: ir.Graph, op_type: str, inputs: list[ir.Value], name: str, like: ir.Value) -> ir.Node:
    node = ir.Node("", op_type, inputs, name=unique_name(graph, name))
    node.outputs[0].name = unique_name(graph, f"{name}_out")
    node.outputs[0].type = like.type
    return node
