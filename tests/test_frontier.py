"""Quantization within a budget: the report says which candidates were judged and which was taken."""

import numpy as np
import pytest
from quantize_graphs import Graph

from onnxqp import api, frontier
from onnxqp.evaluate.assessment import Assessment
from onnxqp.options import DataOptions, Gates, QuantizeOptions
from onnxqp.report.records import Fidelity

TABLE = QuantizeOptions(target="x64-vnni")


def classifier():
    graph = Graph((1, 32, 16, 16))
    x = graph.name
    for _ in range(4):
        x = graph.conv_relu(x, 32, 32)
    return graph, graph.model(graph.op("Flatten", graph.op("GlobalAveragePool", x)))


@pytest.fixture
def agreement(monkeypatch):
    """Agreement in percent as a function of the number of judged candidates; and how often one was asked for."""
    asked = []

    def answers(*values):
        def told(*_, **__):
            asked.append(values[min(len(asked), len(values) - 1)])
            return Assessment(None, Fidelity(8, asked[-1], 1.0, 1.0, 30.0, 0.1, {}))

        monkeypatch.setattr(frontier, "assessed", told)
        return asked

    return answers


def quantized(gates, **options):
    graph, model = classifier()
    return api.quantize(model, options=TABLE, data=graph.samples(24), gates=gates, **options).report


def test_a_budget_that_is_kept_costs_no_search(agreement):
    asked = agreement(100.0)
    report = quantized(Gates(min_agreement=50))
    assert report.frontier is None
    assert len(asked) == 1
    assert report.quantization.nodes_quantized >= 4


def test_without_a_budget_nothing_is_searched(agreement):
    asked = agreement(0.0)
    assert quantized(Gates()).frontier is None
    assert asked == []


def test_the_path_is_reported_and_one_point_is_chosen(agreement):
    asked = agreement(10.0, 100.0, 10.0)
    report = quantized(Gates(min_agreement=50))
    assert [point.agreement for point in report.frontier] == asked
    assert [point.chosen for point in report.frontier].count(True) == 1
    (chosen,) = (point for point in report.frontier if point.chosen)
    assert chosen.agreement == 100.0
    assert chosen.settings["nodes_on_integers"] == report.quantization.nodes_quantized
    assert chosen.settings["nodes_on_integers"] < report.frontier[0].settings["nodes_on_integers"]
    assert any("went back to float to keep the budget" in warning for warning in report.warnings)
    assert report.to_dict()["frontier"][0]["chosen"] is False


def test_a_budget_that_nothing_keeps_is_a_missed_gate(agreement):
    agreement(10.0)
    report = quantized(Gates(min_agreement=100.5))
    assert not report.passed
    assert [point.chosen for point in report.frontier].index(True) == 0
    assert any("none of" in warning for warning in report.warnings)


def test_the_gate_itself_is_judged_on_all_evaluation_inputs(tmp_path):
    graph, model = classifier()
    arrays = np.concatenate([feed["x"] for feed in graph.samples(40)])
    np.savez(tmp_path / "calib.npz", x=arrays[:30])
    data = DataOptions(data=str(tmp_path / "calib.npz"))
    report = api.quantize(model, options=TABLE, data=data, gates=Gates(min_agreement=90)).report
    (gate,) = report.gates
    assert gate.passed == (gate.value >= 90)
    assert gate.value == report.fidelity.top1_agreement
