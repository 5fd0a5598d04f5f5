"""Placement by the clock: what is timed, what wins, what the reasons say, and how a budget is kept."""

import math

import numpy as np
import pytest
from quantize_graphs import Graph, kernels, sqnr_db

from onnxqp.options import QuantizeOptions, Selection
from onnxqp.quantize import outlook, preparation, quantize_model
from onnxqp.quantize.budget import REASON, keep
from onnxqp.quantize.costs import Costs
from onnxqp.quantize.decide import Decision, decide, everything, predicted_ns
from onnxqp.quantize.passes import prepared
from onnxqp.quantize.placement import Placement, Trial
from onnxqp.quantize.profile import measure_costs
from onnxqp.quantize.quality import ENOUGH_DB, ENOUGH_FOR_IMAGES_DB, Probe, decibels
from onnxqp.quantize.returning import by_rank, sensitivities, without
from onnxqp.runtime import Session

TABLE = QuantizeOptions(target="x64-vnni")
HERE = QuantizeOptions(target="auto")


def network(depth=6, seed=0):
    graph = Graph((1, 32, 24, 24), seed=seed)
    x = graph.name
    for _ in range(depth):
        x = graph.conv_relu(x, 32, 32)
    x = graph.op("Flatten", graph.op("GlobalAveragePool", x))
    return graph, graph.model(graph.op("Gemm", x, graph.matrix(32, 10), graph.constant(np.ones(10, np.float32))))


def perceptron(seed=0):
    graph = Graph((16, 64), seed=seed)
    x = graph.name
    for _ in range(3):
        x = graph.op("Tanh", graph.op("MatMul", x, graph.matrix(64, 64)))
    return graph, graph.model(x)


@pytest.fixture(scope="module")
def trial():
    graph, model = network()
    return quantize_model(model, graph.samples(), TABLE).trial


@pytest.fixture
def clock(monkeypatch):
    """Seconds of the sessions in a race, in order: float first. The last number stands for all that follow."""

    def set_to(*seconds):
        def told(sessions, probe, effort):
            return [seconds[min(index, len(seconds) - 1)] for index in range(len(sessions))]

        monkeypatch.setattr(outlook, "_seconds", told)

    return set_to


# ---- profiles


def test_a_profile_times_every_unit_in_both_forms(trial):
    table = trial.placement.costs
    full = everything(trial.material.annotation, table)
    whole = trial.material.build(full)
    costs = measure_costs(trial.material, table, whole, trial.probe, threads=1)
    heavy = [unit for unit in full.integer if unit.node.op_type == "Conv"]
    assert len(heavy) == 6
    for unit in heavy:
        assert costs.as_float[unit.node.name] > 0
        assert costs.as_integer[unit.node.name] > 0
        assert costs.of(unit) == (costs.as_float[unit.node.name], costs.as_integer[unit.node.name])
    assert costs.source == "as measured here"
    per_element, per_node = costs.measured_border
    assert table.target.border_ns / 2 <= per_element <= table.target.border_ns * 2
    assert per_node >= 0


def test_a_clock_and_a_table_do_not_mix(trial):
    unit = trial.material.annotation.units[0]
    half = Costs(trial.material.target, as_float={unit.node.name: 5.0})
    assert half.of(unit) == Costs(trial.material.target).of(unit)


def test_the_prediction_prices_units_and_borders(trial):
    table, annotation = trial.placement.costs, trial.material.annotation
    everything_ns = predicted_ns(annotation, everything(annotation, table), table)
    chosen_ns = predicted_ns(annotation, decide(annotation, table), table)
    float_ns = predicted_ns(annotation, Decision((), {}), table)
    assert chosen_ns <= everything_ns * 1.05
    assert chosen_ns < float_ns
    assert float_ns == sum(table.of(unit)[0] for unit in annotation.units)


# ---- the race


def test_int8_that_is_not_faster_loses_and_says_so(clock):
    clock(1.0, 1.1)
    graph, model = network()
    result = quantize_model(model, graph.samples(), HERE)
    assert result.quantization.nodes_quantized == 0
    assert result.quantization.weights_at_rest > 0
    assert "QLinearConv" not in kernels(result.model)
    assert any("0.91 times as fast as in float" in note.reason for note in result.quantization.left_float)


