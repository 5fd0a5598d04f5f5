"""Judging candidates on samples that were held back."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxqp.compress.judging import HeldBack, rare_kinds, split
from onnxqp.data import from_feeds
from onnxqp.runtime import Session
from onnxqp.specs import InputSpec


def linear(weight, *, softmax=False):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["s"])]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["s"], ["p"]))
    last = "p" if softmax else "s"
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, weight.shape[1]])],
        [numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return ir.from_proto(proto)


FEEDS = [{"x": np.array([row], np.float32)} for row in [(3, 0), (0, 3), (0.1, 0), (2, 0)]]


@pytest.mark.parametrize("softmax", [False, True])
def test_a_differing_prediction_costs_what_the_original_believed(softmax):
    weight = np.eye(2)
    held = HeldBack(linear(weight, softmax=softmax), FEEDS)
    same = held.closeness(Session(linear(weight * 2, softmax=softmax)))
    assert (same.agreement, same.drop) == (100.0, 0.0)
    swapped = np.array([[1.0, 1.2], [0.0, 1.0]])  # class 1 wins where x = (a, 0)
    found = held.closeness(Session(linear(swapped, softmax=softmax)))
    beliefs = [1 / (1 + np.exp(-a)) for a in (3, 0.1, 2)]
    assert found.agreement == 25.0
    lost = [100 * (2 * p - 1) for p in beliefs] + [0.0]
    assert found.drop == pytest.approx(np.mean(lost), rel=1e-4)
    assert found.drop_error == pytest.approx(np.std(lost) / 2, rel=1e-4)
    assert found.samples == 4


def test_the_original_is_as_close_as_can_be_however_often_it_is_asked():
    held = HeldBack(linear(np.eye(2)), FEEDS)
    for _ in range(2):
        found = held.closeness(held.session)
        assert (found.agreement, found.drop, found.noise) == (100.0, 0.0, 0.0)


def test_embeddings_of_length_one_predict_no_class():
    weight = np.array([[0.6, -0.8], [0.8, 0.6]])
    unit = [{"x": np.array([row], np.float32)} for row in [(1, 0), (0, 1), (0.6, 0.8)]]
    held = HeldBack(linear(weight), unit)
    assert not held.holds_classes()
    assert HeldBack(linear(weight), unit, "s").holds_classes()  # named, it is believed
    assert HeldBack(linear(weight), FEEDS).holds_classes()
    assert HeldBack(linear(weight), [*unit, *FEEDS]).holds_classes()  # some have length 1 by chance
    held.classes = False
    found = held.closeness(Session(linear(-weight)))
    assert (found.agreement, found.drop) == (None, None)
    assert found.noise > 1


def samples(count):
    feeds = [{"x": np.full((1, 2), n, np.float32)} for n in range(count)]
    spec = InputSpec("x", np.dtype(np.float32), (1, 2))
    return from_feeds(feeds, (spec,), samples=None, labelled=False, name="data")


@pytest.mark.parametrize(("count", "wanted", "held"), [(512, 256, 256), (288, 256, 96), (30, 256, 10), (600, 256, 256)])
def test_what_makes_a_candidate_does_not_judge_it(count, wanted, held):
    making, choosing = split(samples(count), wanted, 0)
    assert len(choosing) == held
    assert sorted((*making.indices, *choosing.indices)) == list(range(count))


def test_what_judges_is_of_other_kinds():
    kinds = [place // 16 for place in range(288)]
    making, choosing = split(samples(288), 256, 0, kinds)
    assert len(choosing) == 96
    assert sorted((*making.indices, *choosing.indices)) == list(range(288))
    of_making, of_choosing = ({kinds[place] for place in found.indices} for found in (making, choosing))
    assert len(of_choosing) == 6
    assert not of_making & of_choosing


def test_classes_are_told_apart_where_samples_show_few_of_them():
    weight = np.zeros((2, 5), np.float32)
    weight[:, 0], weight[:, 1] = -1, 1  # the second class for any positive input, the third for 0
    weight[:, 2:] = -1
    assert rare_kinds(linear(weight), samples(4)) == (0, 1, 1, 1)
    assert rare_kinds(linear(weight[:, :3]), samples(4)) == ()


def test_too_few_are_used_twice():
    making, choosing = split(samples(3), 256, 0)
    assert making.indices == choosing.indices
