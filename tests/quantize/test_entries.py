"""Layers by which values enter the integers return to float where nothing is lost by it."""

import pytest
from quantize_graphs import Graph

from onnxqp.options import QuantizeOptions
from onnxqp.quantize import quantize_model
from onnxqp.quantize.costs import Costs
from onnxqp.quantize.entries import REASON, with_later_entry
from onnxqp.quantize.quality import decibels

LAYERS = ("Conv0", "Conv2", "Conv4")
FAST, SLOW = 1000.0, 100_000.0


@pytest.fixture(scope="module")
def trial():
    graph = Graph((1, 64, 28, 28))
    x = graph.name
    for _ in LAYERS:
        x = graph.conv_relu(x, 64, 64)
    made = quantize_model(graph.model(x), graph.samples(), QuantizeOptions(target="x64-vnni")).trial
    assert made.placement.candidate.decision.names >= set(LAYERS)
    return made


def entered(trial, *, equally_fast=(), noise=1.0):
    """The candidate left when these layers take as long in float as on integers and all others a hundredth."""
    first = trial.placement
    units = [unit.node.name for unit in trial.material.annotation.units]
    as_integer = {name: SLOW if name in equally_fast else FAST for name in units}
    costs = Costs(first.costs.target, {}, dict.fromkeys(units, SLOW), as_integer, (0.0, 10.0))
    return with_later_entry(trial.material, costs, first.candidate, noise, sum(as_integer.values()), trial.probe)


def test_a_first_layer_that_saves_nothing_returns(trial):
    candidate, noise = entered(trial, equally_fast=["Conv0"])
    before = trial.placement.candidate
    assert {"Conv0"} <= before.decision.names - candidate.decision.names
    assert candidate.decision.names >= {"Conv2", "Conv4"}
    assert candidate.decision.reasons["Conv0"] == REASON
    assert noise == trial.probe.noise_of(candidate.model)
    assert noise < trial.probe.noise_of(before.model)


def test_layers_that_gain_stay(trial):
    assert entered(trial) == (trial.placement.candidate, 1.0)
    assert entered(trial, equally_fast=["Conv2", "Conv4"])[0] is trial.placement.candidate


def test_what_does_not_lessen_the_noise_stays(trial):
    least = trial.probe.noise_of(entered(trial, equally_fast=["Conv0"])[0].model)
    assert decibels(least) < trial.probe.enough_db + 15
    candidate, noise = entered(trial, equally_fast=["Conv0"], noise=1.1 * least)
    assert candidate is trial.placement.candidate
    assert noise == 1.1 * least


def test_a_quiet_candidate_is_left_alone(trial):
    assert entered(trial, equally_fast=["Conv0"], noise=1e-9)[0] is trial.placement.candidate


def test_the_last_layer_is_not_taken(trial):
    assert entered(trial, equally_fast=LAYERS)[0].integers > 0