def test_int8_within_the_noise_of_the_clock_loses(clock):
    clock(1.0, 0.995)
    graph, model = network()
    assert quantize_model(model, graph.samples(), HERE).quantization.nodes_quantized == 0


def test_int8_that_is_faster_wins(clock):
    clock(1.0, 0.4)
    graph, model = network()
    result = quantize_model(model, graph.samples(), HERE)
    assert result.quantization.nodes_fused == result.quantization.nodes_quantized >= 6
    assert result.trial.placement.speedup == pytest.approx(2.5)


def test_speed_that_ruins_the_outputs_is_not_bought(clock, monkeypatch):
    clock(1.0, 0.8)
    monkeypatch.setattr(Probe, "compare", lambda self, session: 0.5 if _integers(session) else 1e-6)
    graph, model = network()
    result = quantize_model(model, graph.samples(), HERE)
    assert result.quantization.nodes_quantized == 0
    assert any("dB of signal to noise" in note.reason for note in result.quantization.left_float)
    assert result.refused is None
    asked = quantize_model(model, graph.samples(), HERE, hopeless=True)
    assert asked.quantization.nodes_quantized == 0
    assert asked.refused is not None
    assert asked.refused.candidate.integers >= 6
    assert asked.refused.quantization.nodes_fused >= 6
    part = asked.refused.within(lambda built: sum(node.op_type == "QuantizeLinear" for node in built.graph) <= 4)
    assert 0 < part.candidate.integers < asked.refused.candidate.integers


def _integers(session):
    return session.integer_kernels


@pytest.fixture(autouse=True)
def _mark_integer_sessions(monkeypatch):
    """Sessions of models with QuantizeLinear or MatMulInteger know that they are."""
    real = Session.__init__

    def init(self, source, **keywords):
        real(self, source, **keywords)
        nodes = getattr(getattr(source, "graph", None), "__iter__", lambda: iter(()))()
        self.integer_kernels = any(node.op_type in ("QuantizeLinear", "MatMulInteger") for node in nodes)

    monkeypatch.setattr(Session, "__init__", init)


