"""Profiles: the time of every node, by its name."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxqp.kernel_times import kernel_times


def proto(op: str = "Relu", domain: str = "", shape: tuple[int | str, ...] = ("n", 4)) -> onnx.ModelProto:
    node = helper.make_node(op, ["x"], ["y"], name="only", domain=domain)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.mark.parametrize("name", ["plain", 'it\'s "quoted" [x]{y}', "two\nlines"])
def test_kernels_are_timed_whatever_they_are_called(name: str) -> None:
    """Older versions of onnxruntime do not escape names in their profiles."""
    model = proto("Sin")
    model.graph.node[0].name = name
    feed = {"x": np.zeros((1, 4), np.float32)}
    (found,) = kernel_times(model.SerializeToString(), [feed], seconds=0.0)
    assert (found.node, found.op_type, found.outputs) == (name, "Sin", ("y",))
    assert found.nanoseconds >= 0
