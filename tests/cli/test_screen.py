"""What goes where: results to stdout, talk to stderr, reports to files."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
import sample_reports
from fake_api import FakeApi, Ran

from onnxqp.cli.screen import Screen, _Bar

Run = Callable[..., Ran]


def test_the_table_is_the_result_and_warnings_are_talk(run: Run, api: FakeApi) -> None:
    api.report = sample_reports.quantized(warnings=["inputs were synthesised"])
    ran = run("quantize", "m.onnx")
    assert "1.50x faster" in ran.out
    assert ran.err == "warning: inputs were synthesised\n"
    assert run("quantize", "m.onnx", "-q").err == ""


def test_json_is_alone_on_stdout(run: Run, api: FakeApi) -> None:
    api.report = sample_reports.quantized(warnings=["inputs were synthesised"])
    ran = run("quantize", "m.onnx", "--json")
    assert json.loads(ran.out) == api.report.to_dict()
    assert json.loads(ran.out)["schema_version"] == 1
    assert ran.out.isascii()


def test_a_missed_gate_exits_1_after_the_full_report(run: Run, api: FakeApi) -> None:
    api.report = sample_reports.quantized(passed=False, gates=[sample_reports.MISSED])
    ran = run("quantize", "m.onnx", "--report", "r.json", "--report", "r.xml")
    assert ran.code == 1
    assert "FAILED: max-drop missed" in ran.out
    assert json.loads(Path("r.json").read_text())["passed"] is False
    suite = ElementTree.parse("r.xml").getroot().find("testsuite")
    assert suite is not None
    assert suite.get("failures") == "1"
    assert json.loads(run("quantize", "m.onnx", "--json").out)["passed"] is False


def test_reports_are_written_with_any_view_on_screen(run: Run, api: FakeApi) -> None:
    assert run("quantize", "m.onnx", "--json", "--report", "r.md").code == 0
    assert Path("r.md").read_text().startswith("# onnxqp quantize")


def test_a_dry_run_and_verbose_name_every_node(run: Run, api: FakeApi) -> None:
    assert "sm2" not in run("quantize", "m.onnx").out
    assert "sm2" in run("quantize", "m.onnx", "--dry-run").out
    assert "sm2" in run("quantize", "m.onnx", "-v").out
    api.report = sample_reports.pruned()
    assert "conv1.weight" in run("prune", "m.onnx", "--ratio", "0.5", "--dry-run").out
    assert "fc.weight" in run("inspect", "m.onnx", "--groups").out


def test_names_from_a_model_are_shown_literally(run: Run, api: FakeApi) -> None:
    api.report = sample_reports.quantized(
        input=sample_reports.summary("[red]x\x1b[2J.onnx"), warnings=["a\n::error::b\x1b[31m"]
    )
    ran = run("quantize", "m.onnx")
    assert r"[red]x\x1b[2J.onnx" in ran.out
    assert ran.err == r"warning: a\n::error::b\x1b[31m" + "\n"


@dataclasses.dataclass(frozen=True)
class Fact:
    op_type: str
    pruning: str
    targets: dict[str, str]


def test_ops_lists_operators_or_tells_of_one(run: Run, api: FakeApi) -> None:
    conv, relu = Fact("Conv", "ties", {"x64": "fast", "arm": "slow", "y": "fast"}), Fact("Relu", "passes", {})
    api.facts = [conv, relu]
    assert run("ops").out.splitlines()[-3].split() == ["Conv", "ties", "fast", "/", "slow"]
    api.facts = [conv]
    assert "targets x64   fast" in run("ops", "Conv").out
    found = json.loads(run("ops", "Conv", "--json").out)
    assert found["operators"] == [{"op_type": "Conv", "pruning": "ties", "targets": conv.targets}]
    assert api.calls[-1][1] == ("Conv",)


def test_doctor_tells_facts(run: Run, api: FakeApi) -> None:
    api.facts = {"versions": {"onnx": "1.2"}, "cpu": {"features": ["avx2", "fma"], "cores": 2, "name": None}}
    out = run("doctor").out
    assert "versions onnx" in out
    assert "avx2, fma" in out
    assert "unknown" in out
    assert json.loads(run("doctor", "--json").out)["cpu"]["cores"] == 2


def test_progress_is_a_bar_on_a_terminal_and_nothing_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, screen, drawn in (
        (Terminal(), Screen(), True),
        (Terminal(), Screen(quiet=True), False),
        (io.StringIO(), Screen(), False),
    ):
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("TERM", "xterm")
        with screen.progress() as progress:
            if progress is not None:
                progress("open\x1b", 0, None)
                progress("measure", 1, 3)
                progress("measure", 2, 3)  # too soon to be drawn again
                progress("measure", 3, 3)
        assert (progress is not None) == drawn
        if drawn:
            lines = stream.getvalue().split("\r\x1b[2K")
            assert lines == ["", r"open\x1b", f"measure [{'#' * 10}{'.' * 20}] 1/3", f"measure [{'#' * 30}] 3/3", ""]
        else:
            assert stream.getvalue() == ""


def test_the_bar_says_what_is_left_once_it_can_tell() -> None:
    now = [0.0]
    stream = io.StringIO()
    bar = _Bar(stream, lambda: now[0])
    for seconds, stage, done, total in (
        (0.0, "search", 0, None),
        (0.5, "search", 1, 10),  # too early to tell
        (5.0, "search", 2, 10),
        (5.5, "prune", 1, 4),  # another stage in between, which is new
        (10.0, "search", 4, 10),
        (11.0, "search", 1, 10),  # the same stage once more
        (1000.0, "search", 2, 10),
        (1001.0, "search", 10, 10),
        (1002.0, "draw", 3, None),
    ):
        now[0] = seconds
        bar.advance(stage, done, total)
    drawn = [line.split("] ")[-1] for line in stream.getvalue().split("\r\x1b[2K")[1:]]
    assert drawn == [
        "search",
        "1/10",
        "2/10, about 20 s left",
        "1/4",
        "4/10, about 15 s left",
        "1/10",
        "2/10, about 66 min left",
        "10/10",
        "draw 3",
    ]
