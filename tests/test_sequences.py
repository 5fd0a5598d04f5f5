"""Models with outputs that are no tensor, which sessions return as lists, through all that looks at outputs."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, load, save
from quantize_graphs import Graph

from onnxqp import api
from onnxqp.options import MeasureOptions, PruneOptions, QuantizeOptions, Selection, WriteOptions
from onnxqp.runtime import Session, as_array

QUICK = MeasureOptions(validate=False)
EVERYTHING = QuantizeOptions(target="x64-vnni", selection=Selection(include=("*",)))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two Gemm of different widths behind a Relu, as the elements of a sequence, and their first one as a tensor."""
    g = Graph(("n", 32))
    hidden = g.op("Relu", g.op("Gemm", "x", g.matrix(32, 64)))
    heads = [g.op("Gemm", hidden, g.matrix(64, width)) for width in (4, 6)]
    sequence = g.op("SequenceConstruct", *heads)
    proto = g.proto(g.op("SequenceAt", sequence, g.constant(np.array(0, np.int64))))
    proto.graph.output.append(helper.make_tensor_sequence_value_info(sequence, TensorProto.FLOAT, None))
    path = tmp_path / "model.onnx"
    save(proto, path)
    return path


@pytest.fixture
def samples() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(3)
    return [{"x": rng.normal(size=(1, 32)).astype(np.float32)} for _ in range(12)]


def test_pruned_equals_masked_in_every_element(model, samples):
    written = WriteOptions(output=model.with_name("cut.onnx"))
    result = api.prune(model, options=PruneOptions(ratio=0.5), data=samples, measure=QUICK, write=written)
    pruning = result.report.pruning
    assert pruning.proof.checked
    assert [(group.before, group.after) for group in pruning.groups] == [(64, 32)]
    assert [array.shape for array in Session(written.output).run(samples[0])["v4"]] == [(1, 4), (1, 6)]


def test_integers_are_held_against_floats(model, samples):
    written = WriteOptions(output=model.with_name("int8.onnx"))
    result = api.quantize(model, options=EVERYTHING, data=samples, measure=QUICK, write=written)
    assert result.report.quantization.nodes_quantized
    found = api.debug(model, written.output, data=samples)
    assert {"v0", "v1", "v2", "v3"} & {tensor.name for tensor in found.report.tensors or []}
    fidelity = api.validate(model, written.output, data=samples).report.fidelity
    assert set(fidelity.outputs) == {"v4", "v5"}
    assert fidelity.sqnr_db > 30


@pytest.mark.parametrize("opset", [9, 17])
def test_the_maps_of_a_classifier_keep_their_type(tmp_path, samples, opset):
    g = Graph(("n", 32))
    hidden = g.op("Relu", g.op("Gemm", "x", g.matrix(32, 64), g.constant(np.zeros(64, np.float32))))
    logits = g.op("Gemm", hidden, g.matrix(64, 3), g.constant(np.zeros(3, np.float32)))
    scores = g.op("Softmax", logits, axis=1)
    maps = g.op("ZipMap", scores, domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])
    proto = g.proto(scores, opset=opset)
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    probability = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    proto.graph.output.append(helper.make_value_info(maps, helper.make_sequence_type_proto(probability)))
    given = proto.SerializeToString()
    written = WriteOptions(output=tmp_path / "cut.onnx")
    report = api.prune(proto, options=PruneOptions(ratio=0.5), data=samples, measure=QUICK, write=written).report
    assert report.pruning.proof.checked
    assert proto.SerializeToString() == given
    assert load(written.output).graph.output[1] == proto.graph.output[1]
    assert set(Session(written.output).run(samples[0])[maps][0]) == {0, 1, 2}


def test_sequences_and_maps_are_vectors_of_numbers():
    assert as_array([{2: 0.5, 1: 0.25}, {1: 1.0, 2: 0.0}]).tolist() == [0.25, 0.5, 1.0, 0.0]
    assert as_array([np.ones((2, 2)), np.zeros(1)]).tolist() == [1, 1, 1, 1, 0]
    assert as_array([]).shape == (0,)
