"""`onnxqp calibrate` and the calibration files of `quantize`: what reaches the public functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sample_reports
from fake_api import FakeApi, Ran

from onnxqp.options import CalibrateOptions
from onnxqp.report.records import Calibration

Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _report(api: FakeApi) -> None:
    ranges = {"x": (-1.0, 2.5), "y": (0.0, 6.0)}
    api.report = sample_reports.report(
        "calibrate", arguments={"output": "s.npz"}, calibration=Calibration("data", 32, 0, "minmax", ranges)
    )


def test_a_shard(api: FakeApi, run: Run) -> None:
    ran = run("calibrate", "m.onnx", "--data", "d.npz", "--shard", "2/4", "-o", "s.npz", "--force")
    assert ran.code == 0
    assert api.arguments == ("m.onnx",)
    assert api.options["options"] == CalibrateOptions("s.npz", (2, 4), (), True)
    assert api.options["data"].data == "d.npz"
    assert "statistics of 2 values" in ran.out
    assert "wrote s.npz" in ran.out


@pytest.mark.parametrize(
    ("words", "model"),
    [
        (("m.onnx", "--merge", "a.npz", "b.npz", "c.npz"), "m.onnx"),
        (("--merge", "a.npz", "b.npz", "c.npz"), None),
        (("--merge", "a.npz", "--merge", "b.npz", "--merge", "c.npz", "m.onnx"), "m.onnx"),
    ],
)
def test_merging(api: FakeApi, run: Run, words: tuple[str, ...], model: str | None) -> None:
    assert run("calibrate", *words, "-o", "s.npz").code == 0
    assert api.arguments == (model,)
    assert set(api.options["options"].merge) == {"a.npz", "b.npz", "c.npz"}


def test_the_only_model_of_the_folder_is_meant(api: FakeApi, run: Run) -> None:
    Path("net.onnx").touch()
    assert run("calibrate", "-o", "s.npz").code == 0
    assert api.arguments == ("net.onnx",)


def test_ranges_are_listed_when_asked_for(run: Run) -> None:
    assert "2.5" in run("calibrate", "m.onnx", "-o", "s.npz", "-v").out
    assert "2.5" not in run("calibrate", "m.onnx", "-o", "s.npz").out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("m.onnx",), "--output is missing"),
        (("m.onnx", "n.onnx", "-o", "s.npz"), "one MODEL, not 2: m.onnx, n.onnx"),
        (("m.onnx", "-o", "s.npz", "--shard", "0/4"), "--shard: '0/4' is not I/N with 1 <= I <= N, as 2/4"),
        (("m.onnx", "-o", "s.npz", "--shard", "5/4"), "--shard: '5/4' is not I/N with 1 <= I <= N, as 2/4"),
        (("--merge", "s.npz", "-o", "s.npz"), "--output s.npz is the same file as data s.npz"),
    ],
)
def test_usage(run: Run, words: tuple[str, ...], message: str) -> None:
    Path("s.npz").touch()
    ran = run("calibrate", *words)
    assert ran.code == 2
    assert ran.error[0] == message


def test_files_of_quantize(api: FakeApi, run: Run) -> None:
    assert run("quantize", "m.onnx", "--calibration", "s.npz").code == 0
    assert api.options["options"].calibration == "s.npz"
    api.calls.clear()
    assert run("quantize", "m.onnx", "--save-calibration", "s.npz").code == 0
    assert api.options["options"].save_calibration == "s.npz"
    Path("s.npz").touch()
    for words in (("--data", "s.npz"), ("--calibration", "s.npz"), ("-o", "s.npz")):
        ran = run("quantize", "m.onnx", "--save-calibration", "s.npz", *words)
        assert (ran.code, "same file" in ran.error[0]) == (2, True)
