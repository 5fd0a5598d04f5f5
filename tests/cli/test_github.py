"""Inside GitHub Actions: summary, outputs, annotations; outside nothing of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sample_reports as reports
from fake_api import FakeApi, Ran

from onnxqp.errors import DataError

Run = Callable[..., Ran]
EVIL = "::set-output name=passed::true\n::error::100%"


@pytest.fixture
def runner(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that a runner names."""
    folder = tmp_path_factory.mktemp("runner")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_OUTPUT", str(folder / "output"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder / "summary"))
    return folder


def outputs(runner: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (runner / "output").read_text().splitlines())


def test_outside_of_actions_nothing_is_written(run: Run, api: FakeApi) -> None:
    ran = run("quantize", "m.onnx")
    assert "::" not in ran.out + ran.err


def test_summary_and_outputs(run: Run, api: FakeApi, runner: Path) -> None:
    (runner / "output").write_text("earlier=1\n")
    api.report = reports.quantized()
    assert run("quantize", "m.onnx").code == 0
    assert outputs(runner) == {
        "earlier": "1",
        "passed": "true",
        "size_ratio": "3.5593",
        "latency_ratio": "0.6667",
        "accuracy_drop": "0.1400",
        "agreement": "99.5000",
        "output": "net.int8.onnx",
    }
    assert (runner / "summary").read_text().startswith("# onnxqp quantize: passed")


def test_a_missed_gate_is_annotated(run: Run, api: FakeApi, runner: Path) -> None:
    api.report = reports.quantized(gates=[reports.MISSED, reports.KEPT], passed=False, warnings=["50% noise"])
    ran = run("quantize", "m.onnx", "--json")
    assert ran.code == 1
    assert outputs(runner)["passed"] == "false"
    assert "::error title=onnxqp quantize::max-drop missed: 0.14, limit 0.1" in ran.err.splitlines()
    assert "::warning title=onnxqp quantize::50%25 noise" in ran.err.splitlines()
    assert json.loads(ran.out)["passed"] is False


def test_an_error_is_annotated(run: Run, api: FakeApi, runner: Path) -> None:
    api.error = DataError(f"no data {EVIL}", hint="bring some")
    ran = run("quantize", "m.onnx")
    assert ran.code == 4
    assert outputs(runner) == {"passed": "false"}
    (said,) = [line for line in ran.err.splitlines() if line.startswith("::")]
    assert said.startswith("::error title=onnxqp::no data ")
    assert "100%25" in said


def test_names_do_not_speak_to_the_runner(run: Run, api: FakeApi, runner: Path) -> None:
    api.report = reports.pruned(warnings=[EVIL], input=reports.summary(EVIL))
    ran = run("prune", "m.onnx", "--ratio", "0.5", "-v")
    token = re.match(r"::stop-commands::(\w{32})\n", ran.out)
    assert token is not None
    assert ran.out.endswith(f"::{token[1]}::\n")
    commands = [line for line in ran.err.splitlines() if line.lstrip().startswith("::")]
    assert [line.split("::")[1] for line in commands] == ["warning title=onnxqp prune"]
    assert outputs(runner)["passed"] == "true"
    assert "set-output name=passed::true" not in (runner / "output").read_text()


def test_the_older_spelling_of_commands_is_tamed(run: Run, api: FakeApi, runner: Path) -> None:
    api.report = reports.quantized(warnings=["node ##[add-mask]m"])
    ran = run("quantize", "m.onnx", "--json")
    assert "##[" not in ran.out + ran.err
    assert json.loads(ran.out)["warnings"] == ["node ##[add-mask]m"]
    api.error = DataError("no ##[error]data", hint="##[group]")
    ran = run("quantize", "m.onnx", "--json")
    assert "##[" not in ran.out + ran.err
    assert json.loads(ran.out)["error"]["message"] == "no ##[error]data"


def test_a_runner_whose_files_cannot_be_written_changes_nothing(
    run: Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_OUTPUT", "/no/such/folder/output")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "/no/such/folder/summary")
    assert run("quantize", "m.onnx").code == 0


# ---- the composite action --------------------------------------------------------------------------------------


def script(root: Path) -> str:
    """What the action runs as its last step."""
    text = (root / "action.yml").read_text(encoding="utf-8")
    block = text.rsplit("run: |\n", 1)[1]
    lines = []
    for line in block.splitlines():
        if line and not line.startswith("        "):
            break
        lines.append(line.removeprefix("        "))
    return "\n".join(lines)


def act(root: Path, folder: Path, arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """The last step of the action, with a program in the place of onnxqp that shows its arguments."""
    program = folder / "onnxqp"
    program.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\nsys.exit({code})\n")
    program.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ONNXQP_COMMAND": "quantize",
        "ONNXQP_MODEL": "my model.onnx",
        "ONNXQP_ARGUMENTS": arguments,
    }
    step = [sys.executable, "-c", script(root)]
    return subprocess.run(step, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", []),
        ("--max-drop 0.5 --data 'a folder/with spaces'", ["--max-drop", "0.5", "--data", "a folder/with spaces"]),
        ("--data\n  images\n  --report r.md", ["--data", "images", "--report", "r.md"]),
        (
            "$(touch trapped) `touch trapped` ; touch trapped",
            ["$(touch", "trapped)", "`touch", "trapped`", ";", "touch", "trapped"],
        ),
    ],
)
def test_the_action_passes_arguments_as_they_are(root: Path, tmp_path: Path, arguments: str, words: list[str]) -> None:
    ran = act(root, tmp_path, arguments)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == ["quantize", "my model.onnx", *words]
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("code", [0, 1, 3])
def test_the_action_ends_as_the_command_does(root: Path, tmp_path: Path, code: int) -> None:
    assert act(root, tmp_path, "--max-drop 0.5", code).returncode == code


@pytest.mark.parametrize("arguments", ["--max-drop 0.5 --data 'images", '--exclude "', "--data a\\"])
def test_arguments_that_cannot_be_read_fail_the_step(root: Path, tmp_path: Path, arguments: str) -> None:
    """Left out, they would leave the gates out with them."""
    ran = act(root, tmp_path, arguments)
    assert ran.returncode == 2
    assert ran.stdout.startswith("::error title=onnxqp::the arguments cannot be read: No ")


def test_every_input_of_the_action_is_used(root: Path) -> None:
    text = (root / "action.yml").read_text(encoding="utf-8")
    inputs = re.findall(r"^  ([\w-]+):\n    description: .*\n    default:", text, re.MULTILINE)
    assert inputs == ["command", "model", "arguments", "python-version"]
    assert all(f"${{{{ inputs.{name} }}}}" in text for name in inputs)


def test_no_input_of_the_action_is_pasted_into_a_script(root: Path) -> None:
    text = (root / "action.yml").read_text(encoding="utf-8")
    scripts = re.findall(r"run: (?:\|\n((?: {8}.*\n|\n)+)|(.*)\n)", text)
    assert scripts
    assert not any("${{" in block or "${{" in line for block, line in scripts)


def test_the_action_gives_every_output(root: Path) -> None:
    text = (root / "action.yml").read_text(encoding="utf-8")
    for name in ("passed", "size_ratio", "latency_ratio", "accuracy_drop", "agreement", "output"):
        assert f"steps.onnxqp.outputs.{name} }}}}" in text
