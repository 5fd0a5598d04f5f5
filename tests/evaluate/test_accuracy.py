"""Accuracy, its interval, and the suspicion that the data are wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxqp.errors import DataError, UsageError
from onnxqp.evaluate.accuracy import accuracy
from onnxqp.evaluate.metric import CustomMetric, parse_metric


class Scores:
    """A classifier: the feed's `i` says which row of scores to return."""

    def __init__(self, scores, shape=None):
        self._scores, self._shape = np.asarray(scores), shape

    def run(self, feed, names=None):
        row = self._scores[feed["i"]]
        return {"y": row if self._shape is None else row.reshape(self._shape)}


def samples(labels):
    return [({"i": np.array([i])}, label) for i, label in enumerate(labels)]


def one_hot(guesses, classes):
    return np.eye(classes, dtype=np.float32)[np.asarray(guesses, dtype=int)]


def judge(ours, theirs, labels, classes=10, metric="top1", **options):
    return accuracy(
        Scores(one_hot(ours, classes)), Scores(one_hot(theirs, classes)), samples(labels), metric, **options
    )


def test_points_drop_and_flips():
    labels = [0, 1, 2, 3]
    found = judge([0, 1, 2, 0], [0, 1, 5, 9], labels)
    assert (found.metric, found.samples) == ("top1", 4)
    assert (found.baseline, found.candidate, found.drop, found.flips) == (75, 50, 25, 2)


def test_the_interval_is_paired_and_seeded():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 1000)
    ours = np.where(rng.random(1000) < 0.8, labels, (labels + 1) % 10)
    theirs = ours.copy()
    theirs[:30] = (labels[:30] + 2) % 10
    found = judge(ours, theirs, labels)
    lost = int((ours[:30] == labels[:30]).sum())
    assert found.drop == pytest.approx(lost / 10)
    low, high = found.drop_ci
    assert low < found.drop < high
    # normal theory of a paired difference; unpaired it would be three times as wide
    half = 1.96 * 100 * np.sqrt(lost / 1000 * (1 - lost / 1000) / 1000)
    assert (high - low) / 2 == pytest.approx(half, rel=0.15)
    assert judge(ours, theirs, labels).drop_ci == found.drop_ci
    assert judge(ours, ours, labels).drop_ci == (0, 0)


@pytest.mark.parametrize("shape", [(1, 10), (10,), (1, 10, 1, 1), (1, 1, 10)])
def test_shapes_of_class_scores(shape):
    model = Scores(one_hot(range(10), 10), shape)
    assert accuracy(model, model, samples(range(10))).baseline == 100


@pytest.mark.parametrize("label", [np.array([1, 2]), np.array([[1], [2]]), [1, 2], np.array([1.0, 2.0]), [True, 2]])
def test_batches_and_kinds_of_labels(label):
    model = Scores(one_hot([1, 2], 5))
    found = accuracy(model, model, [({"i": np.array([0, 1])}, label)])
    assert (found.samples, found.baseline) == (2, 100)


def test_top5():
    scores = np.array([[9, 8, 7, 6, 5, 4, 3.0]])
    for label, hit in ((4, 100), (5, 0)):
        assert accuracy(Scores(scores), Scores(scores), samples([label]), "top5").baseline == hit


def test_among_equal_scores_the_first_wins():
    """A model that scores everything alike must not be credited with the right answer."""
    flat = np.zeros((2, 10))
    assert accuracy(Scores(flat), Scores(flat), samples([0, 1])).baseline == 50
    assert accuracy(Scores(flat), Scores(flat), samples([4, 5]), "top5").baseline == 50


def test_not_a_number_is_no_hit():
    broken = np.array([[np.nan, 5.0, 1.0]])
    found = accuracy(Scores([[0, 5.0, 1.0]]), Scores(broken), samples([1]))
    assert (found.baseline, found.candidate, found.flips) == (100, 0, 1)


def test_quantized_scores():
    model = Scores(np.array([[0, 200, 3]], np.uint8))
    assert accuracy(model, model, samples([1])).baseline == 100


@pytest.mark.parametrize(
    ("label", "message"),
    [(10, "label 10 is none of the model's 10 classes"), (-1, "label -1"), (0.5, "whole numbers"), ("cat", "whole")],
)
def test_labels_that_do_not_fit(label, message):
    with pytest.raises(DataError, match=message) as caught:
        judge([0], [0], [label])
    assert caught.value.hint


def test_no_class_scores():
    maps = Scores(np.zeros((1, 4, 8, 8)))
    with pytest.raises(UsageError, match=r"shape \(1, 4, 8, 8\)") as caught:
        accuracy(maps, maps, samples([0]))
    assert "--output-name" in caught.value.hint


def test_other_classes_in_the_candidate():
    with pytest.raises(UsageError, match="9 classes, the baseline 10"):
        accuracy(Scores(np.eye(10)), Scores(np.eye(9)), samples([0]))


def test_without_samples():
    for metric in ("top1", CustomMetric("m", lambda outputs, labels: 1.0)):
        with pytest.raises(DataError, match="no labelled sample"):
            judge([], [], [], metric=metric)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40))
