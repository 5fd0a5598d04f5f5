"""The last race of a search: a figure that noise made does not win."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from onnxqp.compress.candidates import Candidate
from onnxqp.compress.goal import Closeness, Goal, Measured
from onnxqp.compress.search import Search
from onnxqp.errors import UnsupportedError
from onnxqp.options import PruneOptions, QuantizeOptions


def candidate(name: str, speedup: float, *, pruned: bool, integers: int, agreement: float = 100.0) -> Candidate:
    measured = Measured(Closeness(200, agreement, 0.0, 1e-4), speedup, 4.0, 1000)
    stage = SimpleNamespace(records=[1] if pruned else [])
    made = SimpleNamespace(integers=integers, layers=integers)
    return Candidate(cast("Any", name), cast("Any", stage), measured, cast("Any", made))


def search(judged: list[Candidate], truth: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> Search:
    monkeypatch.setattr(sys.modules[Search.__module__], "Session", lambda model, threads: model)
    held = SimpleNamespace(measured=None, speedups=lambda models, effort: [truth[model] for model in models])
    nothing = cast("Any", None)
    options = PruneOptions(), QuantizeOptions()
    way = Search(cast("Any", held), Goal(min_agreement=99), nothing, *options, [], [], 4000, 1, nothing, nothing)
    way.judged = judged
    monkeypatch.setattr(way, "_pack", lambda: None)
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


def test_a_speed_that_is_asked_for_is_measured_with_care(monkeypatch: pytest.MonkeyPatch) -> None:
    """The most faithful looked fast enough in passing, and is not."""
    judged = [
        candidate("int8", 2.6, pruned=False, integers=9, agreement=100.0),
        candidate("pruned", 2.4, pruned=True, integers=9, agreement=98.0),
        candidate("slow", 1.2, pruned=False, integers=0, agreement=100.0),
    ]
    way = search(judged, {"int8": 2.3, "pruned": 2.55}, monkeypatch)
    way.goal = Goal(min_speedup=2.5)
    found = way._decide()
    assert cast("Any", found.candidate.model) == "pruned"


def test_weights_that_are_only_stored_as_integers_are_as_fast_as_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    at_rest = candidate("at rest", 0.93, pruned=False, integers=0)
    at_rest = replace(at_rest, measured=replace(at_rest.measured, bytes=500))
    floats = replace(at_rest, model=cast("Any", "float"), made=None, measured=replace(at_rest.measured, bytes=1000))
    way = search([floats, at_rest], {"float": 1.0, "at rest": 0.93}, monkeypatch)
    assert cast("Any", way._decide().candidate.model) == "at rest"


class Cuts:
    """Stands for pruning: refuses what the test says, and notes what was asked."""

    def __init__(self, way: Search, refuses: Callable[[PruneOptions], bool], monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[int | None, float]] = []
        self.warned: list[str] = []
        self.refuses = refuses
        way.pruner = cast("Any", SimpleNamespace(step=16, cut=self.cut, original=None))
        way.warn = self.warned.append
        monkeypatch.setattr(way, "_ends", lambda stage: False)

    def cut(self, stage: Any, options: PruneOptions) -> Any:
        assert options.macs_ratio is not None
        self.asked.append((options.round_to, options.macs_ratio))
        if self.refuses(options):
            raise UnsupportedError("it removes nothing")
        left = options.macs_ratio * Search._ratio(stage)
        return SimpleNamespace(model=None, records=[1], warnings=(), pruning=SimpleNamespace(macs_ratio=left))


@pytest.mark.parametrize(("widths", "blocks"), [([16, 64], True), ([16, 12], False)])
def test_wide_layers_are_cut_by_whole_blocks(widths: list[int], blocks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    way = search([], {}, monkeypatch)
    groups = [SimpleNamespace(before=width) for width in widths]
    made = SimpleNamespace(record=SimpleNamespace(groups=groups))
    monkeypatch.setattr(sys.modules[Search.__module__], "plan", lambda *_, **__: made)
    cuts = Cuts(way, lambda options: (options.macs_ratio or 0) > 0.8, monkeypatch)
    way._pruned(cast("Any", SimpleNamespace(model=None, records=[])))
    assert {round_to for round_to, _ in cuts.asked} == {16 if blocks else None}
    assert len(cuts.asked) > 1  # a first step that removes nothing does not end the way
    assert cuts.warned == []


def test_where_no_block_can_go_single_channels_do(monkeypatch: pytest.MonkeyPatch) -> None:
    way = search([], {}, monkeypatch)
    made = SimpleNamespace(record=SimpleNamespace(groups=[SimpleNamespace(before=24)]))
    monkeypatch.setattr(sys.modules[Search.__module__], "plan", lambda *_, **__: made)
    cuts = Cuts(way, lambda options: options.round_to == 16, monkeypatch)
    way._pruned(cast("Any", SimpleNamespace(model=None, records=[])))
    assert {round_to for round_to, _ in cuts.asked} == {16, None}
    assert cuts.warned == []
    cuts = Cuts(way, lambda options: True, monkeypatch)
    way._pruned(cast("Any", SimpleNamespace(model=None, records=[])))
    assert cuts.warned == ["nothing was pruned: it removes nothing"]


def test_a_cut_that_gets_no_finer_is_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    way = search([], {}, monkeypatch)
    Cuts(way, lambda options: False, monkeypatch)
    coarse = SimpleNamespace(model=None, records=[1], warnings=(), pruning=SimpleNamespace(macs_ratio=0.9))
    way.pruner = cast("Any", SimpleNamespace(step=16, cut=lambda stage, options: coarse, original=None))
    judged: list[Any] = []
    monkeypatch.setattr(way, "_ends", lambda stage: judged.append(stage) or True)
    way.pace.begin()
    way._halve(cast("Any", SimpleNamespace(model=None, records=[])), PruneOptions(), 1.0, 0.5)
    assert judged == [coarse]


class Results:
    """Stands for quantization: weights alone, as `quantize` would have it, beside int8 that is fast and less exact."""

    def __init__(self, way: Search, monkeypatch: pytest.MonkeyPatch, *, parts: list[tuple[int, bool]]) -> None:
        tried = [SimpleNamespace(integers=integers, kept=kept, speedup=1.1) for integers, kept in parts]
        trial = SimpleNamespace(placement=SimpleNamespace(speedup=1.0))
        part = SimpleNamespace(model="part", tried=tried, trial=trial)
        self.hopeless: list[bool] = []
        refused = SimpleNamespace(model="int8", trial=trial, within=lambda keeps: part)
        self.result = SimpleNamespace(model="at rest", trial=trial, warnings=(), refused=refused)
        self.known = {
            "at rest": candidate("at rest", 1.0, pruned=False, integers=0),
            "int8": candidate("int8", 1.4, pruned=False, integers=9, agreement=90.0),
            "part": candidate("part", 1.2, pruned=False, integers=4, agreement=99.9),
        }
        monkeypatch.setattr(sys.modules[Search.__module__], "quantize_model", self.quantize)
        monkeypatch.setattr(way, "_of", lambda stage, result, speedup: self.known[result.model])
        way.advance = lambda done, total: None

    def quantize(self, *_: object, hopeless: bool, **__: object) -> Any:
        self.hopeless.append(hopeless)
        return self.result


def test_what_quantize_refuses_is_returned_to_float_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    way = search([], {}, monkeypatch)
    results = Results(way, monkeypatch, parts=[(2, True), (4, True), (6, False)])
    stage = cast("Any", SimpleNamespace(model=None, records=[]))
    assert way._quantized(stage) is None
    assert [each.model for each in way.judged] == ["at rest", "int8", "part"]
    assert cast("Any", way._taken().model) == "part"
    way._quantized(stage)
    assert results.hopeless == [True, True]


def test_parts_that_leave_no_integers_are_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    way = search([], {}, monkeypatch)
    results = Results(way, monkeypatch, parts=[(0, True), (4, False)])
    stage = cast("Any", SimpleNamespace(model=None, records=[]))
    way._quantized(stage)
    assert [each.model for each in way.judged] == ["at rest", "int8"]
    way._quantized(stage)
    assert results.hopeless == [True, False]
    way.goal = Goal(min_speedup=2.0)
    way.partly = True
    way._quantized(stage)
    assert results.hopeless[-1] is False  # where accuracy is not bounded there is nothing to keep


@pytest.mark.parametrize(("measured", "taken"), [(1.04, 1.0), (1.3, 1.3)])
def test_what_normalising_gains_counts_where_it_is_beyond_noise(
    measured: float, taken: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_rest = candidate("at rest", 0.9, pruned=False, integers=0)
    floats = replace(at_rest, model=cast("Any", "float"), made=None)
    floats = replace(floats, measured=replace(floats.measured, speedup=measured))
    way = search([floats, replace(at_rest, stage=floats.stage)], {"float": measured, "at rest": 0.9}, monkeypatch)
    assert [each.measured.speedup for each in way._decide().judged] == [taken, taken]


@pytest.mark.parametrize(("decibels", "worth"), [(17.0, False), (26.0, True)])
def test_smaller_cuts_are_not_tried_where_none_can_be_quiet_enough(
    decibels: float, worth: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 85 % of the arithmetic; the smallest cut that halving would come to is to 96 %."""
    way = search([], {}, monkeypatch)
    way.goal = Goal(min_sqnr_db=25.0)
    Cuts(way, lambda options: False, monkeypatch)
    loud = candidate("cut", 1.1, pruned=True, integers=0)
    closeness = Closeness(29, None, None, 10 ** (-decibels / 10), cut=True)
    loud = replace(loud, measured=replace(loud.measured, closeness=closeness))
    monkeypatch.setattr(way, "_ends", lambda stage: way.judged.append(loud) or True)
    assert way._descend(cast("Any", SimpleNamespace(model=None, records=[])), PruneOptions())
    assert (len(way.judged) > 1) is worth
