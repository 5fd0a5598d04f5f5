"""Fidelity on outputs whose figures are known by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxqp.errors import DataError, UsageError, VerificationError
from onnxqp.evaluate.fidelity import WORST_DIFF, WORST_SQNR_DB, FidelityMeter, fidelity
from onnxqp.report.records import Report
from onnxqp.specs import InputSpec


class Replay:
    """Answers each feed with the next of the outputs given."""

    def __init__(self, *outputs):
        self._answers = iter(outputs)

    def run(self, feed, names=None):
        return next(self._answers)


def feeds(count, batch=1):
    return [{"x": np.zeros((batch, 3), np.float32)}] * count


def one(baseline, candidate, batch=1, **options):
    """Fidelity of one output of one feed."""
    return fidelity(Replay({"y": baseline}), Replay({"y": candidate}), feeds(1, batch), **options)


def test_identical():
    y = np.arange(8, dtype=np.float32)[None]
    found = one(y, y.copy())
    assert found.sqnr_db is None
    assert (found.cosine_min, found.cosine_mean, found.max_abs_diff, found.top1_agreement) == (1, 1, 0, 100)
    assert found.outputs["y"].sqnr_db is None


def test_known_figures_over_several_feeds():
    base = [{"y": np.array([[3.0, 4.0, 0, 0]], np.float32)}, {"y": np.array([[0, 0, 5.0, 0]], np.float32)}]
    cand = [{"y": np.array([[3.0, 4.0, 0, 0.5]], np.float32)}, {"y": np.array([[0, 5.0, 0, 0]], np.float32)}]
    found = fidelity(Replay(*base), Replay(*cand), feeds(2))
    assert found.samples == 2
    assert found.sqnr_db == pytest.approx(10 * math.log10(50 / 50.25))
    assert found.cosine_min == 0
    assert found.cosine_mean == pytest.approx(25 / math.sqrt(25 * 25.25) / 2)
    assert found.max_abs_diff == 5
    assert found.top1_agreement == 50


def test_samples_of_a_batch_count_one_by_one():
    base = np.array([[1.0, 2, 3, 4], [4, 3, 2, 1]], np.float32)
    cand = np.array([[1.0, 2, 3, 4], [1, 3, 2, 4]], np.float32)
    found = one(base, cand, batch=2)
    assert found.samples == 2
    assert found.cosine_mean == pytest.approx((1 + 21 / 30) / 2)
    assert found.cosine_min == pytest.approx(21 / 30)
    assert found.top1_agreement == 50


def test_inputs_that_disagree_are_one_sample():
    feed = {"x": np.zeros((1, 64), np.float32), "state": np.zeros((2, 1, 8), np.float32), "rate": np.array(16000)}
    found = fidelity(Replay({"y": np.ones((4, 8))}), Replay({"y": np.ones((4, 8))}), [feed])
    assert found.samples == 1


def test_overall_figures_are_those_of_the_worst_float_output():
    base = {"good": np.array([[1.0, 2, 3, 4]]), "bad": np.array([[1.0, 2, 3, 4]]), "index": np.array([[1, 2, 3, 4]])}
    cand = {"good": np.array([[1.0, 2, 3, 4]]), "bad": np.array([[1.0, 2, 3, 3]]), "index": np.array([[9, 2, 3, 4]])}
    found = fidelity(Replay(base), Replay(cand), feeds(1))
    assert found.max_abs_diff == 1
    assert found.sqnr_db == found.outputs["bad"].sqnr_db
    assert found.outputs["good"].sqnr_db is None
    assert found.outputs["index"].max_abs_diff == 8


def test_integers_count_as_numbers():
    found = one(np.array([[0, 250]], np.uint8), np.array([[250, 0]], np.uint8))
    assert found.max_abs_diff == 250
    assert found.top1_agreement is None
    assert one(np.array([True]), np.array([False])).max_abs_diff == 1


def test_texts_are_equal_or_not():
    found = one(np.array(["cat", "dog"], object), np.array(["cat", "cow"], object))
    assert found.max_abs_diff == 1
    assert one(np.array(["cat"], object), np.array(["cat"], object)).sqnr_db is None


def test_sequences_and_maps():
    assert one([np.ones(2), np.zeros(3)], [np.ones(2), np.ones(3)]).max_abs_diff == 1
    assert one([{"a": 0.25, "b": 0.75}], [{"b": 0.75, "a": 0.5}]).max_abs_diff == 0.25
    assert one([], []).max_abs_diff == 0


def test_complex_numbers_are_pairs():
    assert one(np.array([1 + 1j, 0]), np.array([1 - 1j, 0])).max_abs_diff == 2


def test_half_precision_does_not_overflow():
    found = one(np.full((1, 64), 6e4, np.float16), np.full((1, 64), -6e4, np.float16))
    assert found.cosine_min == -1
    assert found.max_abs_diff == 120000


def test_short_outputs_have_one_cosine_over_all_samples():
    """The cosine of two single numbers is 1 or -1, whatever they are."""
    base = [{"y": np.array([[v]], np.float32)} for v in (1.0, 2.0)]
    cand = [{"y": np.array([[v]], np.float32)} for v in (1.0, -0.1)]
    found = fidelity(Replay(*base), Replay(*cand), feeds(2))
    assert found.cosine_min == found.cosine_mean == pytest.approx(0.8 / math.sqrt(5 * 1.01))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_only_the_candidate_breaks_is_the_worst(value):
    base = [{"y": np.array([[1.0, 2, 3, 4]], np.float32)}] * 2
    cand = [{"y": np.array([[1.0, 2, 3, 4]], np.float32)}, {"y": np.array([[1.0, value, 3, 4]], np.float32)}]
    said = []
    found = fidelity(Replay(*base), Replay(*cand), feeds(2), warn=said.append)
    assert (found.cosine_min, found.cosine_mean) == (0, 0.5)
    assert found.sqnr_db == WORST_SQNR_DB
    assert found.max_abs_diff == WORST_DIFF
    assert "1 of 2 samples" in said[0]


def test_not_a_number_is_no_agreement():
    assert one(np.array([[1.0, 2, 3]]), np.array([[1.0, np.nan, 3]])).top1_agreement == 0
    assert one(np.array([[1.0, 2, 3]]), np.array([[1.0, 2, np.nan]])).top1_agreement == 0


def test_a_broken_short_output_is_the_worst():
    assert one(np.array([[1.0]]), np.array([[np.nan]])).cosine_min == 0


def test_the_worst_survives_json():
    found = one(np.array([[1.0, 2, 3, 4]]), np.array([[np.nan, 2, 3, 4]]))
    text = json.dumps(Report("validate", {}, True, [], {}, {}, None, fidelity=found).to_dict(), allow_nan=False)  # type: ignore[arg-type]
    assert json.loads(text)["fidelity"]["sqnr_db"] == WORST_SQNR_DB
    assert json.loads(text)["fidelity"]["max_abs_diff"] == WORST_DIFF


def test_what_the_baseline_leaves_undefined_is_left_out():
    said = []
    found = one(np.array([[1.0, np.nan, 3, 4]]), np.array([[1.0, 7, 3, 4]]), warn=said.append)
    assert found.sqnr_db is None
    assert found.cosine_min == 1
    assert "baseline is not a number in 1 of 1" in said[0]


def test_equal_infinities_are_equal():
    found = one(np.array([[-np.inf, 1, 2, 3]]), np.array([[-np.inf, 1, 2, 3.5]]))
    assert found.max_abs_diff == 0.5
    assert found.cosine_min > 0.9


def test_infinity_of_the_baseline_alone_counts():
    assert one(np.array([[-np.inf, 1, 2, 3]]), np.array([[-9.0, 1, 2, 3]])).cosine_min == 0


def test_silence():
    zeros, sound = np.zeros((1, 8)), np.full((1, 8), 1e-3)
    assert one(zeros, zeros).sqnr_db is None
    assert one(zeros, zeros).cosine_min == 1
    found = one(zeros, sound)
    assert (found.cosine_min, found.sqnr_db) == (0, WORST_SQNR_DB)
    assert one(sound, zeros).sqnr_db == pytest.approx(0)


@pytest.mark.parametrize("scale", [1e-310, 1e-160, 1.0, 1e160, 1e300])
def test_cosine_at_every_scale(scale):
    found = one(np.array([[1.0, 1, 0, 0]]) * scale, np.array([[1.0, 0, 0, 0]]) * scale)
    assert found.cosine_min == pytest.approx(math.sqrt(0.5))


def test_empty_outputs():
    found = one(np.zeros((0, 4)), np.zeros((0, 4)))
    assert (found.cosine_min, found.max_abs_diff, found.samples) == (None, 0, 1)


@pytest.mark.parametrize(
    ("shape", "batch", "name", "expected"),
    [
        ((1, 10), 1, None, True),
        ((10,), 1, None, True),
        ((4, 10), 4, None, True),
        ((1, 10, 1, 1), 1, None, True),
        ((1, 1, 1, 10), 1, None, True),
        ((1, 1), 1, None, False),  # one number is no choice
        ((4,), 4, None, False),  # one number per sample
        ((1, 1, 10), 1, None, False),  # one step of a sequence?
        ((1, 1, 10), 1, "y", True),  # the user says it is not
        ((1, 10, 1), 1, None, False),  # a number for each of ten boxes?
        ((1, 10, 1), 1, "y", True),
        ((1, 10, 4, 4), 1, None, False),  # a map
        ((3, 10), 1, None, False),  # no batch
        ((), 1, None, False),
    ],
)
def test_which_outputs_look_like_class_scores(shape, batch, name, expected):
    y = np.random.default_rng(0).normal(size=shape)
    assert (one(y, y, batch=batch, output_name=name).top1_agreement == 100) is expected


def test_the_named_output_is_judged():
    base = {"a": np.array([[1.0, 2]]), "b": np.array([[1.0, 2]])}
    cand = {"a": np.array([[2.0, 1]]), "b": np.array([[1.0, 2]])}
    assert fidelity(Replay(base), Replay(cand), feeds(1)).top1_agreement == 0
    assert fidelity(Replay(base), Replay(cand), feeds(1), "b").top1_agreement == 100
    with pytest.raises(UsageError, match="no output 'c'") as caught:
        fidelity(Replay(base), Replay(cand), feeds(1), "c")
    assert "a, b" in caught.value.hint


def test_outputs_of_another_name():
    with pytest.raises(VerificationError, match="no output 'y'; it has z"):
        fidelity(Replay({"y": np.ones(1)}), Replay({"z": np.ones(1)}), feeds(1))


def test_outputs_of_another_shape():
    with pytest.raises(VerificationError, match=r"shape \(1, 9\) in the candidate, \(1, 10\) in the baseline"):
        one(np.ones((1, 10)), np.ones((1, 9)))


def test_a_size_that_depends_on_the_data_may_differ():
    """A detector that finds another number of boxes is wrong there, but it is no other model."""

    class Detector(Replay):
        inputs = ()
        outputs = (InputSpec("boxes", np.dtype(np.float32), ("found", 4)),)

    base = Detector({"boxes": np.ones((2, 4))}, {"boxes": np.ones((3, 4))})
    said = []
    found = fidelity(base, Replay({"boxes": np.ones((2, 4))}, {"boxes": np.ones((2, 4))}), feeds(2), warn=said.append)
    assert (found.cosine_min, found.cosine_mean) == (0, 0.5)
    assert found.sqnr_db == pytest.approx(0)
    assert "another size in the candidate in 1 of 2" in said[0]
    with pytest.raises(VerificationError):
        fidelity(Detector({"boxes": np.ones((2, 4))}), Replay({"boxes": np.ones((2, 5))}), feeds(1))


def test_without_data():
    with pytest.raises(DataError, match="no input"):
        fidelity(Replay(), Replay(), [])


arrays = hnp.arrays(np.float32, st.tuples(st.just(1), st.integers(4, 20)), elements=st.floats(-100, 100, width=32))


@settings(max_examples=40, deadline=None)
@given(st.lists(arrays, min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_streaming_equals_all_at_once(outputs, seed):
    rng = np.random.default_rng(seed)
    noisy = [y + rng.normal(size=y.shape).astype(np.float32) for y in outputs]
    meter = FidelityMeter()
    for y, z in zip(outputs, noisy, strict=True):
        meter.update(feeds(1)[0], {"y": y}, {"y": z})
    found = meter.result()
    a, b = (np.concatenate([y.ravel() for y in each]).astype(np.float64) for each in (outputs, noisy))
    noise, signal = ((a - b) ** 2).sum(), (a**2).sum()
    assert found.max_abs_diff == np.abs(a - b).max()
    if signal > 0:
        assert found.sqnr_db == pytest.approx(max(10 * math.log10(signal / noise), WORST_SQNR_DB), abs=1e-6)
    assert -1 <= found.cosine_min <= found.cosine_mean <= 1