def test_drop_is_the_difference_and_lies_in_its_interval(rows):
    labels, ours, theirs = zip(*rows, strict=True)
    found = judge(ours, theirs, labels)
    assert found.drop == pytest.approx(found.baseline - found.candidate)
    assert found.drop_ci[0] - 1e-9 <= found.drop <= found.drop_ci[1] + 1e-9 or len(rows) < 5


# ---- is the baseline any better than guessing? ------------------------------------------------------------------


def suspicion(ours, labels, classes=10, metric="top1"):
    said = []
    judge(ours, ours, labels, classes=classes, metric=metric, warn=said.append)
    return said[0] if said else None


def test_no_suspicion_of_a_good_model():
    labels = np.arange(200) % 10
    assert suspicion(labels, labels) is None
    assert suspicion(np.where(np.arange(200) % 3 == 0, labels, (labels + 1) % 10), labels) is None


def test_guessing_is_named():
    rng = np.random.default_rng(0)
    said = suspicion(rng.integers(0, 10, 500), rng.integers(0, 10, 500))
    assert "near chance (10.0 % for 10 classes)" in said
    assert "preprocessing" in said


def test_few_samples_decide_nothing_but_warn():
    assert "near chance" in suspicion([1, 2], [3, 4])


def test_top5_of_few_classes_has_no_chance_to_beat():
    assert suspicion([1] * 30, [2] * 30, classes=5, metric="top5") is None


def test_a_background_class_is_named():
    labels = np.arange(300) % 10
    said = suspicion(labels + 1, labels, classes=11)
    assert "with 1 added to every label it would be 100.0 %" in said
    assert "background" in said
    assert "1 taken from" in suspicion(labels, labels + 1, classes=11)


def test_another_order_of_the_classes_is_named():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 400)
    order = np.array([3, 0, 1, 9, 8, 2, 7, 5, 6, 4])
    guesses = np.where(rng.random(400) < 0.9, order[labels], rng.integers(0, 10, 400))
    said = suspicion(guesses, labels)
    assert "another order of the classes" in said
    assert "classes.txt" in said


def test_one_class_for_everything_is_named():
    labels = np.arange(300) % 10
    said = suspicion(np.full(300, 7), labels)
    assert "predicts class 7 for 100 %" in said
    assert "preprocessed wrongly" in said


def test_guessing_shows_no_false_pattern():
    """Over many random baselines, the general hint is all that is said."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        said = suspicion(rng.integers(0, 10, 200), rng.integers(0, 10, 200)) or ""
        assert "shifted" not in said
        assert "order it would" not in said
        assert "another order of the classes it" not in said


# ---- the user's own metric -----------------------------------------------------------------------------------


def share(outputs, labels):
    return float(np.mean([int(out["y"].argmax()) == label for out, label in zip(outputs, labels, strict=True)]))


def test_a_custom_metric():
    found = judge([0, 1, 2, 0], [0, 1, 0, 0], [0, 1, 2, 3], metric=CustomMetric("m.py:share", share))
    assert (found.metric, found.samples, found.flips) == ("m.py:share", 4, None)
    assert (found.baseline, found.candidate, found.drop) == (0.75, 0.5, 0.25)
    assert found.drop_ci[0] <= 0.25 <= found.drop_ci[1]
    assert found.drop_ci[0] < found.drop_ci[1]


def test_a_metric_that_cannot_be_resampled():
    def delicate(outputs, labels):
        if len(set(labels)) < len(labels):
            raise ValueError("repeated")
        return share(outputs, labels)

    said = []
    found = judge([0, 1, 2], [0, 1, 0], [0, 1, 2], metric=CustomMetric("m", delicate), warn=said.append)
    assert found.drop_ci == (found.drop, found.drop)
    assert "uncertainty" in said[0]


def broken(outputs, labels):
    raise KeyError("nothing")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (broken, "KeyError"),
        (lambda outputs, labels: float("nan"), "returned nan"),
        (lambda outputs, labels: "many", "ValueError"),
    ],
)
def test_a_metric_that_fails(function, message):
    with pytest.raises(UsageError, match=message) as caught:
        judge([0], [0], [0], metric=CustomMetric("m.py:f", function))
    assert caught.value.where == "m.py:f"


def test_names_of_metrics(tmp_path, capsys):
    assert parse_metric("top1").name == "top1"
    assert parse_metric("top5").k == 5
    (tmp_path / "beside_the_metric.py").write_text("value = 2\n")
    file = tmp_path / "metrics.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "@dataclass\nclass Group:\n    x: int = 1\n    @staticmethod\n"
        "    def score(outputs, labels):\n"
        "        import beside_the_metric\n"
        "        print('chatter')\n"
        "        return beside_the_metric.value\n"
        "limit = 3\n"
    )
    metric = parse_metric(f"{file}:Group.score")
    assert metric([], []) == 2.0
    assert capsys.readouterr().out == ""
    (tmp_path / "wrong.py").write_text("import no_such_module_anywhere\n")
    for text, message in (
        ("top3", "unknown metric"),
        ("f1", "unknown metric"),
        (f"{file}:", "names no function"),
        (f"{file}:nothing", "no 'nothing'"),
        (f"{file}:limit", "no function"),
        (f"{tmp_path / 'absent.py'}:f", "--metric"),
        (f"{tmp_path / 'wrong.py'}:f", "ModuleNotFoundError"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            parse_metric(text)
        assert caught.value.hint
