"""Gates, each way."""

from __future__ import annotations

import pytest

from onnxqp.errors import UsageError
from onnxqp.evaluate.gates import check, require
from onnxqp.options import Gates
from onnxqp.report.records import Accuracy, Fidelity, Latency, LatencyStats, Size

ACCURACY = Accuracy("top1", 1000, 90.0, 89.5, 0.5, (0.1, 0.9), 12)
FIDELITY = Fidelity(1000, 98.5, 0.99, 0.999, 30.0, 0.1, {})
CLASSLESS = Fidelity(1000, None, 0.99, 0.999, 30.0, 0.1, {})
STATS = LatencyStats(1, 1, 1, 1, 0.01, 50)
SIZE = Size(4_000_000, 1_000_000, 4.0)


def latency(speedup, noise):
    return Latency(STATS, STATS, speedup, (speedup, speedup), noise, 1, 1)


def judged(gates, *, accuracy=ACCURACY, fidelity=FIDELITY, timing=None, size=SIZE):
    return check(gates, accuracy=accuracy, fidelity=fidelity, latency=timing or latency(1.5, 0.02), size=size)


@pytest.mark.parametrize(
    ("gates", "name", "value", "passed"),
    [
        (Gates(max_drop=0.5), "max-drop", 0.5, True),
        (Gates(max_drop=0.4), "max-drop", 0.5, False),
        (Gates(min_agreement=98.5), "min-agreement", 98.5, True),
        (Gates(min_agreement=99), "min-agreement", 98.5, False),
        (Gates(min_speedup=1.5), "min-speedup", 1.5, True),
        (Gates(min_speedup=1.6), "min-speedup", 1.5, False),
        (Gates(max_size=1_000_000), "max-size", 1_000_000, True),
        (Gates(max_size=999_999), "max-size", 1_000_000, False),
        (Gates(min_size_ratio=4), "min-size-ratio", 4, True),
        (Gates(min_size_ratio=4.1), "min-size-ratio", 4, False),
    ],
)
def test_each_gate_both_ways(gates, name, value, passed):
    (found,) = judged(gates)
    assert (found.name, found.value, found.passed) == (name, value, passed)
    limits = (gates.max_drop, gates.min_agreement, gates.min_speedup, gates.max_size, gates.min_size_ratio)
    assert found.limit in limits


def test_no_gate_asked_for():
    assert check(Gates(), accuracy=None, fidelity=None, latency=None, size=None) == []


def test_all_gates_in_the_order_of_the_options():
    names = [gate.name for gate in judged(Gates(1, 90, 1, 10**9, 1))]
    assert names == ["max-drop", "min-agreement", "min-speedup", "max-size", "min-size-ratio"]


def test_a_limit_of_zero_is_a_limit():
    (gate,) = judged(Gates(max_drop=0.0))
    assert not gate.passed


def test_a_drop_met_but_for_rounding_is_met():
    three_of_1000 = Accuracy("top1", 1000, 90.0, 89.7, 0.1 + 0.2, (0, 1), 3)
    assert three_of_1000.drop > 0.3
    assert judged(Gates(max_drop=0.3), accuracy=three_of_1000)[0].passed


def test_a_gain_passes_every_drop():
    better = Accuracy("top1", 1000, 90.0, 91.0, -1.0, (-2, 0), 3)
    assert judged(Gates(max_drop=0.0), accuracy=better)[0].passed
    assert not judged(Gates(max_drop=-2.0), accuracy=better)[0].passed


@pytest.mark.parametrize(("noise", "passed"), [(0.02, True), (0.005, False), (0.0, False)])
def test_a_speedup_fails_only_outside_the_noise(noise, passed):
    (gate,) = judged(Gates(min_speedup=1.0), timing=latency(0.99, noise))
    assert gate.value == 0.99
    assert gate.passed is passed


@pytest.mark.parametrize(
    ("gates", "absent", "hint"),
    [
        (Gates(max_drop=1), {"accuracy": None}, "--eval"),
        (Gates(min_agreement=1), {"fidelity": None}, "--output-name"),
        (Gates(min_agreement=1), {"fidelity": CLASSLESS}, "--output-name"),
        (Gates(min_speedup=1), {"latency": None}, "--no-validate"),
        (Gates(max_size=1), {"size": None}, "--dry-run"),
        (Gates(min_size_ratio=1), {"size": None}, "--dry-run"),
    ],
)
def test_a_gate_without_its_measurement(gates, absent, hint):
    given = {"accuracy": ACCURACY, "fidelity": FIDELITY, "latency": latency(1, 0), "size": SIZE} | absent
    with pytest.raises(UsageError) as caught:
        check(gates, **given)
    assert hint in caught.value.hint
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("gates", "facts", "hint"),
    [
        (Gates(max_drop=1), {"labelled": False}, "--eval"),
        (Gates(max_drop=1), {"measured": False}, "--no-validate"),
        (Gates(min_agreement=1), {"class_output": False}, "--output-name"),
        (Gates(min_agreement=1), {"measured": False}, "--no-validate"),
        (Gates(min_speedup=1), {"measured": False}, "--no-validate"),
        (Gates(), {}, None),
        (Gates(1, 1, 1, 1, 1), {}, None),
        (Gates(min_agreement=1), {"class_output": None, "labelled": False}, None),
        (Gates(max_size=1, min_size_ratio=1), {"measured": False, "labelled": False, "class_output": False}, None),
    ],
)
def test_refusals_before_the_work(gates, facts, hint):
    facts = {"labelled": True, "class_output": True, "measured": True} | facts
    if hint is None:
        require(gates, **facts)
        return
    with pytest.raises(UsageError) as caught:
        require(gates, **facts)
    assert hint in caught.value.hint
