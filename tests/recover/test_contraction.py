"""Operators as matrix products: rows times the matrix are what onnxruntime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnxqp.model import from_proto
from onnxqp.ops import rule_for
from onnxqp.runtime import Session


def one_node(
    op_type: str, arrays: dict[str, np.ndarray], shape: tuple[int, ...], rank: int, **attributes: Any
) -> ir.Model:
    """A model of one node: input x and constants."""
    node = helper.make_node(op_type, ["x", *arrays], ["y"], name="node", **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None] * rank)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10))


def conv(weight: tuple[int, ...], data: tuple[int, ...], bias: int | None = None, **attributes: Any) -> tuple[Any, ...]:
    return "Conv", weight, data, bias, attributes


def transposed(weight: tuple[int, ...], data: tuple[int, ...], **attributes: Any) -> tuple[Any, ...]:
    return "ConvTranspose", weight, data, None, attributes


CASES = {
    "plain": conv((4, 3, 3, 3), (2, 3, 7, 6), 4, pads=[1, 1, 1, 1]),
    "strided": conv((4, 3, 3, 2), (1, 3, 9, 8), strides=[2, 3], pads=[0, 1, 2, 1]),
    "dilated": conv((4, 3, 3, 3), (1, 3, 9, 9), dilations=[2, 1]),
    "grouped": conv((6, 2, 3, 3), (2, 4, 6, 6), 6, group=2, pads=[1, 1, 1, 1]),
    "depthwise": conv((4, 1, 3, 3), (1, 4, 6, 6), 4, group=4, strides=[2, 2], pads=[1, 1, 1, 1]),
    "depthwise twice": conv((8, 1, 3, 3), (1, 4, 6, 6), group=4),
    "sound": conv((4, 3, 5), (2, 3, 20), strides=[2], pads=[2, 2]),
    "volume": conv((4, 2, 2, 3, 2), (1, 2, 5, 6, 4)),
    "same upper": conv((4, 3, 3, 3), (1, 3, 8, 7), auto_pad="SAME_UPPER", strides=[2, 2]),
    "same lower": conv((4, 3, 4, 4), (1, 3, 8, 7), auto_pad="SAME_LOWER"),
    "valid": conv((4, 3, 3, 3), (1, 3, 8, 7), auto_pad="VALID"),
    "transposed": transposed((3, 4, 3, 3), (2, 3, 5, 4), strides=[2, 2], pads=[1, 0, 1, 1]),
    "transposed grouped": transposed((4, 3, 2, 2), (1, 4, 5, 4), group=2, strides=[2, 2]),
    "transposed dilated": transposed(
        (3, 4, 3, 3), (1, 3, 5, 4), dilations=[2, 1], output_padding=[1, 1], strides=[2, 2]
    ),
    "transposed to a size": transposed((3, 4, 3, 3), (1, 3, 5, 5), strides=[2, 2], output_shape=[10, 10]),
    "Gemm": ("Gemm", (5, 4), (3, 5), 4, {}),
    "Gemm flipped": ("Gemm", (4, 5), (3, 5), 4, {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    "Gemm across": ("Gemm", (5, 4), (5, 3), None, {"transA": 1}),
    "MatMul": ("MatMul", (5, 4), (2, 3, 5), None, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_rows_times_the_matrix_are_the_output(name: str) -> None:
    op_type, weight, data, bias, attributes = CASES[name]
    random = np.random.default_rng(0)
    arrays = {"w": random.normal(size=weight).astype(np.float32)}
    if bias:
        arrays["b"] = random.normal(size=bias).astype(np.float32)
    model = one_node(op_type, arrays, data, len(data), **attributes)
    x = random.normal(size=data).astype(np.float32)
    y = Session(model).run({"x": x})["y"]
    node = model.graph[0]
    found = rule_for(node).contraction(node)
    assert found is not None
    matrix = found.matrix(arrays["w"])
    assert found.sizes(weight) == matrix.shape
    chosen = np.sort(random.choice(found.positions(y.shape), min(7, found.positions(y.shape)), replace=False))
    computed = found.rows(x, y.shape, chosen) @ matrix
    if bias:
        computed = computed + (arrays["b"] * found.shift).reshape(matrix.shape[0], 1, -1)
    np.testing.assert_allclose(computed, found.targets(y, chosen), atol=1e-5)
    np.testing.assert_array_equal(found.weight_of(matrix, weight).astype(np.float32), arrays["w"])


def test_a_computed_weight_is_no_contraction() -> None:
    values = [ir.Value(name=name, shape=ir.Shape([2, 2]), type=ir.TensorType(ir.DataType.FLOAT)) for name in "ab"]
    node = ir.Node("", "MatMul", values)
    assert rule_for(node).contraction(node) is None


def test_a_product_with_another_bias_for_every_row_is_no_contraction() -> None:
    arrays = {"w": np.ones((5, 4), np.float32), "b": np.ones((3, 4), np.float32)}
    node = one_node("Gemm", arrays, (3, 5), 2).graph[0]
    assert rule_for(node).contraction(node) is None
