"""Chains of Squeeze and Unsqueeze become one node or none, and results stay."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxqp.model import clone
from onnxqp.normalize import normalize
from onnxqp.normalize.unit_axes import _dropped
from onnxqp.runtime import Session


def chain(shape: list[int], *steps: tuple[str, list[int]]) -> ir.Model:
    """An activation, the steps one after the other, and an activation."""
    nodes, axes, value = [helper.make_node("Relu", ["x"], ["v"])], [], "v"
    for index, (op_type, where) in enumerate(steps):
        axes.append(numpy_helper.from_array(np.asarray(where, np.int64), f"axes{index}"))
        nodes.append(helper.make_node(op_type, [value, f"axes{index}"], [f"v{index}"], name=f"step{index}"))
        value = f"v{index}"
    nodes.append(helper.make_node("Neg", [value], ["y"]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        axes,
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10))


@pytest.mark.parametrize(
    ("shape", "steps", "left"),
    [
        ([1, 4, 1], [("Squeeze", [2]), ("Unsqueeze", [2])], []),
        ([1, 1, 128, 1], [("Squeeze", [1, 3]), ("Unsqueeze", [0])], ["Squeeze"]),
        ([1, 4], [("Squeeze", [0]), ("Unsqueeze", [0, 2])], ["Unsqueeze"]),
        ([1, 4], [("Unsqueeze", [0]), ("Unsqueeze", [0]), ("Squeeze", [0])], ["Unsqueeze"]),
        ([1, 4, 5], [("Squeeze", [0]), ("Unsqueeze", [2])], ["Squeeze", "Unsqueeze"]),  # neither alone would do
    ],
)
def test_a_chain_becomes_one_node_or_none(
    shape: list[int], steps: list[tuple[str, list[int]]], left: list[str]
) -> None:
    model = chain(shape, *steps)
    normal = clone(model)
    normalize(normal)
    assert [node.op_type for node in normal.graph if node.op_type not in ("Relu", "Neg")] == left
    feed = {"x": np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    before, after = Session(model).run(feed), Session(normal).run(feed)
    np.testing.assert_array_equal(before["y"], after["y"])
    assert before["y"].shape == after["y"].shape


def test_sizes_that_are_not_known_stay() -> None:
    model = chain([1, 4], ("Squeeze", [0]), ("Unsqueeze", [0]))
    model.graph.inputs[0].shape = ir.Shape([1, "n"])
    normalize(model)
    assert [node.op_type for node in model.graph] == ["Relu", "Squeeze", "Unsqueeze", "Neg"]


def test_axes_that_are_dropped() -> None:
    assert _dropped([1, 3, 1, 1, 5], [3, 1, 5]) == [0, 3]
    assert _dropped([1, 3], [3, 1]) is None
    assert _dropped([3], [3]) is None
    assert _dropped([2, 3], [3]) is None
