"""Both judgements in one pass, signatures, and the whole on a real session."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxqp.errors import DataError, UsageError
from onnxqp.evaluate.accuracy import accuracy
from onnxqp.evaluate.assessment import assess
from onnxqp.evaluate.fidelity import fidelity
from onnxqp.evaluate.latency import Effort, compare
from onnxqp.evaluate.runnable import require_same_signature, samples_in
from onnxqp.evaluate.scores import may_hold_classes
from onnxqp.runtime import Session
from onnxqp.specs import InputSpec

F32 = np.dtype(np.float32)


def linear(weights, *, extra=0):
    """y = x W, with `extra` pairs of a product with the identity before it to make it slower."""
    size, classes = weights.shape
    nodes, last = [], "x"
    for i in range(extra):
        nodes.append(helper.make_node("MatMul", [last, "eye"], [f"h{i}"]))
        last = f"h{i}"
    nodes.append(helper.make_node("MatMul", [last, "w"], ["y"]))
    initializers = [numpy_helper.from_array(weights, "w")]
    if extra:
        initializers.append(numpy_helper.from_array(np.eye(size, dtype=np.float32), "eye"))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", classes])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    return Session(model.SerializeToString())


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(128, 10)).astype(np.float32)
    return linear(weights, extra=8), linear(weights + rng.normal(scale=0.02, size=weights.shape).astype(np.float32))


def test_a_real_model(pair):
    base, cand = pair
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.normal(size=(4, 128)).astype(np.float32)} for _ in range(20)]
    labelled = [(feed, base.run(feed)["y"].argmax(axis=1)) for feed in feeds]
    found = assess(base, cand, labelled)
    assert found.fidelity == fidelity(base, cand, feeds)
    assert found.accuracy == accuracy(base, cand, labelled)
    assert found.fidelity.samples == found.accuracy.samples == 80
    assert 30 < found.fidelity.sqnr_db < 38  # 20 log10(1 / 0.02) = 34
    assert found.accuracy.baseline == 100
    assert found.accuracy.candidate == found.fidelity.top1_agreement
    assert found.accuracy.flips == round(80 * found.accuracy.drop / 100)


def test_latency_of_a_real_model(pair):
    base, cand = pair
    feeds = [{"x": np.zeros((64, 128), np.float32)}]
    found = compare(base, cand, feeds, threads=1, batch=64, effort=Effort(min_seconds=0.2, warmup_seconds=0.05))
    assert found.speedup > 1.5
    assert found.speedup_ci[0] <= found.speedup <= found.speedup_ci[1]
    assert found.noise < 0.5
    assert found.baseline.p50_ms <= found.baseline.p90_ms <= found.baseline.p99_ms


def test_data_without_labels(pair):
    feeds = [{"x": np.ones((1, 128), np.float32)}]
    for label in (None, [None]):
        found = assess(*pair, [(feed, label) for feed in feeds])
        assert found.accuracy is None
        assert found.fidelity.samples == 1


def test_labels_for_some(pair):
    feed = {"x": np.ones((1, 128), np.float32)}
    with pytest.raises(DataError, match="1 of 2 evaluation samples have no label"):
        assess(*pair, [(feed, 0), (feed, None)])


class Declared:
    def __init__(self, inputs=(), outputs=()):
        self.inputs, self.outputs = inputs, outputs


X = InputSpec("x", F32, ("n", 3))


def test_equal_signatures():
    require_same_signature(Declared((X,), (X,)), Declared((X,), (X,)))
    require_same_signature(Declared((X,)), Declared((InputSpec("x", F32, (1, 3)),)))
    require_same_signature(Declared((X,)), Declared((InputSpec("x", F32, None),)))
    y = InputSpec("y", F32, None)
    require_same_signature(Declared((X, y)), Declared((y, X)))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (InputSpec("z", F32, ("n", 3)), "inputs z of the candidate, x of the baseline"),
        (InputSpec("x", np.dtype(np.uint8), ("n", 3)), "is uint8 in the candidate, float32"),
        (InputSpec("x", F32, ("n", 4)), r"shape \(n, 4\) in the candidate, \(n, 3\)"),
        (InputSpec("x", F32, ("n", 3, None)), r"shape \(n, 3, \?\)"),
    ],
)
def test_unequal_signatures(other, message):
    with pytest.raises(UsageError, match=message) as caught:
        require_same_signature(Declared((X,)), Declared((other,)))
    assert caught.value.hint
    with pytest.raises(UsageError):
        require_same_signature(Declared((), (X,)), Declared((), (other,)))


def test_samples_in_a_feed():
    assert samples_in({"x": np.zeros((8, 3))}) == 8
    assert samples_in({"ids": np.zeros((2, 7)), "mask": np.zeros((2, 7)), "rate": np.array(1)}) == 2
    assert samples_in({"x": np.zeros((1, 64)), "state": np.zeros((2, 1, 8))}) == 1
    assert samples_in({"x": np.zeros(784)}) == 1
    assert samples_in({"x": np.zeros((0, 3))}) == 1
    assert samples_in({}) == 1


@pytest.mark.parametrize(
    ("shape", "dtype", "name", "expected"),
    [
        (("n", 10), F32, None, True),
        ((1, 10, 1, 1), F32, None, True),
        ((1, 1), F32, None, False),
        ((1, 3, 8, 8), F32, None, False),
        ((1, 1, 10), F32, None, False),
        ((1, 1, 10), F32, "y", True),
        (("n", "c"), F32, None, None),
        ((10,), F32, None, None),
        ((), F32, None, False),
        (None, F32, None, None),
        ((1, 10), np.dtype(np.int64), None, False),
        ((1, 10), np.dtype(np.int64), "y", True),
        ((1, 10), None, None, None),
        ((1, 10), F32, "z", False),
    ],
)
def test_declared_outputs_that_may_hold_classes(shape, dtype, name, expected):
    assert may_hold_classes((InputSpec("y", dtype, shape),), name) is expected
    assert may_hold_classes((), None) is False


@pytest.fixture(scope="module")
def digits(zoo):
    """A trained classifier of the zoo, twice, and 1000 of its labelled digits."""
    data = np.load(zoo / "data" / "mnist" / "eval.npz")
    session = Session(zoo / "models" / "mnist_cntk.onnx")
    feeds = [{"Input3": image[None]} for image in data["Input3"][:1000]]
    return session, feeds, data["labels"][:1000]


def test_a_trained_model_against_itself(digits):
    session, feeds, labels = digits
    said = []
    found = assess(session, session, zip(feeds, labels, strict=True), warn=said.append)
    assert found.accuracy.baseline > 98
    assert (found.accuracy.drop, found.accuracy.drop_ci, found.accuracy.flips) == (0, (0, 0), 0)
    assert (found.fidelity.top1_agreement, found.fidelity.sqnr_db) == (100, None)
    assert said == []


def test_a_trained_model_on_data_prepared_wrongly(digits):
    """The two classic mistakes are seen and told apart: another order of the classes, another scale of the pixels."""
    session, feeds, labels = digits
    said = []
    accuracy(session, session, zip(feeds, (labels * 3 + 1) % 10, strict=True), warn=said.append)
    assert "another order of the classes it would be about 9" in said[0]
    dark = [{"Input3": feed["Input3"] / np.float32(25500)} for feed in feeds]
    accuracy(session, session, zip(dark, labels, strict=True), warn=said.append)
    assert "near chance" in said[1]
    assert "preprocessed wrongly" in said[1]
