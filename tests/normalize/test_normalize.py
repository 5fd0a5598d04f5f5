"""Normalising changes the graph, never the results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnxqp import model as files
from onnxqp.graph import iterate
from onnxqp.normalize import normalize
from onnxqp.runtime import Session

RNG = np.random.default_rng(0)
Arrays = dict[str, npt.NDArray[np.generic]]


def random(*shape: int) -> npt.NDArray[np.float32]:
    return RNG.standard_normal(shape).astype(np.float32)


def build(
    nodes: Sequence[NodeProto],
    weights: Arrays,
    shape: Sequence[int | str],
    *,
    opset: int = 17,
    ir_version: int = 10,
    output: str = "y",
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def same_results(proto: onnx.ModelProto, feed: Arrays, *, exact: bool = False) -> list[str]:
    """Normalise, compare in onnxruntime, and return the operators that are left, in order."""
    before = Session(proto.SerializeToString()).run(feed)
    model = files.from_proto(proto)
    normalize(model)
    after = Session(model).run(feed)
    for name, expected in before.items():
        np.testing.assert_allclose(after[name], expected, rtol=0 if exact else 1e-4, atol=0 if exact else 1e-5)
    left = [node.op_type for node in iterate(model)]
    normalize(model)
    assert [node.op_type for node in iterate(model)] == left, "a second round must find nothing"
    return left


def batch_norm(source: str, channels: int) -> tuple[NodeProto, Arrays]:
    node = helper.make_node("BatchNormalization", [source, "gamma", "beta", "mean", "var"], ["y"], epsilon=1e-3)
    return node, {
        "gamma": random(channels),
        "beta": random(channels),
        "mean": random(channels),
        "var": np.abs(random(channels)) + 0.1,
    }


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("op", "weight", "attributes"),
    [
        ("Conv", (6, 4, 3, 3), {"pads": [1, 1, 1, 1]}),
        ("Conv", (6, 2, 3, 3), {"group": 2}),
        ("Conv", (4, 1, 3, 3), {"group": 4}),
        ("ConvTranspose", (4, 6, 2, 2), {"strides": [2, 2]}),
        ("ConvTranspose", (4, 3, 2, 2), {"group": 2}),
    ],
)
def test_batch_norm_folds_into_the_convolution(
    op: str, weight: tuple[int, ...], attributes: dict[str, int | list[int]], bias: bool
) -> None:
    channels = weight[0] if op == "Conv" else weight[1] * int(attributes.get("group", 1))  # type: ignore[arg-type]
    norm, weights = batch_norm("c", channels)
    weights["w"] = random(*weight)
    inputs = ["x", "w"]
    if bias:
        weights["b"] = random(channels)
        inputs.append("b")
    nodes = [helper.make_node(op, inputs, ["c"], **attributes), norm]
    assert same_results(build(nodes, weights, ["n", 4, 7, 7]), {"x": random(2, 4, 7, 7)}) == [op]


def test_batch_norm_stays_where_the_convolution_is_read_twice() -> None:
    norm, weights = batch_norm("c", 6)
    weights["w"] = random(6, 4, 1, 1)
    norm.output[0] = "n"
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), norm, helper.make_node("Add", ["n", "c"], ["y"])]
    left = same_results(build(nodes, weights, ["n", 4, 5, 5]), {"x": random(1, 4, 5, 5)})
    assert left == ["Conv", "BatchNormalization", "Add"]


def test_a_shared_weight_is_copied_before_it_is_scaled() -> None:
    norm, weights = batch_norm("a", 4)
    weights["w"] = random(4, 4, 1, 1)
    norm.output[0] = "n"
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Conv", ["x", "w"], ["b"]),
        norm,
        helper.make_node("Add", ["n", "b"], ["y"]),
    ]
    left = same_results(build(nodes, weights, ["n", 4, 5, 5]), {"x": random(1, 4, 5, 5)})
    assert left == ["Conv", "Conv", "Add"]


@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 6, 1, 1), (1,), ()])
@pytest.mark.parametrize("first", [False, True])
def test_constant_scale_and_shift_fold(shape: tuple[int, ...], first: bool) -> None:
    weights: Arrays = {"w": random(6, 4, 3, 3), "m": random(*shape), "a": random(*shape)}
    pair = ["m", "c"] if first else ["c", "m"]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Mul", pair, ["s"]),
        helper.make_node("Add", ["s", "a"], ["y0"]),
        helper.make_node("Relu", ["y0"], ["y"]),
    ]
    assert same_results(build(nodes, weights, ["n", 4, 5, 5]), {"x": random(1, 4, 5, 5)}) == ["Conv", "Relu"]


def test_a_scale_along_another_axis_does_not_fold() -> None:
    weights: Arrays = {"w": random(5, 4, 1, 1), "m": random(5)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Mul", ["c", "m"], ["s"]),  # broadcasts along the width
        helper.make_node("Relu", ["s"], ["y"]),
    ]
    assert "Mul" in same_results(build(nodes, weights, ["n", 4, 5, 5]), {"x": random(1, 4, 5, 5)})


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_absorbs(transposed: int) -> None:
    weights: Arrays = {"w": random(3, 4).T.copy() if not transposed else random(3, 4), "m": random(3)}
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["c"], transB=transposed),
        helper.make_node("Mul", ["c", "m"], ["s"]),
        helper.make_node("Relu", ["s"], ["y"]),
    ]
    assert same_results(build(nodes, weights, ["n", 4]), {"x": random(2, 4)}) == ["Gemm", "Relu"]


def test_what_shapes_decide_becomes_constant_also_with_a_symbolic_batch() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["c"], axis=0),
        helper.make_node("Mul", ["c", "two"], ["c2"]),
        helper.make_node("Unsqueeze", ["c2", "zero1"], ["c21"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n", "zero1"], ["n1"]),
        helper.make_node("Concat", ["n1", "c21", "minus"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    weights: Arrays = {
        "zero": np.array(0),
        "one": np.array(1),
        "two": np.array(2),
        "zero1": np.array([0]),
        "minus": np.array([-1]),
    }
    proto = build(nodes, weights, ["n", 4, 6])
    left = same_results(proto, {"x": random(3, 4, 6)}, exact=True)
    assert left == ["Shape", "Gather", "Unsqueeze", "Concat", "Reshape"]  # only the batch is still asked for
    fixed = build(nodes, weights, [3, 4, 6])
    assert same_results(fixed, {"x": random(3, 4, 6)}, exact=True) == ["Reshape"]


def test_weights_made_by_constant_of_shape_become_initializers() -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["w"], value=helper.make_tensor("v", 1, [1], [0.5])),
        helper.make_node("Conv", ["x", "w"], ["y"]),
    ]
    proto = build(nodes, {"s": np.array([8, 4, 3, 3])}, ["n", 4, 5, 5])
    assert same_results(proto, {"x": random(1, 4, 5, 5)}) == ["Conv"]


def test_an_old_opset_is_raised_and_weights_are_no_inputs() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Dropout", ["c"], ["d"], ratio=0.5),
        helper.make_node("Relu", ["d"], ["y"]),
    ]
    proto = build(nodes, {"w": random(8, 4, 3, 3)}, [1, 4, 5, 5], opset=8, ir_version=3)
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [8, 4, 3, 3]))
    model = files.from_proto(proto)
    notes = normalize(model)
    assert model.opset_imports[""] == 17
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert [node.op_type for node in model.graph] == ["Conv", "Relu"]
    assert {note.kind for note in notes} == {"normalize"}
    feed: Arrays = {"x": random(1, 4, 5, 5)}
    np.testing.assert_allclose(
        Session(model).run(feed)["y"], Session(proto.SerializeToString()).run(feed)["y"], rtol=1e-5, atol=1e-6
    )


def test_the_name_of_an_output_behind_an_identity_survives() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Identity", ["r"], ["y"])]
    assert same_results(build(nodes, {}, ["n", 4]), {"x": random(2, 4)}, exact=True) == ["Relu"]
    alone = [helper.make_node("Identity", ["x"], ["y"])]
    assert same_results(build(alone, {}, ["n", 4]), {"x": random(2, 4)}, exact=True) == ["Identity"]


def test_an_int8_weight_at_rest_is_not_unpacked() -> None:
    nodes = [
        helper.make_node("Cast", ["q"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "s"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["y"]),
    ]
    weights: Arrays = {
        "q": RNG.integers(-127, 128, (8, 4, 3, 3), np.int8),
        "s": np.full((8, 1, 1, 1), 0.01, np.float32),
    }
    proto = build(nodes, weights, ["n", 4, 5, 5])
    assert same_results(proto, {"x": random(1, 4, 5, 5)}) == ["Cast", "Mul", "Conv"]


def test_functions_are_inlined_and_names_made_unique() -> None:
    body = helper.make_function(
        "local", "twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    nodes = [
        helper.make_node("twice", ["x"], ["t"], domain="local", name="same"),
        helper.make_node("twice", ["t"], ["y"], domain="local", name="same"),
    ]
    proto = build(nodes, {}, ["n", 4])
    proto.functions.append(body)
    proto.opset_import.append(helper.make_opsetid("local", 1))
    model = files.from_proto(proto)
    normalize(model)
    names = [node.name for node in model.graph]
    assert [node.op_type for node in model.graph] == ["Add", "Add"]
    assert len(set(names)) == 2
    x = random(2, 4)
    np.testing.assert_allclose(Session(model).run({"x": x})["y"], 4 * x, rtol=1e-6)


def test_matrices_of_integers_keep_their_shape() -> None:
    """A vector that became a matrix was folded into a vector."""
    nodes = [
        helper.make_node("Unsqueeze", ["v", "one"], ["m"], "unsqueeze"),
        helper.make_node("Add", ["m", "row"], ["grid"], "add"),
        helper.make_node("GatherElements", ["x", "grid"], ["y"], "gather", axis=1),
    ]
    weights = [
        numpy_helper.from_array(np.array(array, np.int64), name)
        for name, array in (("v", [0, 1, 2]), ("one", [1]), ("row", [[0, 1]]))
    ]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3, 4]) for name in ("x", "y")]
    infos[1] = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 2])
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = files.from_proto(proto)
    normalize(found)
    assert [node.op_type for node in found.graph] == ["GatherElements"]
    np.testing.assert_array_equal(
        Session(found).run({"x": x})["y"], Session(files.from_proto(proto)).run({"x": x})["y"]
    )


def test_a_shift_behind_a_shared_matrix_leaves_it_shared() -> None:
    random = np.random.default_rng(0)
    shared, bias = random.normal(size=(4, 4)).astype(np.float32), random.normal(size=4).astype(np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"], name="first"),
        helper.make_node("Add", ["a", "b"], ["s"]),
        helper.make_node("Relu", ["s"], ["r"]),
        helper.make_node("Gemm", ["r", "w"], ["y"], name="second"),
    ]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    weights = [numpy_helper.from_array(array, name) for name, array in (("w", shared), ("b", bias))]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], weights)
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10))
    normal = files.clone(model)
    normalize(normal)
    first, second = (node for node in normal.graph if node.op_type == "Gemm")
    assert first.inputs[1] is second.inputs[1]
    assert "Add" not in [node.op_type for node in normal.graph]
    feed = {"x": np.ones((1, 4), np.float32)}
    np.testing.assert_allclose(Session(model).run(feed)["y"], Session(normal).run(feed)["y"], rtol=1e-5)


def test_the_size_of_an_axis_that_expand_keeps_is_settled() -> None:
    """A class token spread over an open batch, as PyTorch writes `expand(b, -1, -1)`: its own axis stays at 1."""
    ints = {"start": [0], "stop": [1], "minus": [-1, -1], "neg": -np.ones(3), "ones": np.ones(3)}
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "start", "stop"], ["batch"]),
        helper.make_node("Concat", ["batch", "minus"], ["wanted"], axis=0),
        helper.make_node("Equal", ["wanted", "neg"], ["kept"]),
        helper.make_node("Where", ["kept", "ones", "wanted"], ["sizes"]),
        helper.make_node("Expand", ["token", "sizes"], ["spread"], name="expand"),
        helper.make_node("Concat", ["spread", "x"], ["y"], axis=1),
    ]
    weights = {name: np.asarray(numbers, np.int64) for name, numbers in ints.items()} | {"token": random(1, 1, 4)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 6, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10))
    normalize(model)
    expand = next(node for node in model.graph if node.op_type == "Expand")
    assert list(expand.outputs[0].shape or ())[1:] == [1, 4]


def test_what_exporters_noted_of_the_training_code_goes_and_what_users_noted_stays() -> None:
    trace, noted = "/home/someone/train.py", ("namespace", "pkg.torch.onnx.stack_trace")
    node = helper.make_node("MatMul", ["x", "w"], ["y"], doc_string=trace)
    proto = build([node], {"w": random(3, 2)}, [1, 3])
    for place in (proto.graph.node[0], proto.graph.input[0], proto.graph.output[0]):
        for key in (*noted, "mine"):
            place.metadata_props.add(key=key, value=trace if key in noted else "kept")
    proto.metadata_props.add(key="classes", value="cat,dog")
    model = files.from_proto(proto)
    normalize(model)
    written = files.to_bytes(model)
    assert trace.encode() not in written
    assert written.count(b"mine") == 3
    assert b"cat,dog" in written
