"""Recurrent layers behind a cut: what they make of their inputs is refitted, in each direction."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from prune_checks import Build
from test_reconstruct import cut_and_recover, distance, planned, samples

from onnxqp.graph import constant

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def behind_a_product(build: Build, op_type: str, directions: int, bias: bool) -> ir.Model:
    """(steps, batch, 6) through a hidden layer of 12 units into a recurrent layer of 5."""
    rows = GATES[op_type] * 5
    hidden = build.op("Relu", build.linear(build.input(7, 1, 6), 6, 12))
    inputs = [hidden, build.weight(directions, rows, 12), build.weight(directions, rows, 5)]
    if bias:
        inputs.append(build.weight(directions, 2 * rows))
    direction = "bidirectional" if directions == 2 else "forward"
    return build.model(build.op(op_type, *inputs, hidden_size=5, direction=direction))


@pytest.mark.parametrize("op_type", GATES)
@pytest.mark.parametrize(("directions", "bias"), [(1, True), (2, False)])
def test_a_recurrent_layer_behind_a_cut_is_refitted(op_type: str, directions: int, bias: bool) -> None:
    build = Build()
    model = behind_a_product(build, op_type, directions, bias)
    made, feeds = planned(model, 0.4), samples(build, 60)
    pruned, found = cut_and_recover(model, made, feeds)
    unseen = samples(build, 120)[60:]
    assert found.recovery.consumers >= 1
    assert distance(model, found.model, unseen) < 0.8 * distance(model, pruned, unseen)
    node, before = found.model.graph[-1], pruned.graph[-1]
    if bias:  # the half that goes with the states stays
        one, other = constant(node.inputs[3]), constant(before.inputs[3])
        assert one is not None
        assert other is not None
        half = one.shape[1] // 2
        np.testing.assert_array_equal(one[:, half:], other[:, half:])
        assert np.abs(one[:, :half] - other[:, :half]).max() > 1e-4


def test_a_recurrent_layer_with_fewer_rows_than_inputs_stays_as_it_was_cut() -> None:
    build = Build()
    hidden = build.op("Relu", build.linear(build.input(1, 1, 6), 6, 60))
    outputs = build.op("LSTM", hidden, build.weight(1, 20, 60), build.weight(1, 20, 5), hidden_size=5)
    model = build.model(outputs)
    pruned, found = cut_and_recover(model, planned(model, 0.4), samples(build, 20))
    weights = [constant(each.graph[-1].inputs[1]) for each in (pruned, found.model)]
    np.testing.assert_array_equal(*weights)
    assert any("36 inputs" in reason for reason in found.left)
