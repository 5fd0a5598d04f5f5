"""Profiles: the time of every node, by its name."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

from onnxqp.kernel_times import kernel_times

MODEL = '<ir_version: 10, opset_import: ["": 17]> g (float[n, 4] x) => (float[n, 4] y) { y = Sin(x) }'


@pytest.mark.parametrize("name", ["plain", 'it\'s "quoted" [x]{y}', "two\nlines"])
def test_kernels_are_timed_whatever_they_are_called(name: str) -> None:
    """Older versions of onnxruntime do not escape names in their profiles."""
    model = onnx.parser.parse_model(MODEL)
    model.graph.node[0].name = name
    feed = {"x": np.zeros((1, 4), np.float32)}
    (found,) = kernel_times(model.SerializeToString(), [feed], seconds=0.0)
    assert (found.node, found.op_type, found.outputs) == (name, "Sin", ("y",))
    assert found.nanoseconds >= 0
