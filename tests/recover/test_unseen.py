"""Classes that samples do not show protect the channels that may serve them."""

from __future__ import annotations

import numpy as np
import pytest
from prune_checks import Build, Feed

from onnxqp.options import Selection
from onnxqp.prune.coupling import label_axes
from onnxqp.prune.groups import find_groups
from onnxqp.recover import scoring
from onnxqp.recover.scoring import score_channels
from onnxqp.recover.unseen import Kinds, classes_per_seen, kinds_of, protection
from onnxqp.runtime import Session


def classifier(build: Build) -> str:
    """Six channels, each the score of a class; then a constant layer that keeps them."""
    hidden = build.op("Relu", build.conv(build.input(1, 6, 2, 2), 6, 6, 1))
    hidden = build.op("Relu", build.conv(hidden, 6, 8, 1))
    pooled = build.op("Flatten", build.op("GlobalAveragePool", hidden))
    return build.op("Gemm", pooled, build.weight(8, 6))


def feeds(build: Build, count: int = 40) -> list[Feed]:
    random = np.random.default_rng(0)
    (name,) = build.feed
    return [{name: random.normal(size=(1, 6, 2, 2)).astype(np.float32)} for _ in range(count)]


def test_classes_are_counted_as_the_model_finds_them() -> None:
    build = Build()
    model = build.model(classifier(build))
    given = feeds(build)
    each = tuple(int(np.argmax(next(iter(Session(model).run(feed).values())))) for feed in given)
    found = set(each)
    assert kinds_of(model, given) == Kinds(each, frozenset(found), 6)
    assert classes_per_seen(model, given) == pytest.approx(6 / len(found))
    assert classes_per_seen(model, given[:1]) == 6


def test_outputs_that_are_no_scores_say_nothing() -> None:
    build = Build()
    model = build.model(build.conv(build.op("Relu", build.conv(build.input(1, 6, 2, 2), 6, 6, 1)), 6, 4, 1))
    assert classes_per_seen(model, feeds(build, 4)) == 1.0


def test_embeddings_of_length_one_are_no_scores() -> None:
    build = Build()
    scores = classifier(build)
    length = build.op("ReduceL2", scores, axes=[1], keepdims=1)
    model = build.model(build.op("Div", scores, length))
    assert classes_per_seen(model, feeds(build, 4)) == 1.0


def test_protection_grows_towards_the_last_layer() -> None:
    assert protection(20.0, 0.0) == 1.0
    assert protection(20.0, 1.0) == pytest.approx(20.0**0.5)
    assert 1 < protection(20.0, 0.3) < protection(20.0, 0.8) < 20**0.5
    assert protection(1.0, 0.7) == 1.0


def test_late_channels_are_dearer_where_classes_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    build = Build()
    model = build.model(classifier(build))
    labels = label_axes(model.graph)
    grouping = find_groups(model.graph, labels, Selection())
    scores = {}
    for rarity in (1.0, 10.0):
        monkeypatch.setattr(scoring, "classes_per_seen", lambda model, feeds, rarity=rarity: rarity)
        scores[rarity] = score_channels(model, labels, grouping, feeds(build))
    early, late = (group.classes for group in grouping.groups)
    assert scores[10.0][late] == pytest.approx(10**0.5 * scores[1.0][late])
    assert scores[10.0][early] == pytest.approx(scores[1.0][early])  # the first that read channels
