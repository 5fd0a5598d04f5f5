"""Recurrent states that a caller keeps: units go, the signature stays, and streaming goes on."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from prune_checks import Build, pinned

from onnxqp.options import PruneOptions
from onnxqp.prune import PruneResult, prune_model
from onnxqp.runtime import Session

GATES = {"LSTM": 4, "GRU": 3}
HIDDEN = 8


def layer(b: Build, kind: str, x: str, entering: int, *states: str) -> list[str]:
    """Y, Y_h (and Y_c) of a layer that begins with states."""
    gates = GATES[kind]
    weights = [b.weight(1, gates * HIDDEN, size) for size in (entering, HIDDEN)]
    made: list[str] = b.op(
        kind, x, *weights, b.weight(1, 2 * gates * HIDDEN), "", *states, count=1 + len(states), hidden_size=HIDDEN
    )
    return made


def cut(b: Build, *outputs: str) -> PruneResult:
    result = prune_model(b.model(*outputs), [b.feed], PruneOptions(ratio=0.5, round_to=1), step=1)
    assert result.pruning.proof is not None
    assert result.pruning.proof.checked
    assert (result.pruning.proof.max_abs_diff or 0.0) < 1e-5
    return result


def shapes(model: ir.Model) -> dict[str, tuple[int, ...]]:
    return {str(v.name): tuple(v.shape or ()) for v in (*model.graph.inputs, *model.graph.outputs)}  # type: ignore[misc]


@pytest.mark.parametrize("kind", sorted(GATES))
def test_hidden_units_go_and_the_signature_stays(kind: str) -> None:
    b = Build()
    x = b.input(5, 2, 6, symbolic={0: "T", 1: "N"})
    names = ["hidden", "cell"][: GATES[kind] - 2] if kind == "LSTM" else ["hidden"]
    states = [b.input(1, 2, HIDDEN, name=name, symbolic={1: "N"}) for name in names]
    y, *last = layer(b, kind, x, 6, *states)
    out = b.linear(b.op("Squeeze", y, b.const([1])), HIDDEN, 4)
    before = b.model(out, *last)
    result = cut(b, out, *last)
    assert [(group.before, group.after) for group in result.pruning.groups] == [(HIDDEN, HIDDEN // 2)]
    assert {k: s[2:] for k, s in shapes(result.model).items()} == {k: s[2:] for k, s in shapes(before).items()}
    found = Session(result.model).run(b.feed)
    assert found[last[0]].shape == (1, 2, HIDDEN)
    assert (found[last[0]] == 0).all(axis=(0, 1)).sum() == HIDDEN // 2


def test_states_of_two_layers_in_one_tensor() -> None:
    """As DTLN keeps them: layers, units and the two states of an LSTM on axes of their own."""
    b = Build()
    x, state = b.input(1, 1, 6), b.input(1, 2, HIDDEN, 2, name="state")

    def part(of_layer: int, which: int) -> str:
        bounds = [[0, of_layer, 0, which], [1, of_layer + 1, HIDDEN, which + 1], [0, 1, 2, 3]]
        one = b.op("Slice", state, *(b.const(bound) for bound in bounds))
        return str(b.op("Unsqueeze", b.op("Squeeze", one, b.const([1, 3])), b.const([0])))

    pairs, entering = [], 6
    for number in range(2):
        y, *last = layer(b, "LSTM", x, entering, part(number, 0), part(number, 1))
        x, entering = b.op("Squeeze", y, b.const([1])), HIDDEN
        both = [b.op("Unsqueeze", b.op("Squeeze", each, b.const([0])), b.const([1, 3])) for each in last]
        pairs.append(b.op("Concat", *both, axis=3))
    out = b.linear(x, HIDDEN, 4)
    result = cut(b, out, b.op("Concat", *pairs, axis=1))
    assert [(group.before, group.after) for group in result.pruning.groups] == [(HIDDEN, HIDDEN // 2)]


def test_streaming_goes_on_step_by_step() -> None:
    """Fed back step after step, the state gives what the whole sequence gives at once."""
    b = Build()
    x, state = b.input(5, 1, 6, symbolic={0: "T"}), b.input(1, 1, HIDDEN, name="state")
    y, last = layer(b, "GRU", x, 6, state)
    out = b.linear(b.op("Squeeze", y, b.const([1])), HIDDEN, 4)
    session = Session(cut(b, out, last).model)
    whole = session.run({"x": b.feed["x"], "state": np.zeros((1, 1, HIDDEN), np.float32)})[out]
    kept, parts = np.zeros((1, 1, HIDDEN), np.float32), []
    for step in b.feed["x"]:
        found = session.run({"x": step[None], "state": kept})
        kept = found[last]
        parts.append(found[out])
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)


def test_a_state_that_something_else_reads_is_left_alone() -> None:
    b = Build()
    x, state = b.input(5, 2, 6), b.input(1, 2, HIDDEN, name="state")
    y, last = layer(b, "GRU", x, 6, state)
    out = b.linear(b.op("Squeeze", y, b.const([1])), HIDDEN, 4)
    reasons = pinned(b, out, last, b.op("Relu", state))
    assert "graph input 'state'" in reasons["GRU0"]


def test_a_state_that_goes_out_at_another_place_is_left_alone() -> None:
    b = Build()
    x, state = b.input(5, 2, 6), b.input(1, 2, HIDDEN, name="state")
    y, last = layer(b, "GRU", x, 6, state)
    turned = b.op("Gather", last, b.const([*range(1, HIDDEN), 0]), axis=2)
    out = b.linear(b.op("Squeeze", y, b.const([1])), HIDDEN, 4)
    assert "graph input 'state'" in pinned(b, out, turned)["GRU0"]


def test_an_image_that_comes_back_changed_is_no_state() -> None:
    b = Build()
    x = b.input(2, 8, 4, 4)
    y = b.op("Add", x, b.conv(b.op("Relu", b.conv(x, 8, 6)), 6, 8))
    assert "graph" in pinned(b, y)["Conv2"]
