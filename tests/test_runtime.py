"""Sessions: what they say when a model or its inputs are wrong, and what they really run."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxqp import model as files
from onnxqp import probe, protos
from onnxqp.errors import DataError, ModelError, UnsupportedError
from onnxqp.runtime import Session, ceilings, cpu, optimized_graph, versions


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


def test_signature() -> None:
    session = Session(proto().SerializeToString())
    (spec,) = session.inputs
    assert (spec.name, spec.dtype, spec.shape) == ("x", np.dtype(np.float32), ("n", 4))


def test_a_model_whose_signature_is_known_opens_when_it_runs() -> None:
    known = ([("x", "tensor(float)", ["n", 4])], [("y", "tensor(float)", ["n", 4])])
    session = Session(proto().SerializeToString(), signature=known)
    (spec,) = session.inputs
    assert (spec.name, spec.dtype, spec.shape) == ("x", np.dtype(np.float32), ("n", 4))
    assert session.run({"x": np.full((2, 4), -1, np.float32)})["y"].tolist() == [[0] * 4] * 2
    broken = Session(proto("NoSuchOperator").SerializeToString(), signature=known)
    with pytest.raises(UnsupportedError):
        broken.run({"x": np.zeros((1, 4), np.float32)})


def test_a_child_tells_the_signature(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(proto(), str(path))
    assert probe.examine(path, path.stat().st_size).signature == (
        [("x", "tensor(float)", ["n", 4])],
        [("y", "tensor(float)", ["n", 4])],
    )


@pytest.mark.parametrize(
    ("model", "error"),
    [
        (proto("NoSuchOperator"), UnsupportedError),
        (proto("Custom", "my.domain"), UnsupportedError),
        (proto("Conv"), ModelError),
    ],
)
def test_what_cannot_be_opened(model: onnx.ModelProto, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        Session(model.SerializeToString())
    assert getattr(caught.value, "hint", None)


@pytest.mark.parametrize(
    "feed",
    [
        {"x": np.zeros((1, 5), np.float32)},
        {"x": np.zeros((1, 4), np.float64)},
        {"other": np.zeros((1, 4), np.float32)},
    ],
)
def test_inputs_that_do_not_fit(feed: dict[str, np.ndarray]) -> None:  # type: ignore[type-arg]
    with pytest.raises(DataError) as caught:
        Session(proto().SerializeToString()).run(feed)
    assert caught.value.hint


def test_the_optimised_graph_shows_fusions() -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((8, 4, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    left = [node.op_type for node in optimized_graph(model.SerializeToString()).graph.node]
    assert "Relu" not in left


def test_weights_in_a_file_are_not_copied_into_a_tapped_model(tmp_path: Path) -> None:
    weight = np.arange(4096, dtype=np.float32).reshape(64, 64)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Relu", ["m"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path = tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    x = np.eye(64, dtype=np.float32)[:1]
    for source in (path, files.load(path)):
        result = Session(source, taps=["m"]).run({"x": x})
        np.testing.assert_array_equal(result["m"], weight[:1])


def test_taps_alone_are_all_that_is_computed() -> None:
    """Behind the tap a Reshape fails, which nobody asked for."""
    nodes = [
        helper.make_node("Neg", ["x"], ["m"]),
        helper.make_node("Reshape", ["m", "sizes"], ["y"]),
    ]
    sizes = numpy_helper.from_array(np.array([7, -1], np.int64), "sizes")
    x, y = (helper.make_tensor_value_info(name, 1, shape) for name, shape in (("x", ["n", 3]), ("y", None)))
    graph = helper.make_graph(nodes, "g", [x], [y], [sizes])
    source = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    feed = {"x": np.ones((1, 3), np.float32)}
    session = Session(source, taps=["m"], alone=True)
    assert [output.name for output in session.outputs] == ["m"]
    assert session.run(feed)["m"].tolist() == [[-1, -1, -1]]
    with pytest.raises(DataError):
        Session(source, taps=["m"]).run(feed)


def test_what_a_subgraph_reads_is_needed() -> None:
    """And weights that lie elsewhere, but only those that something reads."""
    large = np.ones((256, 256), np.float32)
    inner = [helper.make_node("Add", ["outer", "w"], ["inside"])]
    branch = helper.make_graph(inner, "b", [], [helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)])
    nodes = [
        helper.make_node("Neg", ["x"], ["outer"]),
        helper.make_node("If", ["flag"], ["m"], then_branch=branch, else_branch=branch),
        helper.make_node("MatMul", ["m", "unread"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 256]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in (("w", large[0]), ("unread", large))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    feed = {"x": large[:1], "flag": np.array(True)}
    for source in (model.SerializeToString(), files.from_proto(model)):
        session = Session(source, taps=["m"], alone=True)
        assert not session.run(feed)["m"].any()


def test_large_weights_are_read_where_they_lie() -> None:
    size = 256
    array = np.full((size, size), 2, np.float32)
    model = files.from_proto(proto())
    value = ir.Value(name="w", const_value=ir.tensor(array, name="w"))
    value.shape, value.type = ir.Shape(array.shape), ir.TensorType(ir.DataType.FLOAT)
    model.graph.register_initializer(value)
    (relu,) = list(model.graph)
    source = relu.inputs[0]
    assert source is not None
    source.shape = ir.Shape((1, size))
    relu.outputs[0].shape = ir.Shape((1, size))
    product = ir.Node("", "MatMul", [source, value], num_outputs=1, name="product")
    product.outputs[0].name = "product"
    model.graph.insert_before(relu, product)
    relu.replace_input_with(0, product.outputs[0])
    light, large = protos.proto_and_weights(model)
    assert len(light.SerializeToString()) < 1000 < array.nbytes
    assert large.keys() == {"w"}
    assert value.const_value is not None
    assert value.const_value.nbytes == array.nbytes  # the model itself is as it was
    for taps in ((), ("product",)):
        result = Session(model, taps=taps).run({"x": np.ones((1, size), np.float32)})
        np.testing.assert_array_equal(result["y"], np.full((1, size), 2 * size, np.float32))


def test_facts_of_this_installation() -> None:
    limit = ceilings()
    assert limit.ir_version >= 9
    assert limit.opset >= 19
    assert set(versions()) == {"onnxqp", "onnx", "onnx_ir", "onnxruntime", "python"}
    assert cpu().cores >= 1


@pytest.mark.parametrize("ahead", [True, False])
def test_each_feed_comes_with_its_own_results(ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the feeds, whether the next is computed meanwhile or not."""
    if not ahead:
        monkeypatch.setattr("onnxqp.runtime.session.AHEAD_BYTES", 0)
    session = Session(proto().SerializeToString())
    feeds = [{"x": np.full((1, 4), number, np.float32)} for number in range(5)]
    for count in (0, 1, 5):
        found = list(session.run_each(iter(feeds[:count])))
        assert [feed["x"][0, 0] for feed, _ in found] == list(range(count))
        assert [results["y"][0, 0] for _, results in found] == list(range(count))


def test_a_feed_that_does_not_fit_is_told_after_those_that_do() -> None:
    session = Session(proto().SerializeToString())
    results = session.run_each([{"x": np.ones((1, size), np.float32)} for size in (4, 4, 3)])
    assert [feed["x"].shape for feed, _ in itertools.islice(results, 2)] == [(1, 4), (1, 4)]
    with pytest.raises(DataError):
        next(results)


def test_results_that_are_sequences_are_no_arrays() -> None:
    node = onnx.helper.make_node("SequenceConstruct", ["x", "x"], ["y"])
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])
    both = onnx.helper.make_tensor_sequence_value_info("y", onnx.TensorProto.FLOAT, [2])
    graph = onnx.helper.make_graph([node], "sequence", [value], [both])
    opset = [onnx.helper.make_opsetid("", 17)]
    session = Session(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString())
    feeds = [{"x": np.full(2, number, np.float32)} for number in range(4)]
    found = [results["y"] for _, results in session.run_each(feeds)]
    assert [[float(part[0]) for part in parts] for parts in found] == [[n, n] for n in range(4)]
