from __future__ import annotations

import json
import os
from pathlib import Path
from xml.etree import ElementTree

import pytest
from sample_reports import quantized, summary

from onnxqp.errors import OutputError, UsageError
from onnxqp.report import write


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_suffix_chooses_the_view(tmp_path: Path) -> None:
    report = quantized(input=summary("Größe\ud800.onnx"))
    for name in ("r.json", "r.md", "r.xml", "R.JSON"):
        write.write(report, tmp_path / name)
    assert json.loads((tmp_path / "r.json").read_text(encoding="ascii")) == report.to_dict()
    assert (tmp_path / "R.JSON").read_bytes() == (tmp_path / "r.json").read_bytes()
    assert "Größe" in (tmp_path / "r.md").read_text(encoding="utf-8")
    assert ElementTree.parse(tmp_path / "r.xml").getroot().tag == "testsuites"
    assert names(tmp_path) == ["R.JSON", "r.json", "r.md", "r.xml"]


@pytest.mark.parametrize("name", ["r.pdf", "r.txt", "r", "r.json.gz"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        write.write(quantized(), tmp_path / name)
    assert ".json, .md, .html, .xml" in (caught.value.hint or "")
    assert not names(tmp_path)


def test_an_older_report_is_replaced_and_keeps_usual_permissions(tmp_path: Path) -> None:
    path = tmp_path / "r.md"
    path.write_text("old")
    write.write(quantized(), path)
    other = tmp_path / "other"
    other.touch()
    assert path.read_text().startswith("# onnxqp")
    assert path.stat().st_mode == other.stat().st_mode


def test_a_failed_write_leaves_the_old_report_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.md"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write.write(quantized(), path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["r.md"]


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        write.write(quantized(), tmp_path / "no" / "r.md")
