"""Inputs that are made up for a model fit what it does to them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxqp.gather import _synthetic
from onnxqp.normalize import normalize
from onnxqp.options import DataOptions
from onnxqp.runtime import Session


def signal_model(kernel: int) -> ir.Model:
    """A sound [1, t] through a long stride and a kernel of 2: shorter ones leave nothing. Then heads, merged again."""
    random = np.random.default_rng(0)
    weights = {
        "w": random.normal(size=(8, 1, kernel)).astype(np.float32),
        "v": random.normal(size=(8, 8, 2)).astype(np.float32),
        "one": np.asarray([1], np.int64),
        "heads": np.asarray([0, 2, 4, -1], np.int64),
        "merged": np.asarray([0, 8, -1], np.int64),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["x", "one"], ["x3"]),
        helper.make_node("Conv", ["x3", "w"], ["c"], strides=[kernel], name="first"),
        helper.make_node("Conv", ["c", "v"], ["d"], name="second"),
        helper.make_node("Reshape", ["d", "heads"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Reshape", ["r", "merged"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "t"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, None])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10))


@pytest.mark.parametrize(("kernel", "least"), [(3, 6), (60, 120)])
def test_made_up_signals_are_long_enough_to_leave_something(kernel: int, least: int) -> None:
    model = signal_model(kernel)
    session = Session(model)
    drawn = _synthetic(model, session, DataOptions(samples=2))
    feed = next(drawn.feeds())
    assert feed["x"].shape[1] >= least
    assert session.run(feed)["y"].size


def test_no_dimension_is_settled_at_nothing() -> None:
    """Trial sizes that are too short for the kernel say nothing of what a Reshape makes."""
    model = signal_model(60)
    normalize(model)
    for node in model.graph:
        shape = node.outputs[0].shape
        assert shape is None or 0 not in list(shape), f"{node.op_type}: {shape}"
