"""The same inputs, seed and versions give the same bytes: by a table always, by the clock from a saved profile."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import onnxqp
from onnxqp.errors import DataError, OutputError, UsageError
from onnxqp.measurements import Measurement, Measurements
from onnxqp.options import DataOptions, MeasureOptions, PruneOptions, QuantizeOptions, WriteOptions

Make = Callable[..., bytes]


@pytest.fixture
def make(root: Path, tmp_path: Path) -> Make:
    """Runs a command on a sample model, and gives the bytes of what it wrote."""
    data = DataOptions(data=str(root / "sample_models" / "data" / "calib.npz"), samples=24)

    def call(command: str, options: Any, *, model: str = "mobile_cnn", **measure: Any) -> bytes:
        path = tmp_path / f"{command}.onnx"
        getattr(onnxqp, command)(
            str(root / "sample_models" / f"{model}.onnx"),
            options=options,
            data=data,
            measure=dataclasses.replace(MeasureOptions(validate=False), **measure),
            write=WriteOptions(str(path), force=True),
        )
        return path.read_bytes()

    return call


@pytest.mark.parametrize("target", ["x64-avx2", "arm64"])
def test_a_named_target_quantizes_to_the_same_bytes_on_any_number_of_threads(make: Make, target: Any) -> None:
    first = make("quantize", QuantizeOptions(target=target))
    assert make("quantize", QuantizeOptions(target=target), threads=2) == first


def test_a_named_target_prunes_to_the_same_bytes_on_any_number_of_threads(make: Make) -> None:
    options = PruneOptions(ratio=0.4, target="x64-avx2")
    assert make("prune", options, threads=2) == make("prune", options)


# ---- decisions by the clock -------------------------------------------------------------------------------------


def test_auto_quantizes_to_the_same_bytes_from_a_profile(make: Make, tmp_path: Path) -> None:
    saved = str(tmp_path / "p.json")
    first = make("quantize", QuantizeOptions(), save_profile=saved)
    assert make("quantize", QuantizeOptions(), profile=saved) == first
    assert make("quantize", QuantizeOptions(), profile=saved, threads=2) == first


def test_what_the_profile_says_is_what_decides(make: Make, tmp_path: Path) -> None:
    """Were the clock asked all the same, an absurd profile would change nothing.

    As it is, what it says leads to another result, or to a question that it does not answer.
    """
    saved = tmp_path / "p.json"
    first = make("quantize", QuantizeOptions(), model="residual_cnn", save_profile=str(saved))
    content = json.loads(saved.read_text())
    for name, numbers in content["measurements"]:
        if name == "seconds of models":
            numbers[1:] = [100 * number for number in numbers[1:]]  # int8 is a hundred times slower than it was
    saved.write_text(json.dumps(content))
    try:
        found = make("quantize", QuantizeOptions(), model="residual_cnn", profile=str(saved))
    except DataError:
        found = b"asked for something that the profile does not have"
    assert found != first


def test_a_share_of_the_time_prunes_to_the_same_bytes_from_a_profile(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, options = str(tmp_path / "p.json"), PruneOptions(latency_ratio=0.6)
    first = make("prune", options, save_profile=saved)
    monkeypatch.setattr(importlib.import_module("onnxqp.prune.budgets"), "measure", no_clock)
    assert make("prune", options, profile=saved) == first


def no_clock(*_: Any, **__: Any) -> Any:
    raise AssertionError("the clock was asked")


# ---- profiles that do not fit -----------------------------------------------------------------------------------


@pytest.fixture
def saved(make: Make, tmp_path: Path) -> Path:
    path = tmp_path / "saved.json"
    make("prune", PruneOptions(latency_ratio=0.8, recover="none", criterion="l1"), save_profile=str(path))
    return path


def test_a_profile_of_another_model_is_refused(make: Make, saved: Path) -> None:
    with pytest.raises(DataError, match="of another model") as caught:
        make("prune", PruneOptions(latency_ratio=0.8), model="residual_cnn", profile=str(saved))
    assert "--save-profile" in str(caught.value.hint)


def test_a_profile_of_another_version_is_refused(make: Make, saved: Path) -> None:
    content = json.loads(saved.read_text())
    content["versions"]["onnxruntime"] = "1.0"
    saved.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"saved with onnxruntime 1\.0") as caught:
        make("prune", PruneOptions(latency_ratio=0.8), profile=str(saved))
    assert "install that version" in str(caught.value.hint)


def test_a_profile_of_other_options_is_refused(make: Make, saved: Path) -> None:
    with pytest.raises(DataError, match="does not fit this run") as caught:
        make("quantize", QuantizeOptions(), profile=str(saved))
    assert "save one for these" in str(caught.value.hint)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"format": "onnxqp profile", "version": 2}',
        '{"format": "onnxqp profile", "version": 1, "model": "m", "versions": {}, "target": "auto", '
        '"measurements": []}',
        '{"format": "onnxqp profile", "version": 1, "model": "m", "versions": {}, "target": "arm64", '
        '"measurements": [["noise", ["much"]]]}',
        '{"format": "onnxqp profile", "version": 1, "model": "m", "versions": {}, "target": "arm64", '
        '"measurements": [["noise", [-1]]]}',
        '{"format": "onnxqp profile", "version": 1, "model": "m", "versions": {}, "target": "arm64", '
        '"measurements": [["seconds of models", [null]]]}',
    ],
)
def test_a_damaged_profile_is_refused(make: Make, tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(DataError, match="profile"):
        make("quantize", QuantizeOptions(), profile=str(path))


def test_a_profile_that_is_not_there_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        make("quantize", QuantizeOptions(), profile=str(tmp_path / "none.json"))


def test_a_profile_never_replaces_a_file_unasked(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        onnxqp.quantize(
            root / "sample_models" / "mobile_cnn.onnx",
            measure=MeasureOptions(save_profile=str(path)),
            write=WriteOptions(str(tmp_path / "o.onnx")),
        )
    assert path.read_text() == "mine"


def test_reading_and_writing_a_profile_at_once_is_refused(make: Make, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="together"):
        make("quantize", QuantizeOptions(), profile=str(saved), save_profile=str(tmp_path / "other.json"))


# ---- the record -------------------------------------------------------------------------------------------------


def test_measurements_are_given_back_in_order() -> None:
    taken = Measurements()
    assert taken.of("time", lambda: [1, 2], 2) == (1.0, 2.0)
    assert taken.of("noise", lambda: [3.0]) == (3.0,)
    again = Measurements(taken.taken)
    assert again.of("time", no_clock, 2) == (1.0, 2.0)
    assert again.of("noise", no_clock, 1) == (3.0,)
    with pytest.raises(DataError, match="it ends before 'time'"):
        again.of("time", no_clock)


def test_measurements_of_another_kind_or_number_are_refused() -> None:
    with pytest.raises(DataError, match="it has 'time' where 'noise' is asked for"):
        Measurements([Measurement("time", (1.0,))]).of("noise", no_clock)
    with pytest.raises(DataError, match="has 1 numbers, not 2"):
        Measurements([Measurement("time", (1.0,))]).of("time", no_clock, 2)


def test_auto_is_what_it_was() -> None:
    assert Measurements([], "arm64").resolved("auto") == "arm64"
    assert Measurements([], "arm64").resolved("x64-avx2") == "x64-avx2"
    assert Measurements().resolved("auto") == "auto"