def test_products_may_quantize_their_input_at_run(clock):
    graph, model = perceptron()
    clock(1.0, 0.9, 0.9, 0.9)

    def dynamic_wins(sessions, probe, effort):
        return [0.3 if index == len(sessions) - 1 else 1.0 for index in range(len(sessions))]

    outlook._seconds = dynamic_wins
    result = quantize_model(model, graph.samples(), HERE)
    assert result.candidate.dynamic == {"MatMul0", "MatMul2", "MatMul4"}
    assert result.quantization.nodes_fused == 3
    assert result.quantization.unfused == []
    assert {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"} & set(kernels(result.model))
    assert sqnr_db(model, result.model, graph.samples()) > 30


def test_what_the_user_named_runs_on_integers_whatever_the_clock_says(clock):
    clock(1.0, 9.0)
    graph, model = network()
    options = QuantizeOptions(target="auto", selection=Selection(include=("Conv2",)))
    result = quantize_model(model, graph.samples(), options)
    assert [node.node for node in result.candidate.plan.integer_nodes] == ["Conv2"]


def test_an_undisturbed_run_ends_in_the_same_kinds_of_kernels():
    graph, model = network()
    result = quantize_model(model, graph.samples(), HERE)
    assert result.quantization.nodes_quantized in range(15)
    assert sqnr_db(model, result.model, graph.samples()) > 20


# ---- noise


def test_noise_is_the_relative_squared_error_of_the_worst_output():
    graph = Graph((1, 8))
    model = graph.model(graph.op("Relu", graph.name), graph.op("Neg", graph.name))
    other = graph.model(graph.op("Relu", graph.name), graph.op("Mul", graph.name, graph.constant(np.float32(-1.1))))
    other.graph.outputs[0].name, other.graph.outputs[1].name = (value.name for value in model.graph.outputs)
    probe = Probe(model, graph.samples())
    assert probe.noise_of(other) == pytest.approx(0.01, rel=1e-4)
    assert probe.noise_of(model) == 0.0


def test_a_candidate_that_is_not_finite_is_all_noise():
    graph = Graph((1, 8))
    model = graph.model(graph.op("Exp", graph.name))
    broken = graph.model(graph.op("Log", graph.op("Mul", graph.name, graph.constant(np.float32(0)))))
    broken.graph.outputs[0].name = model.graph.outputs[0].name
    assert Probe(model, graph.samples()).noise_of(broken) == math.inf
    assert decibels(math.inf) == -math.inf


def test_candidates_are_made_in_turn_and_no_further_than_one_ahead():
    graph = Graph((1, 8))
    model = graph.model(graph.op("Relu", graph.name))
    made = []

    def candidates():
        for factor in (1.1, 1.2, 1.3, 1.4, 1.5):
            made.append(factor)
            other = graph.model(graph.op("Mul", graph.op("Relu", graph.name), graph.constant(np.float32(factor))))
            other.graph.outputs[0].name = model.graph.outputs[0].name
            yield other

    probe = Probe(model, graph.samples())
    noises = probe.noises_of(candidates())
    assert next(noises) == pytest.approx(0.01, rel=1e-4)
    assert next(noises) == pytest.approx(0.04, rel=1e-4)
    noises.close()
    assert made == [1.1, 1.2, 1.3]
    assert [each.name for each in probe.measured.taken] == ["noise", "noise"], "what nobody asked for is not kept"


def test_images_want_more_than_scores():
    scores = Graph((1, 8))
    image = Graph((1, 1, 40, 40))
    assert Probe(scores.model(scores.op("Tanh", "x")), scores.samples()).enough_db == ENOUGH_DB
    assert Probe(image.model(image.op("Tanh", "x")), image.samples()).enough_db == ENOUGH_FOR_IMAGES_DB


def test_more_speed_and_less_noise_are_worth_more_up_to_what_is_enough(trial):
    probe = trial.probe
    assert probe.worth(2.0, 1e-2) > probe.worth(1.5, 1e-2)
    assert probe.worth(2.0, 1e-2) > probe.worth(2.0, 1e-1)
    assert probe.worth(2.0, 1e-4) == probe.worth(2.0, 1e-6)


# ---- returning blocks


def test_the_blocks_hold_every_node_with_a_weight_once_the_dearest_first(trial):
    decision = trial.placement.candidate.decision
    blocks = sensitivities(trial.material, trial.placement.costs, decision, trial.placement.noise, trial.probe)
    nodes = [name for block in blocks for name in block.nodes]
    weighted = [unit.node.name for unit in decision.integer if unit.node.op_type in ("Conv", "Gemm")]
    assert nodes == weighted
    ranked = [block.noise / max(block.saved_ns, 1.0) for block in by_rank(blocks)]
    assert ranked == sorted(ranked, reverse=True)


def test_the_noise_of_blocks_adds_up():
    graph = Graph((1, 32, 16, 16))
    x = graph.name
    for _ in range(5):
        x = graph.conv_relu(x, 32, 32)
    model = graph.model(graph.op("Tanh", x))
    trial = quantize_model(model, graph.samples(), TABLE).trial
    decision = trial.placement.candidate.decision
    assert len(decision.integer) == 5
    blocks = sensitivities(trial.material, trial.placement.costs, decision, trial.placement.noise, trial.probe)
    floor = trial.probe.noise_of(without_any(trial).model)
    assert sum(block.noise for block in blocks) + floor == pytest.approx(trial.placement.noise, rel=0.6)


def without_any(trial):
    names = [unit.node.name for unit in trial.placement.candidate.decision.integer]
    return trial.material.build(
        without(trial.material, trial.placement.costs, trial.placement.candidate.decision, names)
    )


def test_returned_nodes_stay_in_float_with_the_reason(trial):
    names = [unit.node.name for unit in trial.placement.candidate.decision.integer][:2]
    decision = without(trial.material, trial.placement.costs, trial.placement.candidate.decision, names, "because")
    assert not set(names) & decision.names
    assert all(decision.reasons[name] == "because" for name in names)


# ---- budgets


@pytest.mark.parametrize("needed", [1, 3, 7])
def test_a_budget_returns_no_more_blocks_than_it_must_and_asks_few_times(trial, needed):
    weighted = len([u for u in trial.placement.candidate.decision.integer if u.node.op_type in ("Conv", "Gemm")])
    asked = []

    def keeps(model):
        left = sum(node.op_type in ("Conv", "Gemm") and _is_quantized(node) for node in model.graph)
        asked.append(left)
        return left <= weighted - needed

    found, path = keep(trial, keeps)
    assert found is not None
    assert asked[-1] <= weighted
    assert max(left for left in asked if left <= weighted - needed) == sum(
        node.op_type in ("Conv", "Gemm") and _is_quantized(node) for node in found.model.graph
    )
    assert len(asked) == len(path) <= math.ceil(math.log2(weighted + 2))
    assert any(node.reason == REASON for node in found.plan.nodes)


def _is_quantized(node):
    producer = node.inputs[0].producer()
    return producer is not None and producer.op_type == "DequantizeLinear"


def test_a_budget_that_nothing_keeps_finds_nothing(trial):
    found, path = keep(trial, lambda model: False)
    assert found is None
    assert path
    assert not any(each.kept for each in path)
    assert path[-1].integers == 0


def test_products_that_quantize_at_run_return_to_float_too():
    graph = Graph((1, 64, 64))
    x = graph.name
    for _ in range(4):
        x = graph.op("Tanh", graph.op("MatMul", x, graph.matrix(64, 64)))
    model = graph.model(x)
    material, costs = prepared(model, graph.samples(), QuantizeOptions(target="x64-vnni"), few=graph.samples())
    probe, first = Probe(model, graph.samples()), material.build_dynamic()
    trial = Trial(material, probe, Placement(first, costs, 1.6, probe.noise_of(first.model), 1e6))
    assert (first.layers, trial.speedup(first)) == (4, pytest.approx(1.6))

    def on_integers(model):
        return sum(node.op_type == "MatMulInteger" for node in model.graph)

    found, _ = keep(trial, lambda model: on_integers(model) <= 2)
    assert on_integers(found.model) == found.layers == 2
    assert 1 < trial.speedup(found) < 1.6
    assert sum(node.reason == REASON for node in found.plan.nodes) == 2
    assert keep(trial, lambda model: on_integers(model) == 0)[0].layers == 0
    assert keep(trial, lambda model: False)[0] is None


# ---- what is calibrated


def test_only_what_is_fast_enough_is_observed(clock):
    graph, model = network()
    clock(1.0, 1.1)
    assert quantize_model(model, graph.samples(), HERE).statistics.histograms == {}
    clock(1.0, 0.4)
    found = quantize_model(model, graph.samples(), HERE)
    assert len(found.statistics.histograms) >= 6
    whole = quantize_model(model, graph.samples(), QuantizeOptions(target="auto", save_calibration="kept.npz"))
    assert found.statistics.histograms.keys() <= whole.statistics.histograms.keys()
    assert found.ranges.items() <= whole.ranges.items() or found.ranges == whole.ranges


def test_a_sketch_that_no_calibration_can_mend_ends_in_float(clock, monkeypatch):
    clock(1.0, 0.9)
    monkeypatch.setattr(Probe, "compare", lambda self, session: 0.9 if _integers(session) else 1e-6)
    scaled = []
    monkeypatch.setattr(preparation.Scaling, "applied", lambda self, _: (scaled.append(self.model) or self.model, {}))
    graph, model = network()
    result = quantize_model(model, graph.samples(), HERE)
    assert result.quantization.nodes_quantized == 0
    assert result.statistics.histograms == {}
    assert not scaled  # channels in equal scales are for integers alone
    assert any("dB of signal to noise" in note.reason for note in result.quantization.left_float)


def test_a_race_ends_once_it_is_beyond_doubt():
    rng = np.random.default_rng(0)
    steady = 1 + 0.001 * rng.random(20)
    assert outlook._settled([steady, 1.05 * steady])
    assert outlook._settled([steady, 0.9 * steady])
    assert not outlook._settled([steady, steady / (1 + outlook.LEAST_GAIN)])
