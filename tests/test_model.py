"""Reading and writing model files: every fault is one clear error, and nothing is ever half-written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxqp import model as files
from onnxqp import protos
from onnxqp.errors import ModelError, OutputError, UnsupportedError, UsageError
from onnxqp.runtime import Session, ceilings


def small_proto(ir_version: int = 10, opset: int = 17) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(3, 4), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    graph = helper.make_graph(
        [node],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (b"PK\x03\x04" + b"\0" * 50, "zip"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"\x18\x00\x00\x00ORTM" + b"\0" * 20, "onnxruntime"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 20, "JPEG"),
        (bytes(range(200, 256)) * 2, "ONNX"),
    ],
    ids=["empty", "lfs", "html", "zip", "pickle", "ort", "jpeg", "noise"],
)
def test_content_that_is_no_model_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        files.load(write(tmp_path / "model.onnx", content))
    assert caught.value.hint


def test_truncated_model(tmp_path: Path) -> None:
    content = small_proto().SerializeToString()
    with pytest.raises(ModelError):
        files.load(write(tmp_path / "model.onnx", content[: len(content) // 2]))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        files.load(tmp_path / "none.onnx")
    onnx.save(small_proto(), tmp_path / "only.onnx")
    with pytest.raises(ModelError, match="folder") as caught:
        files.load(tmp_path)
    assert "only.onnx" in str(caught.value.hint)


def external(tmp_path: Path) -> Path:
    path = tmp_path / "external.onnx"
    onnx.save(small_proto(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_external_data_is_read_lazily_and_written_inside(tmp_path: Path) -> None:
    model = files.load(external(tmp_path))
    assert isinstance(model.graph.initializers["w"].const_value, ir.ExternalTensor)
    out = tmp_path / "sub"
    out.mkdir()
    files.save(model, out / "out.onnx")
    again = Session(out / "out.onnx").run({"x": np.ones((1, 3), np.float32)})
    np.testing.assert_allclose(again["y"], [[12, 15, 18, 21]])


@pytest.mark.parametrize("damage", ["missing", "short", "outside"])
def test_broken_external_data(tmp_path: Path, damage: str) -> None:
    path = external(tmp_path)
    data = tmp_path / "weights.bin"
    if damage == "missing":
        data.unlink()
    elif damage == "short":
        data.write_bytes(data.read_bytes()[:-1])
    else:
        proto = onnx.load(path, load_external_data=False)
        proto.graph.initializer[0].external_data[0].value = "../weights.bin"
        path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError) as caught:
        files.load(path)
    assert "weights.bin" in caught.value.message


def broken(change: str) -> onnx.ModelProto:
    proto = small_proto()
    graph = proto.graph
    if change == "sizes":
        graph.initializer[0].dims[0] = 2**40
    elif change == "dangling":
        graph.node[0].input[0] = "nowhere"
    elif change == "twice":
        graph.node.append(helper.make_node("Relu", ["x"], ["y"]))
    elif change == "cycle":
        graph.node[0].input[0] = "z"
        graph.node.append(helper.make_node("Relu", ["y"], ["z"]))
    elif change == "no nodes":
        del graph.node[:]
    elif change == "no output":
        graph.output[0].name = "other"
    return proto


@pytest.mark.parametrize("change", ["sizes", "dangling", "twice", "cycle", "no nodes", "no output"])
def test_inconsistent_graphs(tmp_path: Path, change: str) -> None:
    path = write(tmp_path / "model.onnx", broken(change).SerializeToString())
    with pytest.raises(ModelError):
        files.load(path)


def test_a_model_that_the_runtime_cannot_read_names_the_ceiling(tmp_path: Path) -> None:
    limit = ceilings()
    path = tmp_path / "new.onnx"
    path.write_bytes(small_proto(ir_version=limit.ir_version + 1).SerializeToString())
    with pytest.raises(UnsupportedError) as caught:
        Session(path)
    assert str(limit.opset) in str(caught.value.hint)


def test_output_rules(tmp_path: Path) -> None:
    source = tmp_path / "in.onnx"
    onnx.save(small_proto(), source)
    model = files.load(source)
    (tmp_path / "link.onnx").symlink_to(source)
    for output in (source, tmp_path / "link.onnx"):
        with pytest.raises(UsageError):
            files.save(model, output, force=True, inputs=[source])
    old = write(tmp_path / "old.onnx", b"precious")
    with pytest.raises(OutputError, match="exists"):
        files.save(model, old)
    with pytest.raises(OutputError, match="folder"):
        files.save(model, tmp_path / "no" / "out.onnx")
    assert old.read_bytes() == b"precious"
    files.save(model, old, force=True)
    assert Session(old).inputs[0].name == "x"


def test_a_failed_proof_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    source = tmp_path / "in.onnx"
    onnx.save(small_proto(), source)
    old = write(tmp_path / "old.onnx", b"precious")

    def refuse(path: Path) -> None:
        assert path.exists()
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        files.save(files.load(source), old, force=True, verify=refuse)
    assert old.read_bytes() == b"precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "old.onnx"]


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    source = tmp_path / "in.onnx"
    onnx.save(small_proto(), source)
    for name in ("a.onnx", "b.onnx"):
        files.save(files.load(source), tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_large_model_gets_a_data_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protos, "EMBED_LIMIT", 16)
    source = tmp_path / "in.onnx"
    onnx.save(small_proto(), source)
    out = tmp_path / "out.onnx"
    files.save(files.load(source), out)
    files.save(files.load(source), out, force=True)
    (data,) = tmp_path.glob("out.onnx.*.data")
    result = Session(out).run({"x": np.ones((1, 3), np.float32)})
    np.testing.assert_allclose(result["y"], [[12, 15, 18, 21]])
    loaded = files.load(out)
    assert files.file_bytes(out, loaded) == out.stat().st_size + data.stat().st_size
    assert files.parameters(loaded) == 12


def test_taps_return_values_inside_the_graph(tmp_path: Path) -> None:
    proto = small_proto()
    proto.graph.node[0].output[0] = "inner"
    proto.graph.node.append(helper.make_node("Relu", ["inner"], ["y"], name="relu"))
    model = files.from_proto(proto)
    result = Session(model, taps=["inner"]).run({"x": -np.ones((1, 3), np.float32)})
    np.testing.assert_allclose(result["inner"], [[-12, -15, -18, -21]])
    assert not result["y"].any()


def test_names_of_open_sizes_that_only_inference_gives_are_written(tmp_path: Path) -> None:
    """onnxruntime compares them; shapes that follow are left out."""
    sizes = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="a"),
        helper.make_node("Resize", ["a", "", "scales"], ["b"], name="b"),  # onnx's inference loses the batch here
        helper.make_node("Relu", ["b"], ["c"], name="c"),
        helper.make_node("Relu", ["c"], ["y"], name="y"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, None, None]) for name in ("x", "y")]
    inner = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [first, 3, None, None])
        for name, first in (("a", "n"), ("b", "m"), ("c", "m"))
    ]
    graph = helper.make_graph(nodes, "names", ends[:1], ends[1:], [sizes], value_info=inner)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path = tmp_path / "written.onnx"
    files.save(files.from_proto(proto), path)
    assert [info.name for info in onnx.load(path).graph.value_info] == ["b"]
