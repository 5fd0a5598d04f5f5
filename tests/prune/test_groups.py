"""Nothing is left alone in silence: what has no weights to show is listed among the pinned all the same."""

import numpy as np
import onnx
import pytest

import onnxqp


@pytest.mark.parametrize("computed", [False, True])
def test_a_layer_whose_weight_is_computed_is_listed_as_pinned(tmp_path, computed):
    value = onnx.helper.make_tensor_value_info
    weights = {"w": (16, 3, 1, 1), "v": (4, 16, 1, 1)}
    given = [value("x", onnx.TensorProto.FLOAT, [1, 3, 4, 4])]
    if computed:
        given.append(value("w", onnx.TensorProto.FLOAT, weights.pop("w")))
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["h"], name="first"),
        onnx.helper.make_node("Relu", ["h"], ["r"], name="relu"),
        onnx.helper.make_node("Conv", ["r", "v"], ["y"], name="second"),
    ]
    initializers = [
        onnx.numpy_helper.from_array(np.full(shape, 0.1, np.float32), name) for name, shape in weights.items()
    ]
    outputs = [value("y", onnx.TensorProto.FLOAT, [1, 4, 4, 4])]
    graph = onnx.helper.make_graph(nodes, "computed", given, outputs, initializers)
    path = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10), path)
    pinned = {group.id: group.reason for group in onnxqp.inspect(path, groups=True).report.pruning.pinned}
    assert ("first" in pinned) is computed
