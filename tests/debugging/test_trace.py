"""Where a candidate goes wrong: faults put in by hand are found, named, and blamed on the value that has them."""

import numpy as np
import onnx_ir as ir
import pytest
from debugging_graphs import RANGES, baseline, candidate, samples, weights
from onnx import TensorProto, helper, numpy_helper

from onnxqp.debugging import tracing, with_shapes
from onnxqp.debugging.matching import match
from onnxqp.debugging.segments import baseline_segments, candidate_segments
from onnxqp.errors import DataError, UnsupportedError
from onnxqp.runtime import Session, cpu

VNNI = {"avx512_vnni", "avx_vnni", "avx_vnni_int8"} & cpu().features
SATURATES = cpu().machine in ("x86_64", "AMD64") and not VNNI


def traced(one, other, feeds=None, **options):
    return tracing.trace(with_shapes(one), with_shapes(other), samples() if feeds is None else feeds, **options)


def errors(one, other, feeds=None, **options):
    return {each.name: each for each in traced(one, other, feeds, **options).tensors}


# ---- causes ------------------------------------------------------------------------------------------------------


def test_an_identical_candidate_has_no_error():
    found = traced(baseline(), baseline()).tensors
    assert len(found) == 7
    assert all(each.sqnr_db is None and each.cause == "none" for each in found)


def test_a_sound_candidate_rounds():
    found = errors(baseline(), candidate())
    assert found["x"].cause == "rounding"
    assert {each.cause for each in found.values()} <= {"rounding", "inherited"}
    assert all(each.sqnr_db > 30 for each in found.values())
    assert found["a"].clipped == 0
    assert found["c"].clipped is None
    assert [each.place for each in sorted(found.values(), key=lambda each: each.place)] == [0, 1, 2, 3, 4, 5]


def test_worst_first():
    levels = [each.sqnr_db for each in traced(baseline(), candidate()).tensors]
    assert levels == sorted(levels)


@pytest.mark.parametrize("name", ["x", "a", "b"])
def test_a_range_that_is_too_narrow_is_clipping_and_later_values_inherit_it(name):
    low, high = RANGES[name]
    found = errors(baseline(), candidate({**RANGES, name: (low / 6, high / 6)}))
    assert found[name].cause == "clipping"
    assert found[name].sqnr_db < 15
    assert 0 < found[name].clipped < 0.8
    assert (found["y"].cause, found["y"].source) == ("inherited", name)
    before = ("x", "a", "b")["xab".index(name) :: -1][1:]
    assert all(found[other].sqnr_db > 30 for other in before)


def test_a_range_that_is_too_wide_is_rounding():
    found = errors(baseline(), candidate({**RANGES, "a": (0.0, 1600.0)}))
    assert (found["a"].cause, found["a"].node) == ("rounding", "n_a")
    assert found["a"].sqnr_db < 12
    assert (found["y"].cause, found["y"].source) == ("inherited", "a")


def test_a_wrong_weight_is_blamed_on_the_node_that_reads_it():
    spoilt = weights()["w2"] * (1 + 0.3 * np.sign(weights(9)["w2"]))
    found = errors(baseline(), candidate(w2=spoilt.astype(np.float32)))
    assert (found["b"].cause, found["b"].node) == ("rounding", "n_b")
    assert found["a"].sqnr_db > 30
    assert found["b"].sqnr_db == pytest.approx(found["b"].local_sqnr_db, abs=1)
    assert (found["c"].cause, found["c"].source) == ("inherited", "b")
    assert found["c"].local_sqnr_db is None or found["c"].local_sqnr_db > 60


def test_what_is_no_number_is_said():
    spoilt = weights()["w3"].copy()
    spoilt[0, 3] = np.inf
    found = traced(baseline(), candidate(w3=spoilt)).tensors
    assert (found[0].name, found[0].cause) == ("y", "not finite")


@pytest.mark.skipif(not SATURATES, reason="the kernels of this CPU do not saturate")
def test_saturation_of_real_kernels():
    found = errors(baseline(**LOUD), candidate(LOUD_RANGES, **LOUD), loud())
    assert found["a"].cause == "saturation"
    assert (found["y"].cause, found["y"].source) == ("inherited", "a")


# Inputs near the upper end of their grid and weights of one sign: pairs of products exceed 16 bits.
LOUD = {"w1": np.abs(weights()["w1"]) * 0 + np.float32(0.1)}
LOUD_RANGES = {"x": (0.0, 4.5), "a": (0.0, 70.0), "b": (0.0, 70.0)}


def loud():
    return [{"x": np.abs(feed["x"]) * 0 + np.float32(4.4)} for feed in samples(2)]


class Saturating(Session):
    """Stands for a CPU whose 16-bit sums saturate: sessions with the kernels of the CPU lose what is above a limit."""

    limit = 40.0

    def __init__(self, source, **keywords):
        self.saturates = not keywords.get("options")
        super().__init__(source, **keywords)

    def run(self, feed, names=None):
        results = super().run(feed, names)
        if self.saturates and "a_dequantized" in results:
            results["a_dequantized"] = np.minimum(results["a_dequantized"], np.float32(self.limit))
        return results


@pytest.fixture
def saturating(monkeypatch):
    opened = []

    def session(source, **keywords):
        opened.append(dict(keywords.get("options") or {}))
        return Saturating(source, **keywords)

    monkeypatch.setattr(tracing, "Session", session)
    return opened


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_saturation_is_told_from_rounding_by_exact_kernels(saturating, monkeypatch, machine):
    from dataclasses import replace

    monkeypatch.setattr(tracing, "cpu", lambda: replace(cpu(), machine=machine))
    found = errors(baseline(**LOUD), candidate(LOUD_RANGES, **LOUD), loud())
    assert found["a"].cause == "saturation"
    assert found["x"].cause in ("rounding", "none")
    assert tracing.FLOAT_KERNELS in saturating
    assert (tracing.EXACT_KERNELS in saturating) == (machine == "x86_64")


