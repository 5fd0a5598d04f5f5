"""How many weights go into four bits: as many as accuracy pays for, and no fewer than bytes ask for."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest

from onnxqp.compress.goal import Closeness, Goal, Measured
from onnxqp.compress.packed import Order
from onnxqp.compress.search import Search
from onnxqp.options import PruneOptions, QuantizeOptions

WEIGHTS = 20


def order(monkeypatch: pytest.MonkeyPatch) -> Order:
    """Twenty weights; a model is how many of them are packed. Each saves 40 of 1000 bytes."""
    monkeypatch.setattr(sys.modules[Order.__module__], "to_bytes", lambda count: bytes(1000 - 40 * count))
    packing = SimpleNamespace(build=lambda names: len(names))
    return Order(cast("Any", packing), tuple(map(str, range(WEIGHTS))))


@pytest.mark.parametrize("most", [0, 1, 7, 19, 20])
def test_the_most_that_keep_a_budget_are_found(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def keeps(count: Any) -> bool:
        asked.append(count)
        return bool(count <= most)

    assert order(monkeypatch).most(keeps) == most
    assert len(asked) <= 6


@pytest.mark.parametrize(
    ("limit", "count"), [(1200, 0), (1000, 0), (999, 1), (960, 1), (900, 3), (200, 20), (199, None)]
)
def test_the_fewest_that_get_below_a_size_are_found(
    limit: int, count: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert order(monkeypatch).enough(limit) == count


@pytest.mark.parametrize(
    ("limit", "count"),
    [
        (None, 8),  # half of what is left of 2 points is for bytes nobody asked for
        (800, 8),
        (400, 15),  # all of it for those that are asked for
        (300, 0),  # and where that is not enough, nothing
        (100, 0),
    ],
)
def test_accuracy_pays_for_bytes(limit: int | None, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every weight costs a tenth of a point more than the 0.4 that are lost before."""
    nothing = cast("Any", None)
    options = PruneOptions(), QuantizeOptions()
    way = Search(nothing, Goal(max_drop=2.0), nothing, *options, [], [], 4000, 1, nothing, nothing)
    monkeypatch.setattr(way, "_closeness", lambda stage, packed: lost(0.4 + 0.0999 * packed))
    base = SimpleNamespace(stage=None, measured=Measured(lost(0.4), 3.0, 4.0, 1000))
    assert way._how_many(order(monkeypatch), cast("Any", base), limit) == count


def test_without_a_bound_of_accuracy_only_bytes_count(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = cast("Any", None)
    options = PruneOptions(), QuantizeOptions()
    way = Search(nothing, Goal(min_size_ratio=8.0), nothing, *options, [], [], 4000, 1, nothing, nothing)
    base = SimpleNamespace(stage=None, measured=Measured(lost(0.4), 3.0, 4.0, 1000))
    assert way._how_many(order(monkeypatch), cast("Any", base), 500) == 13
    assert way._how_many(order(monkeypatch), cast("Any", base), 100) == 0


def lost(points: float) -> Closeness:
    return Closeness(1000, 99.0, points, 1e-3, drop_error=0.0)
