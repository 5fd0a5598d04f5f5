"""The example workflow, step by step as a runner would take it: it shrinks a model and gates it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

STEP = re.compile(
    r"uses: \./\n +with:\n +command: (?P<command>.+)\n +model: (?P<model>.+)\n"
    r" +arguments: (?:>-\n(?P<folded>(?: {12}.*\n)+)|(?P<line>.+)\n)"
)


def test_the_example_workflow_shrinks_a_model_and_gates_it(root: Path, tmp_path: Path) -> None:
    workflow = (root / ".github" / "workflows" / "model.yml").read_text(encoding="utf-8")
    steps = list(STEP.finditer(workflow))
    assert [step["command"] for step in steps] == ["quantize", "validate"]
    shutil.copytree(root / "sample_models" / "data", tmp_path / "sample_models" / "data")
    shutil.copytree(root / "docs" / "example", tmp_path / "docs" / "example")
    shutil.copy(root / "sample_models" / "residual_cnn.onnx", tmp_path / "sample_models")
    for step in steps:
        ran = act(root, tmp_path, step["command"], step["model"], step["folded"] or step["line"])
        assert ran.returncode == 0, ran.stderr
    told = dict(line.split("=", 1) for line in (tmp_path / "output").read_text().splitlines())
    assert told["passed"] == "true"
    assert float(told["size_ratio"]) > 2.5
    summary = (tmp_path / "summary").read_text(encoding="utf-8")
    assert "# onnxqp quantize: passed" in summary
    assert "# onnxqp validate: passed" in summary
    assert (tmp_path / "small.onnx").stat().st_size < 500_000
    assert all((tmp_path / name).stat().st_size for name in ("report.html", "report.xml"))


def act(root: Path, folder: Path, command: str, model: str, arguments: str) -> subprocess.CompletedProcess[str]:
    """The last step of the action, in `folder`."""
    block = (root / "action.yml").read_text(encoding="utf-8").rsplit("run: |\n", 1)[1]
    script = "\n".join(line.removeprefix("        ") for line in block.splitlines())
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "GITHUB_ACTIONS": "true",
        "GITHUB_OUTPUT": str(folder / "output"),
        "GITHUB_STEP_SUMMARY": str(folder / "summary"),
        "ONNXQP_COMMAND": command,
        "ONNXQP_MODEL": model,
        "ONNXQP_ARGUMENTS": arguments,
    }
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
