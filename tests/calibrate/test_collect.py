"""The calibration loop: the same statistics for any session split, bounded taps, faults that name the input."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from onnxqp.calibrate import collect as loop
from onnxqp.calibrate.collect import collect
from onnxqp.calibrate.observers import Histogram, MinMax
from onnxqp.errors import DataError


def model(dim="n", inner=(3, 4, 5)):
    """x -> Relu -> a -> Neg -> b -> Exp -> y; `inner` are the static shapes of a, b, y or None."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Neg", ["a"], ["b"]),
        helper.make_node("Exp", ["b"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [dim, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [dim, 4])
    graph = helper.make_graph(nodes, "g", [x], [y])
    if inner is not None:
        graph.value_info.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, [dim, 4]) for n in "ab")
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return ir.from_proto(proto)


SAMPLES = [{"x": np.random.default_rng(i).normal(0, 1 + i, (2, 4)).astype(np.float32)} for i in range(6)]
NAMES = ["x", "a", "b", "y"]


def run(**keywords):
    observers = {name: Histogram() for name in NAMES}
    count = collect(keywords.pop("model", model()), keywords.pop("samples", SAMPLES), observers, **keywords)
    assert count == len(SAMPLES)
    return observers


def test_inputs_inner_values_and_outputs_are_observed():
    observers = run()
    x = np.concatenate([s["x"] for s in SAMPLES])
    expected = {"x": x, "a": np.maximum(x, 0), "b": -np.maximum(x, 0), "y": np.exp(-np.maximum(x, 0))}
    for name, array in expected.items():
        assert observers[name].range == pytest.approx((array.min(), array.max()))
        assert observers[name].count == x.size


@pytest.mark.parametrize("budget", [1, 40, 70])
def test_a_smaller_budget_means_more_sessions_and_equal_results(budget, monkeypatch):
    taps = []
    session = loop.Session
    monkeypatch.setattr(loop, "Session", lambda m, **k: taps.append(tuple(k["taps"])) or session(m, **k))
    observers, whole = run(budget=budget), run()
    assert max(len(names) for names in taps[:-1]) <= max(1, budget // 32)
    assert taps[-1] == ("a", "b", "y")
    for name in NAMES:
        assert np.array_equal(observers[name].counts, whole[name].counts)


def test_two_threads_for_large_results_change_nothing(monkeypatch):
    whole = run()
    monkeypatch.setattr(loop, "AHEAD_TWICE_BYTES", -1)
    observers = run()
    for name in NAMES:
        assert observers[name].range == whole[name].range
        assert np.array_equal(observers[name].counts, whole[name].counts)


def test_unknown_shapes_are_split_after_the_first_sample():
    observers = run(model=model(inner=None), budget=20)
    whole = run()
    for name in NAMES:
        assert np.array_equal(observers[name].counts, whole[name].counts)


def test_only_inputs_need_no_session(monkeypatch):
    monkeypatch.setattr(loop, "Session", None)
    observers = {"x": MinMax()}
    assert collect(model(), SAMPLES, observers) == 6
    assert observers["x"].count == 48


def test_a_generator_is_read_once():
    observers, whole = run(samples=iter(SAMPLES), budget=1), run()
    assert np.array_equal(observers["b"].counts, whole["b"].counts)


def test_progress_ends_complete():
    calls = []
    run(budget=1, progress=lambda *call: calls.append(call))
    assert calls[-1] == (3, 3)
    calls.clear()
    run(progress=lambda *call: calls.append(call))
    assert [call[0] for call in calls] == [1, 2, 3, 4, 5, 6]


def test_faulty_samples():
    with pytest.raises(DataError, match="no calibration samples"):
        collect(model(), [], {"a": MinMax()})
    bad = [*SAMPLES, {"x": np.full((2, 4), np.nan, np.float32)}]
    with pytest.raises(DataError, match="sample 6") as caught:
        collect(model(), bad, {"a": MinMax()})
    assert caught.value.where == "input x"
    with pytest.raises(DataError):
        collect(model(), [{"x": np.zeros((2, 3), np.float32)}], {"a": MinMax()})
