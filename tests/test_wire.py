"""Weights found in a file by its wire format, held against protobuf's own parser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxqp import model as files
from onnxqp import protos
from onnxqp.errors import ModelError
from onnxqp.wire import lighten


def model(sizes: list[int]) -> onnx.ModelProto:
    """A chain of additions, each of a weight with so many elements; every third is not raw data."""
    rng = np.random.default_rng(0)
    weights, nodes, last = [], [], "x"
    for index, size in enumerate(sizes):
        array = rng.normal(0, 1, size).astype(np.float32)
        if index % 3 == 2:
            weights.append(helper.make_tensor(f"w{index}", TensorProto.FLOAT, [size], array.tolist()))
        else:
            weights.append(numpy_helper.from_array(array, f"w{index}"))
        nodes.append(helper.make_node("Add", [last, f"w{index}"], [f"y{index}"]))
        last = f"y{index}"
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", last)]
    graph = helper.make_graph(nodes, "g", sides[:1], sides[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10, producer_name="test")


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=6), st.integers(1, 1000))
def test_put_back_they_make_the_same_model(sizes: list[int], smallest: int) -> None:
    proto = model(sizes)
    content = proto.SerializeToString()
    light = lighten(content, smallest)
    assert light is not None
    parsed = onnx.ModelProto.FromString(light.content)
    raw = [len(tensor.raw_data) for tensor in proto.graph.initializer]
    assert list(light.weights) == [index for index, length in enumerate(raw) if length >= smallest]
    for index, (offset, length) in light.weights.items():
        assert not parsed.graph.initializer[index].raw_data
        parsed.graph.initializer[index].raw_data = content[offset : offset + length]
    assert parsed == proto


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_damage_is_left_to_the_parser(data: st.DataObject) -> None:
    content = bytearray(model([40, 50, 60]).SerializeToString())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(content[: data.draw(st.integers(0, len(content)))])
    light = lighten(cut, 64)
    for offset, length in () if light is None else light.weights.values():
        assert 0 <= offset <= offset + length <= len(cut)


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAPPED_FILE", 1)


@pytest.mark.usefixtures("mapped")
def test_a_large_file_is_mapped_and_says_the_same(tmp_path: Path) -> None:
    proto = model([20_000, 30_000, 40_000, 10])
    path = tmp_path / "model.onnx"
    onnx.save(proto, str(path))
    loaded = files.load(path)
    path.unlink()  # what is mapped stays
    for tensor in proto.graph.initializer:
        value = loaded.graph.initializers[tensor.name].const_value
        assert value is not None
        np.testing.assert_array_equal(value.numpy(), numpy_helper.to_array(tensor))
    light, large = protos.proto_and_weights(loaded)
    assert large.keys() == {"w0", "w1", "w2"}
    assert protos.to_proto(loaded).graph.initializer[0].raw_data == proto.graph.initializer[0].raw_data
    assert len(light.SerializeToString()) < 2000


@pytest.mark.usefixtures("mapped")
def test_a_weight_of_the_wrong_length_is_refused(tmp_path: Path) -> None:
    proto = model([20_000, 10])
    proto.graph.initializer[0].dims[0] = 19_999
    path = tmp_path / "model.onnx"
    onnx.save(proto, str(path))
    with pytest.raises(ModelError, match="'w0' holds 80000 bytes"):
        files.load(path)
