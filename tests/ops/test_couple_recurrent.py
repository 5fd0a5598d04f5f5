"""LSTM, GRU and RNN: hidden units go in all gates and both directions, input features with what makes them."""

from __future__ import annotations

import numpy as np
import pytest
from prune_checks import Build, pinned, prunes

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
KINDS = pytest.mark.parametrize("kind", sorted(GATES))
INPUT, HIDDEN = 6, 8


def recurrent(
    b: Build, x: str, kind: str, *, entering: int = INPUT, hidden: int = HIDDEN, directions: int = 1, **more: object
) -> list[str]:
    """Y, Y_h (and Y_c) of a layer; `more` are operands by place or attributes."""
    gates = GATES[kind]
    operands = [x, b.weight(directions, gates * hidden, entering), b.weight(directions, gates * hidden, hidden)]
    operands.append(b.weight(directions, 2 * gates * hidden))
    extra = {int(key[1:]): value for key, value in more.items() if key.startswith("_")}
    attributes = {key: value for key, value in more.items() if not key.startswith("_")}
    operands += [str(extra.get(place, "")) for place in range(4, max(extra, default=3) + 1)]
    if directions == 2:
        attributes["direction"] = "bidirectional"
    made: list[str] = b.op(kind, *operands, count=3 if kind == "LSTM" else 2, hidden_size=hidden, **attributes)
    return made


def sequence(b: Build) -> str:
    return b.input(5, 2, INPUT, symbolic={0: "T", 1: "N"})


def head(b: Build, y: str, features: int = HIDDEN) -> str:
    """[T, 1, N, H] to [T, N, 4]."""
    return b.linear(b.op("Squeeze", y, b.const([1])), features, 4)


@KINDS
def test_hidden_units_of_one_layer(kind: str) -> None:
    b = Build()
    y, *_ = recurrent(b, sequence(b), kind)
    prunes(b, head(b, y), groups=[HIDDEN])


@KINDS
def test_the_last_state_alone_is_read(kind: str) -> None:
    b = Build()
    _, last, *_ = recurrent(b, sequence(b), kind)
    prunes(b, b.linear(b.op("Squeeze", last, b.const([0])), HIDDEN, 3), groups=[HIDDEN])


@KINDS
def test_both_directions_keep_the_same_number(kind: str) -> None:
    b = Build()
    y, *_ = recurrent(b, sequence(b), kind, directions=2)
    flat = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.const([0, 0, 2 * HIDDEN]))
    result = prunes(b, b.linear(flat, 2 * HIDDEN, 4), groups=[2 * HIDDEN])
    (node,) = (node for node in result.model.graph if node.op_type == kind)
    assert node.attributes["hidden_size"].as_int() == HIDDEN // 2


@KINDS
def test_input_features_go_with_the_layer_before(kind: str) -> None:
    b = Build()
    x = b.op("Relu", b.linear(sequence(b), INPUT, 10))
    y, *_ = recurrent(b, x, kind, entering=10)
    prunes(b, head(b, y), groups=[10, HIDDEN])


@KINDS
def test_stacked_layers(kind: str) -> None:
    b = Build()
    first, *_ = recurrent(b, sequence(b), kind)
    second, *_ = recurrent(b, b.op("Squeeze", first, b.const([1])), kind, entering=HIDDEN, hidden=12)
    prunes(b, head(b, second, 12), groups=[HIDDEN, 12])


def test_constant_states_and_peepholes_are_cut_too() -> None:
    b = Build()
    states = {"_5": b.weight(1, 2, HIDDEN), "_6": b.weight(1, 2, HIDDEN), "_7": b.weight(1, 3 * HIDDEN)}
    y, *_ = recurrent(b, b.input(5, 2, INPUT), "LSTM", **states)
    prunes(b, head(b, y), groups=[HIDDEN])


def test_a_state_handed_from_one_layer_to_the_next_ties_them() -> None:
    b = Build()
    x = sequence(b)
    _, last, cell = recurrent(b, x, "LSTM")
    y, *_ = recurrent(b, x, "LSTM", _5=last, _6=cell)
    prunes(b, head(b, y), groups=[HIDDEN])


def test_gru_that_resets_after_the_product() -> None:
    b = Build()
    y, *_ = recurrent(b, sequence(b), "GRU", linear_before_reset=1)
    prunes(b, head(b, y), groups=[HIDDEN])


def test_reversed_with_other_activations() -> None:
    b = Build()
    y, *_ = recurrent(b, sequence(b), "RNN", direction="reverse", activations=["Relu"])
    prunes(b, head(b, y), groups=[HIDDEN])


def test_states_that_come_in_or_go_out_keep_their_size() -> None:
    b = Build()
    state = b.input(1, 2, HIDDEN, name="state")
    y, last = recurrent(b, sequence(b), "GRU", _5=state)
    reasons = pinned(b, head(b, y), last)
    assert any("state" in reason or "graph output" in reason for reason in reasons.values())


def test_a_weight_that_two_layers_share_is_left_alone() -> None:
    b = Build()
    x = b.input(5, 2, HIDDEN)
    weight, recurrence = b.weight(1, HIDDEN, HIDDEN), b.weight(1, HIDDEN, HIDDEN)
    first, _ = b.op("RNN", x, weight, recurrence, count=2, hidden_size=HIDDEN)
    second, _ = b.op("RNN", b.op("Squeeze", first, b.const([1])), weight, recurrence, count=2, hidden_size=HIDDEN)
    assert any("shared" in reason for reason in pinned(b, head(b, second)).values())


def test_a_computed_recurrence_is_left_alone() -> None:
    b = Build()
    recurrence = b.op("Mul", b.weight(1, HIDDEN, HIDDEN), b.input(1, name="factor"))
    x = b.linear(sequence(b), INPUT, INPUT)
    y, _ = b.op("RNN", x, b.weight(1, HIDDEN, INPUT), recurrence, count=2, hidden_size=HIDDEN)
    assert any("computed weights" in reason for reason in pinned(b, head(b, y)).values())


def test_macs_fall_with_both_the_rows_and_the_columns() -> None:
    b = Build()
    y, *_ = recurrent(b, sequence(b), "LSTM", hidden=16)
    result = prunes(b, head(b, y, 16), groups=[16])
    before = 4 * 16 * (INPUT + 16) + 16 * 4
    after = 4 * 8 * (INPUT + 8) + 8 * 4
    assert result.pruning.macs_ratio is not None
    np.testing.assert_allclose(result.pruning.macs_ratio, after / before, rtol=0.05)


def test_a_state_that_one_number_fills_is_cut_too() -> None:
    b = Build()
    x = b.op("Relu", b.linear(sequence(b), INPUT, 10))
    batch = b.op("Slice", b.op("Shape", x), b.const([1]), b.const([2]))
    shape = b.op("Concat", b.const([1]), batch, b.const([HIDDEN]), axis=0)
    state = b.op("Expand", b.const(0.5, np.float32), shape)
    y, *_ = recurrent(b, x, "GRU", entering=10, _5=state)
    prunes(b, head(b, y), groups=[10, HIDDEN])
