"""Nothing is left alone in silence: what has no weights to show is listed among the pinned all the same."""

import numpy as np
import onnx
import pytest
from prune_checks import Build, prunes

import onnxqp
from onnxqp.options import PruneOptions, Selection
from onnxqp.prune import plan


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


def shared_head() -> Build:
    """Two levels, one head: both convolutions of the head read the same weights."""
    b = Build()
    first, last, bias = b.weight(12, 8, 3, 3), b.weight(4, 12, 1, 1), b.weight(12)
    levels = [b.conv(b.input(1, 3, size, size, name=f"x{size}"), 3, 8) for size in (8, 4)]
    for level in levels:
        hidden = b.op("Relu", b.op("Conv", level, first, bias, pads=[1] * 4))
        b.op("Conv", hidden, last)
    return b


def test_all_layers_that_share_a_weight_are_members() -> None:
    b = shared_head()
    made = plan(b.model("v4_0", "v7_0"), PruneOptions(ratio=0.5), step=1).grouping
    hidden = next(group for group in made.groups if group.size == 12)
    assert set(hidden.members) == {"Conv2", "Conv4", "Conv5", "Conv7"}
    assert {entry.reason for entry in made.pinned} == {"graph output 'v4_0'"}
    assert {name for entry in made.pinned for name in entry.members} == {"Conv4", "Conv7"}
    assert sorted(group.size for group in made.groups) == [8, 12]
    prunes(b, "v4_0", "v7_0", groups=[8, 12])


def test_a_layer_left_out_keeps_the_channels_it_shares() -> None:
    options = PruneOptions(ratio=0.5, selection=Selection(exclude=("Conv5",)))
    made = plan(shared_head().model("v4_0", "v7_0"), options, step=1).grouping
    assert [group.size for group in made.groups] == [8]
    assert "excluded by --exclude Conv5 (Conv 'Conv5')" in {entry.reason for entry in made.pinned}


def test_a_weight_without_channels_is_named_with_its_shape() -> None:
    b = Build()
    wide = b.op("ReduceMax", b.op("Relu", b.conv(b.input(1, 3, 6, 6), 3, 8)), axes=[1], keepdims=1)
    y = b.op("Conv", wide, b.weight(1, 1, 3, 3))
    pinned = {entry.id: entry.reason for entry in plan(b.model(y), PruneOptions(ratio=0.5), step=1).grouping.pinned}
    assert pinned["Conv3"] == "no axis of its weight, of shape [1, 1, 3, 3], holds channels that could go"


def test_a_product_of_activations_is_listed_by_what_makes_its_channels() -> None:
    """Its positions, from an embedding of positions, are nobody's channels."""
    b = Build()
    x = b.op("Add", b.linear(b.input(1, 6, 5), 5, 8), b.weight(1, 6, 8))
    scores = b.op("Softmax", b.op("MatMul", b.linear(x, 8, 8), b.op("Transpose", b.linear(x, 8, 8), perm=[0, 2, 1])))
    y = b.linear(b.op("MatMul", scores, b.linear(x, 8, 8)), 8, 4)
    made = plan(b.model(y), PruneOptions(ratio=0.5), step=1).grouping
    assert [entry.reason for entry in made.pinned] == [f"graph output '{y}'"]
