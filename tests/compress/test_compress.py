"""Whole runs of `compress`. They name their target, for `auto` decides by a clock."""

import numpy as np
import onnx
import pytest
from quantize_graphs import Graph

import onnxqp
from onnxqp.errors import UsageError
from onnxqp.options import (
    CompressOptions,
    DataOptions,
    Gates,
    MeasureOptions,
    PruneOptions,
    QuantizeOptions,
    WriteOptions,
)
from onnxqp.runtime import Session


def options(latency_ratio=None, size_ratio=None, **prune):
    target = "x64-vnni"
    return CompressOptions(
        PruneOptions(target=target, **prune), QuantizeOptions(target=target), latency_ratio, size_ratio
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a small classifier whose classes depend on the means of three inputs, and its data."""
    folder = tmp_path_factory.mktemp("net")
    graph = Graph((1, 3, 8, 8))
    x = graph.name
    for before, after in ((3, 24), (24, 24), (24, 24)):
        x = graph.conv_relu(x, before, after)
    flat = graph.op("Flatten", graph.op("GlobalAveragePool", x), axis=1)
    model = graph.proto(graph.op("MatMul", flat, graph.matrix(24, 3)))
    onnx.save(model, folder / "net.onnx")
    rng = np.random.default_rng(0)
    images = rng.normal(0, 1, (400, 3, 8, 8)) + 2 * rng.normal(0, 1, (400, 3, 1, 1))
    np.savez(folder / "calib.npz", x=images.astype(np.float32))
    return folder


@pytest.fixture
def compressed(place, tmp_path):
    def run(gates=None, *, how=None, data=None, validate=False, **write):
        return onnxqp.compress(
            place / "net.onnx",
            options=how or options(),
            data=data or DataOptions(str(place / "calib.npz"), samples=128),
            gates=gates,
            measure=MeasureOptions(validate=validate),
            write=WriteOptions(output=str(tmp_path / "out.onnx"), **write),
        ).report

    return run


def test_without_budgets_the_fastest_that_loses_next_to_nothing(compressed, tmp_path):
    report = compressed()
    points = report.frontier
    (taken,) = (point for point in points if point.chosen)
    assert {point.settings["weights"] for point in points if point.settings["macs_ratio"] == 1.0} == {"float", "int8"}
    assert any(point.settings["macs_ratio"] < 1.0 and point.settings["weights"] == "float" for point in points)
    # those in front were timed once more, the others are as the clock first saw them
    assert taken.speedup >= max(point.speedup for point in points if point.agreement == 100.0) * 0.9
    assert report.output.bytes * 2 < report.input.bytes
    assert Session(tmp_path / "out.onnx").outputs


def test_a_share_of_bytes_that_int8_misses_is_met_with_four_bits(compressed, tmp_path):
    report = compressed(how=options(size_ratio=0.28))
    (taken,) = (point for point in report.frontier if point.chosen)
    assert taken.size_ratio >= 1 / 0.28
    assert report.passed
    assert report.quantization.weights_packed == taken.settings["weights_packed"] > 0
    assert taken.settings["macs_ratio"] == 1.0
    assert taken.agreement > 95


def test_bytes_that_are_asked_for_may_cost_all_of_the_accuracy_that_is_allowed(compressed):
    report = compressed(Gates(min_agreement=85.0), how=options(size_ratio=0.15), validate=True)
    (taken,) = (point for point in report.frontier if point.chosen)
    assert report.passed
    assert taken.settings["weights_packed"] > 0
    assert taken.size_ratio >= 1 / 0.15
    assert taken.agreement > 85
    alone = [point for point in report.frontier if "weights_packed" not in point.settings]
    assert max(point.size_ratio for point in alone if point.agreement > 85) < 1 / 0.15


def test_a_share_of_bytes_is_a_budget_that_pruning_can_meet(compressed):
    report = compressed(how=options(size_ratio=0.2))
    (taken,) = (point for point in report.frontier if point.chosen)
    assert taken.settings["macs_ratio"] < 0.9
    assert taken.size_ratio >= 1 / 0.2
    assert report.passed
    assert report.pruning.recovery.kind == "least-squares"
    assert [gate.name for gate in report.gates] == ["min-size-ratio"]


def test_an_amount_is_pruned_as_asked(compressed):
    report = compressed(how=options(ratio=0.5))
    assert {point.settings["weights"] for point in report.frontier} == {"float", "int8"}
    assert report.pruning.channels_after == report.pruning.channels_before // 2
    assert report.arguments["ratio"] == 0.5


def test_what_cannot_be_met_is_a_missed_gate_and_the_frontier_is_shown(compressed, tmp_path):
    report = compressed(Gates(min_size_ratio=1000.0), how=options(ratio=0.5))
    assert not report.passed
    assert report.frontier
    assert not (tmp_path / "out.onnx").exists()


def test_samples_of_few_classes_do_not_say_what_four_bits_cost(compressed, place, tmp_path):
    session = Session(place / "net.onnx")
    images = np.load(place / "calib.npz")["x"]
    found = np.array([next(iter(session.run({"x": image[None]}).values())).argmax() for image in images])
    np.savez(tmp_path / "one.npz", x=images[found == np.bincount(found).argmax()])
    one = DataOptions(str(tmp_path / "one.npz"), samples=64)
    gates, asked = Gates(min_agreement=80), options(size_ratio=0.2)
    assert compressed(gates, validate=True).quantization.weights_packed
    assert compressed(gates, validate=True, data=one, force=True).quantization.weights_packed is None
    assert compressed(gates, validate=True, data=one, force=True, how=asked).quantization.weights_packed


def test_made_up_inputs_choose_no_channels(compressed):
    report = compressed(data=DataOptions(samples=8))
    assert report.pruning is None
    assert report.quantization.weights_packed is None
    assert any("give --data" in warning for warning in report.warnings)


def test_a_dry_run_writes_nothing_and_lists_groups(compressed, tmp_path):
    report = compressed(dry_run=True)
    assert report.pruning.groups
    assert report.quantization.nodes_quantizable
    assert not list(tmp_path.iterdir())


def test_a_model_without_class_scores_is_judged_by_noise_and_asked_no_more_than_int8_gives():
    graph = Graph((1, 8, 32, 32))
    model = graph.model(graph.conv(graph.conv_relu(graph.conv_relu(graph.name, 8, 32), 32, 32), 32, 8))
    result = onnxqp.compress(model, options=options(), data=graph.samples(24), measure=MeasureOptions(validate=False))
    points = result.report.frontier
    assert all(point.agreement is None for point in points)
    (taken,) = (point for point in points if point.chosen)
    alone = next(
        point for point in points if point.settings == {**point.settings, "macs_ratio": 1.0, "weights": "int8"}
    )
    assert taken.sqnr_db >= min(40.0, alone.sqnr_db)  # the output is an image
    assert taken.speedup >= alone.speedup * 0.98
    assert any(point.sqnr_db < min(40.0, alone.sqnr_db) for point in points)


def test_a_model_of_which_nothing_can_be_made_is_refused():
    graph = Graph((1, 8))
    model = graph.model(graph.op("Relu", graph.name))
    with pytest.raises(onnxqp.UnsupportedError):
        onnxqp.compress(model, options=options(), data=graph.samples(8))


def test_a_drop_without_labels_cannot_be_judged(compressed):
    with pytest.raises(UsageError, match="max-drop"):
        compressed(Gates(max_drop=1.0))


def test_samples_of_the_caller_are_not_drawn_again():
    graph = Graph((1, 16, 8, 8))
    model = graph.model(graph.op("Flatten", graph.op("GlobalAveragePool", graph.conv_relu(graph.name, 16, 32))))
    rng = np.random.default_rng(3)
    feeds = [{graph.name: rng.normal(size=(1, 16, 8, 8)).astype(np.float32)} for _ in range(25)]
    report = onnxqp.compress(model, options=options(), data=feeds, measure=MeasureOptions(validate=False)).report
    assert report.calibration.samples + report.calibration.held_back == 25


def test_a_saved_profile_gives_the_same_bytes_again(place, tmp_path):
    def run(name, measure):
        onnxqp.compress(
            place / "net.onnx",
            options=CompressOptions(PruneOptions(ratio=0.5)),
            data=DataOptions(str(place / "calib.npz"), samples=32),
            measure=measure,
            write=WriteOptions(output=str(tmp_path / name)),
        )
        return (tmp_path / name).read_bytes()

    profile = str(tmp_path / "profile.json")
    first = run("first.onnx", MeasureOptions(validate=False, save_profile=profile))
    assert run("second.onnx", MeasureOptions(validate=False, profile=profile)) == first
