"""`onnxqp debug`: what reaches the public function, and the whole way once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import sample_reports
from fake_api import FakeApi, Ran

from onnxqp.options import DataOptions, MeasureOptions
from onnxqp.report.records import TensorError

Run = Callable[..., Ran]


def test_arguments(api: FakeApi, run: Run) -> None:
    api.report = sample_reports.report("debug", tensors=[TensorError("v", "n", 20.0, "clipping", 0)])
    ran = run("debug", "a.onnx", "b.onnx", "--data", "d.npz", "--samples", "8", "--threads", "2")
    assert ran.code == 0
    assert api.arguments == ("a.onnx", "b.onnx")
    assert api.options["data"] == DataOptions(data="d.npz", samples=8)
    assert api.options["measure"] == MeasureOptions(threads=2)
    assert "clipping" in ran.out


def test_both_models_are_needed(run: Run) -> None:
    assert run("debug", "a.onnx").error[0] == "CANDIDATE is missing"


def test_the_whole_way(run: Run, root: Path) -> None:
    model, data = root / "sample_models" / "residual_cnn.onnx", root / "sample_models" / "data" / "calib.npz"
    few = ("--data", str(data), "--samples", "8")
    assert run("quantize", str(model), *few, "-o", "q.onnx", "--no-validate").code == 0
    ran = run("debug", str(model), "q.onnx", *few, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)["tensors"]
    assert len(found) > 10
    levels = [each["sqnr_db"] for each in found if "sqnr_db" in each]
    assert levels == sorted(levels)
    assert all({"name", "node", "cause"} <= each.keys() for each in found)
    assert {"logits"} <= {each["name"] for each in found}
