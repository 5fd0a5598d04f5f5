"""No file is read and written in one run, under whatever name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_api import FakeApi, Ran

Run = Callable[..., Ran]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m.onnx").write_text("model")
    (tmp_path / "d.npz").write_text("data")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_text("image")
    (tmp_path / "hook.py").write_text("code")
    (tmp_path / "link").symlink_to("m.onnx")
    os.link(tmp_path / "d.npz", tmp_path / "hard")
    os.link(tmp_path / "images" / "a.png", tmp_path / "picture")
    os.link(tmp_path / "m.onnx", tmp_path / "m.json")
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        "-o m.onnx --force",
        "-o ./m.onnx",
        "-o link",
        "-o d.npz --data d.npz",
        "-o hard --eval d.npz",
        "-o hook.py --data hook.py:f",
        "-o images/a.png --data images --force",
        "-o picture --data images --force",
        "--report m.json",
        "--report r.md --report ./r.md",
        "-o r.md --report r.md",
        "--report hook.md --data hook.md:f",
    ],
)
def test_the_same_file_twice_is_refused(run: Run, api: FakeApi, folder: Path, arguments: str) -> None:
    ran = run("quantize", "m.onnx", *arguments.split())
    assert ran.code == 2
    assert "is the same file as" in ran.error[0]
    assert not api.calls
    assert (folder / "m.onnx").read_text() == "model"


@pytest.mark.parametrize(
    "arguments",
    ["-o new.onnx --data d.npz --report r.md", "-o images/b.onnx --data images", "--data .", "-o out.onnx --data ."],
)
def test_different_files_are_fine(run: Run, api: FakeApi, folder: Path, arguments: str) -> None:
    (folder / "out.onnx").write_text("older result")
    assert run("quantize", "m.onnx", *arguments.split()).code == 0
    assert len(api.calls) == 1


@pytest.mark.parametrize("report", ["no/r.md", "images.md"])
def test_a_report_that_cannot_be_written_is_refused_before_the_work(
    run: Run, api: FakeApi, folder: Path, report: str
) -> None:
    (folder / "images.md").mkdir()
    ran = run("quantize", "m.onnx", "--report", report)
    assert ran.code == 6
    assert ran.error[0]
    assert not api.calls


def test_validate_and_inspect_protect_their_models(run: Run, api: FakeApi, folder: Path) -> None:
    assert run("validate", "x.onnx", "m.onnx", "--report", "m.json").code == 2
    assert run("inspect", "m.onnx", "--report", "m.json").code == 2
    assert run("bench", "m.onnx", "--report", "m.json").code == 2
    assert not api.calls
