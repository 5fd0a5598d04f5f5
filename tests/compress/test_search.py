"""The last race of a search: a figure that noise made does not win."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest

from onnxqp.compress.candidates import Candidate
from onnxqp.compress.goal import Closeness, Goal, Measured
from onnxqp.compress.search import Search
from onnxqp.options import PruneOptions, QuantizeOptions


def candidate(name: str, speedup: float, *, pruned: bool, integers: int, agreement: float = 100.0) -> Candidate:
    measured = Measured(Closeness(200, agreement, 0.0, 1e-4), speedup, 4.0, 1000)
    stage = SimpleNamespace(records=[1] if pruned else [])
    return Candidate(cast("Any", name), cast("Any", stage), measured, integers)


def search(judged: list[Candidate], truth: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> Search:
    monkeypatch.setattr(sys.modules[Search.__module__], "Session", lambda model, threads: model)
    held = SimpleNamespace(speedups=lambda models, effort: [truth[model] for model in models])
    nothing = cast("Any", None)
    options = PruneOptions(), QuantizeOptions()
    way = Search(cast("Any", held), Goal(min_agreement=99), nothing, *options, [], [], 4000, 1, nothing, nothing)
    way.judged = judged
    return way


def test_a_figure_of_noise_does_not_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four pruned candidates looked faster than the model that is only quantized; timed together they are not."""
    judged = [candidate(f"p{i}", 12.0 + i, pruned=True, integers=5) for i in range(4)]
    judged += [candidate("int8", 1.2, pruned=False, integers=9), candidate("float", 1.1, pruned=True, integers=0)]
    truth = {f"p{i}": 1.5 for i in range(4)} | {"int8": 2.5, "float": 1.3}
    found = search(judged, truth, monkeypatch)._decide()
    assert cast("Any", found.candidate.model) == "int8"
    assert [each.measured.speedup for each in found.judged] == [1.5] * 4 + [2.5, 1.3]


def test_what_loses_too_much_is_not_timed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = [
        candidate("bad", 9.0, pruned=True, integers=5, agreement=80.0),
        candidate("int8", 2.0, pruned=False, integers=9),
        candidate("pruned", 1.9, pruned=True, integers=9),
    ]
    found = search(judged, {"int8": 2.0, "pruned": 2.6}, monkeypatch)._decide()
    assert cast("Any", found.candidate.model) == "pruned"


def test_where_nothing_is_accurate_enough_noise_does_not_win_either(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = [
        candidate("float", 7.8, pruned=True, integers=0, agreement=86.0),
        candidate("int8", 3.5, pruned=True, integers=9, agreement=86.0),
    ]
    found = search(judged, {"float": 1.4, "int8": 3.4}, monkeypatch)._decide()
    assert cast("Any", found.candidate.model) == "int8"
