"""What each part of a model costs alone: against models that are made by hand, and through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from prune_checks import Build

import onnxqp
from onnxqp.options import PruneOptions, QuantizeOptions
from onnxqp.prune import prune_model
from onnxqp.quantize.regions import MOST, integer_regions
from onnxqp.report import outline
from onnxqp.runtime import Session


def chain(depth: int = 3) -> tuple[ir.Model, list[dict[str, np.ndarray]]]:
    """Convolutions with Relu between, and samples for them."""
    build = Build()
    x = build.input(1, 4, 12, 12)
    for _ in range(depth):
        x = build.op("Relu", build.conv(x, 4 if x == "x" else 16, 16, 3))
    x = build.op("Flatten", build.op("GlobalAveragePool", x))
    made = build.model(build.op("Gemm", x, build.weight(16, 5), build.weight(5)))
    random = np.random.default_rng(1)
    return made, [{"x": random.normal(size=(1, 4, 12, 12)).astype(np.float32)} for _ in range(10)]


def noise(model: ir.Model, other: ir.Model, feeds: list[dict[str, np.ndarray]]) -> float:
    """Squared error relative to the squared signal."""
    ours, theirs = Session(model), Session(other)
    pairs = [(next(iter(ours.run(f).values())), next(iter(theirs.run(f).values()))) for f in feeds]
    return float(sum(np.square(a - b).sum() for a, b in pairs) / sum(np.square(a).sum() for a, _ in pairs))


def test_a_group_costs_what_cutting_it_alone_costs() -> None:
    model, feeds = chain()
    report = onnxqp.sensitivity(model, data=feeds).report
    found = {region.id: region for region in report.regions or ()}
    groups = [name for name in found if name.startswith("prune:")]
    assert len(groups) == 3
    for name in groups:
        region = found[name]
        others = tuple({other.removeprefix("prune:") for other in groups} - {name.removeprefix("prune:")})
        options = PruneOptions(ratio=0.5, round_to=1, criterion="l1")
        kept = onnxqp.Selection(exclude=others)
        made = prune_model(model, feeds[:1], onnxqp.PruneOptions(**{**vars(options), "selection": kept}), step=1)
        assert [group.id for group in made.pruning.groups] == [name.removeprefix("prune:")]
        assert region.unit == "relative squared error"
        assert 1e-4 < region.cost < 10
        assert region.sqnr_db == pytest.approx(-10 * np.log10(region.cost))


def test_regions_are_sorted_and_their_noise_is_measured() -> None:
    model, feeds = chain()
    regions = onnxqp.sensitivity(model, data=feeds).report.regions or []
    costs = [region.cost for region in regions]
    assert costs == sorted(costs, reverse=True)
    assert {region.id.partition(":")[0] for region in regions} == {"quantize", "prune"}
    assert all(region.members for region in regions)


def test_an_integer_region_holds_its_layer_and_no_other() -> None:
    model, feeds = chain()
    count, regions = integer_regions(model, feeds, QuantizeOptions(target="x64-avx2"), few=feeds)
    made = list(regions)
    assert count == len(made) == 4
    assert sum(len(region.nodes) for region in made) == len({name for region in made for name in region.nodes})
    for region in made:
        assert 0 < noise(model, region.model, feeds) < 0.01
        quantized = [node for node in region.model.graph if node.op_type == "QuantizeLinear"]
        assert 1 <= len(quantized) <= 3


def test_a_deep_model_is_cut_into_runs() -> None:
    model, feeds = chain(MOST + 8)
    count, regions = integer_regions(model, feeds[:2], QuantizeOptions(target="x64-avx2"), few=feeds[:2])
    assert count == MOST
    assert max(len(region.nodes) for region in regions) >= 2


def test_labels_make_points(root: Path) -> None:
    samples = root / "sample_models" / "data"
    data = onnxqp.DataOptions(str(samples / "calib.npz"), str(samples / "eval.npz"), samples=40)
    report = onnxqp.sensitivity(root / "sample_models" / "residual_cnn.onnx", data=data).report
    regions = report.regions or []
    assert {region.unit for region in regions} == {"points of top1"}
    assert max(region.cost for region in regions) > 5
    shown = outline.outline(report, every=True)
    titles = [block.title for block in shown]
    assert "alone in int8" in titles
    assert "nodes of what is alone cut in half, not recovered" in titles


def test_the_command(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from onnxqp.cli import main

    model, data = root / "sample_models" / "residual_cnn.onnx", root / "sample_models" / "data" / "calib.npz"
    assert main(["sensitivity", str(model), "--data", str(data), "--samples", "12", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["regions"]
    assert all({"id", "members", "cost", "unit"} <= each.keys() for each in found)


def test_nothing_to_compress(tmp_path: Path) -> None:
    build = Build()
    model = build.model(build.op("Relu", build.input(1, 4)))
    with pytest.raises(onnxqp.UnsupportedError, match="nothing in this model"):
        onnxqp.sensitivity(model, data=[build.feed] * 6)