def test_kernels_that_are_wrong_in_another_way_are_not_called_saturated(saturating, monkeypatch):
    """Exact integer kernels do the same: then it is how integer arithmetic rounds."""
    from dataclasses import replace

    monkeypatch.setattr(tracing, "cpu", lambda: replace(cpu(), machine="x86_64"))
    monkeypatch.setattr(tracing, "EXACT_KERNELS", {})
    found = errors(baseline(**LOUD), candidate(LOUD_RANGES, **LOUD), loud())
    assert found["a"].cause == "rounding"


# ---- pieces --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["baseline", "candidate"])
def test_pieces_fed_with_a_models_own_values_compute_these_values(side):
    one, other = with_shapes(baseline()), with_shapes(candidate())
    pairs, (feed,) = match(one, other), samples(1)
    model = one if side == "baseline" else other
    names = {pair.name: pair.name if side == "baseline" else pair.candidate for pair in pairs}
    taps = [name for name in names.values() if name != "x"]
    values = Session(model, taps=taps).run(feed, taps) | feed
    build = baseline_segments if side == "baseline" else candidate_segments
    pieces = build(model, pairs, pairs)
    given = {name: values[names[pair.name]] for name, pair in pieces.given.items()}
    session = Session(pieces.model)
    results = session.run({spec.name: given.get(spec.name, values["x"]) for spec in session.inputs})
    assert results.keys() == {name for pair, name in names.items() if not (side == "baseline" and pair == "x")}
    for name, array in results.items():
        np.testing.assert_allclose(array, values[name], rtol=1e-4, atol=1e-5)
    above = {name: [pair.name for pair in sources] for name, sources in pieces.sources().items()}
    assert above["b"] == ["a"]
    assert above["y"] == ["c"]


def test_only_what_a_group_needs_is_kept():
    one, other = with_shapes(baseline()), with_shapes(candidate())
    pairs = match(one, other)
    (b,) = (pair for pair in pairs if pair.name == "b")
    pieces = candidate_segments(other, pairs, [b])
    assert [pair.name for pair in pieces.given.values()] == ["a"]
    assert len(pieces.model.graph.inputs) == 1
    assert sorted(node.op_type for node in pieces.model.graph if node.op_type in ("Conv", "Gemm")) == ["Conv"]
    assert len(other.graph.inputs) == 1  # the candidate itself is as it was


# ---- the loop -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, "N"])
@pytest.mark.parametrize("budget", [1, 20_000])
def test_small_groups_find_the_same(budget, batch, monkeypatch):
    ranges = {**RANGES, "a": (0.0, 4.0)}
    whole = errors(baseline(batch), candidate(ranges, batch))
    taps = []
    session = tracing.Session
    monkeypatch.setattr(tracing, "Session", lambda m, **k: taps.append(len(k.get("taps", ()))) or session(m, **k))
    told = []
    parts = errors(baseline(batch), candidate(ranges, batch), budget=budget, progress=lambda *call: told.append(call))
    assert len(told) > 1
    assert told[-1] == (len(told), len(told))
    assert max(taps) < 6
    for name, each in whole.items():
        assert parts[name].cause == each.cause
        assert parts[name].source == each.source
        assert parts[name].sqnr_db == pytest.approx(each.sqnr_db, abs=0.01)


def test_batches_are_samples():
    feeds = samples()
    stacked = [{"x": np.concatenate([feed["x"] for feed in feeds])}]
    one = errors(baseline("N"), candidate(batch="N"), feeds)
    other = errors(baseline("N"), candidate(batch="N"), stacked)
    assert all(one[name].sqnr_db == pytest.approx(other[name].sqnr_db, abs=0.05) for name in one)


def test_shapes_that_differ_only_when_run_are_left_out():
    def cut(length):
        nodes = [
            helper.make_node("Slice", ["x", "start", "end"], ["s"], name="cut"),
            helper.make_node("ReduceMax", ["s"], ["y"], axes=[1], name="max"),
        ]
        sides = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "m"])]
        sides.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1]))
        ends = {"start": np.array([0, 0]), "end": np.array([9, length])}
        arrays = [numpy_helper.from_array(array, name) for name, array in ends.items()]
        graph = helper.make_graph(nodes, "g", sides[:1], sides[1:], arrays)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
        return ir.from_proto(proto)

    feeds = [{"x": np.arange(12, dtype=np.float32).reshape(2, 6)}]
    assert set(errors(cut(3), cut(4), feeds)) == {"y"}
    assert set(errors(cut(3), cut(3), feeds)) == {"s", "y"}


def test_a_piece_that_does_not_run_leaves_the_rest(monkeypatch):
    def broken(*arguments):
        pieces = baseline_segments(*arguments)
        pieces.model.opset_imports[""] = 99
        return pieces

    monkeypatch.setattr(tracing, "baseline_segments", broken)
    found = traced(baseline(), candidate())
    assert len(found.tensors) == 6
    assert any("guessed" in warning for warning in found.warnings)


def test_nothing_to_compare():
    other = candidate()
    for value in (value for node in other.graph for value in node.outputs):
        value.name = f"other_{value.name}"
    other.graph.inputs[0].name = "other_x"
    with pytest.raises(UnsupportedError, match="no value in common"):
        traced(baseline(), other)
    with pytest.raises(DataError, match="no input"):
        traced(baseline(), candidate(), feeds=[])
