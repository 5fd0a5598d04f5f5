"""Run the command line over every model of the zoo and of the onnx package, and say what became of each.

    python benchmarks/sweep.py                              # everything, one table in sweep.md, all facts in sweep.json
    python benchmarks/sweep.py --only 'zoo/resnet*' --commands quantize,validate
    python benchmarks/sweep.py --only onnx/simple --no-validate

Each command is a process of its own with a time limit. A model is named by its source and file: `zoo/resnet20_cifar10`,
`onnx/simple/test_gradient_of_add`. Every file that a command wrote is opened and run by onnxruntime in yet another
process. `validate` compares the model with each file written, or with itself where there is none.

The exit code is 1 if a command ended outside the table of exit codes (a bug, a crash, no end within the time limit,
an option refused), showed a traceback, gave no report, or wrote a file that onnxruntime does not run.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("quantize", "prune", "validate")
REFUSALS = {3: "model", 4: "data", 5: "unsupported", 7: "resource"}  # honest ends of a run over unknown models
EXPECTED = {0, 1, *REFUSALS}


@dataclass(frozen=True)
class Subject:
    """One model. `feeds` is the Python hook of its data, as `--data` takes it, if there is one."""

    name: str
    path: Path
    feeds: str | None = None


@dataclass
class Outcome:
    """What one command did with one model."""

    model: str
    command: str
    exit: int
    seconds: float
    kind: str | None = None
    message: str | None = None
    hint: str | None = None
    runs: bool | None = None  # the file written, in onnxruntime, seen from outside
    input_runs: bool | None = None  # of a refusal: the model given, likewise
    faults: list[str] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if options.check:
        return _check(options.check, options.feeds)
    subjects = [subject for subject in _subjects(options.zoo) if _chosen(subject.name, options.only)]
    if not subjects:
        print(f"no model matches; the zoo is looked for in {options.zoo}", file=sys.stderr)
        return 2
    outcomes: list[Outcome] = []
    for place, subject in enumerate(subjects, start=1):
        with tempfile.TemporaryDirectory(prefix="onnxqp-sweep-") as folder:
            for outcome in _judge(subject, Path(folder), options):
                outcomes.append(outcome)
                print(f"[{place}/{len(subjects)}] {subject.name} {_line(outcome)}", file=sys.stderr, flush=True)
        _write(options.output, outcomes)
    print(_summary(outcomes))
    return 1 if any(outcome.faults for outcome in outcomes) else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    zoo = os.environ.get("ONNXQP_ZOO", str(ROOT.parent / "shared" / "zoo"))
    parser.add_argument("--zoo", type=Path, default=Path(zoo), help="folder of the zoo (ONNXQP_ZOO, ../shared/zoo)")
    parser.add_argument(
        "--only", action="append", default=[], metavar="GLOB", help="models whose name matches or starts so"
    )
    parser.add_argument("--commands", default=",".join(COMMANDS), help="which of " + ", ".join(COMMANDS))
    parser.add_argument("--samples", type=int, default=64, help="calibration samples (64)")
    parser.add_argument("--no-validate", action="store_true", help="quantize and prune do not measure what they made")
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="limit of one command (600)")
    parser.add_argument("--output", type=Path, default=Path("sweep"), help="where the .md and .json go, without suffix")
    parser.add_argument("--check", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--feeds", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.commands = options.commands.split(",")
    if unknown := set(options.commands) - set(COMMANDS):
        parser.error(f"unknown command {', '.join(sorted(unknown))}")
    return options


def _chosen(name: str, only: Sequence[str]) -> bool:
    return not only or any(fnmatchcase(name, glob) or name.startswith(glob) for glob in only)


def _subjects(zoo: Path) -> Iterator[Subject]:
    for path in sorted((zoo / "models").glob("*.onnx")):
        yield Subject(f"zoo/{path.stem}", path, f"{zoo / 'feeds.py'}:{path.stem}")
    import onnx

    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    for path in sorted(data.rglob("*.onnx")):
        name = path.relative_to(data).with_suffix("")
        yield Subject(f"onnx/{name.parent if name.name == 'model' else name}", path)


# ---- one model -----------------------------------------------------------------------------------------------


def _judge(subject: Subject, folder: Path, options: argparse.Namespace) -> Iterator[Outcome]:
    made: list[Path] = []
    for command, suffix, settings in (("quantize", "int8", []), ("prune", "pruned", ["--ratio", "0.5"])):
        if command not in options.commands:
            continue
        output = folder / f"{subject.path.stem}.{suffix}.onnx"
        data = ["--data", subject.feeds] if subject.feeds else []
        unmeasured = ["--no-validate"] if options.no_validate else []
        samples = ["--samples", str(options.samples)]
        arguments = [str(subject.path), "-o", str(output), *settings, *data, *samples, *unmeasured]
        outcome = _run(subject.name, command, arguments, options.timeout)
        _look_at(outcome, output, subject)
        if output.exists():
            made.append(output)
        yield outcome
    if "validate" in options.commands:
        for candidate in made or [subject.path]:
            data = ["--eval", f"{subject.feeds}__eval"] if subject.feeds else ["--samples", str(options.samples)]
            outcome = _run(subject.name, "validate", [str(subject.path), str(candidate), *data], options.timeout)
            outcome.command += " " + (candidate.suffixes[-2].strip(".") if candidate in made else "itself")
            yield outcome


def _run(model: str, command: str, arguments: Sequence[str], limit: float) -> Outcome:
    """One command in a process group of its own, so that its children end with it."""
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "onnxqp", command, *arguments, "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=ROOT,
        start_new_session=True,
    )
    faults = []
    try:
        stdout, stderr = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        faults.append(f"no end within {limit:.0f} s")
    outcome = Outcome(model, command, process.returncode, round(time.monotonic() - start, 2), faults=faults)
    if not faults and outcome.exit not in EXPECTED:
        faults.append(f"exit code {outcome.exit}")
    if "Traceback (most recent call last)" in stderr:
        faults.append("traceback")
    _read_report(outcome, stdout, stderr)
    return outcome


def _read_report(outcome: Outcome, stdout: str, stderr: str) -> None:
    try:
        report = json.loads(stdout)
    except ValueError:
        if not outcome.faults:
            outcome.faults.append("no JSON report")
        outcome.message = stderr.strip().splitlines()[-1][:300] if stderr.strip() else None
        return
    error = report.get("error") if isinstance(report, dict) else None
    if error is None:
        outcome.report = report
        return
    outcome.kind, outcome.message, outcome.hint = (error.get(key) for key in ("kind", "message", "hint"))
    if not (outcome.kind and outcome.message and outcome.hint):
        outcome.faults.append("an error without kind, message or hint")
    if error.get("code") != outcome.exit:
        outcome.faults.append(f"the error's code {error.get('code')} is not the exit code")


def _look_at(outcome: Outcome, output: Path, subject: Subject) -> None:
    """Is there a file exactly when the command says so, and does onnxruntime run it?"""
    if not output.exists():
        if outcome.exit == 0:
            outcome.faults.append("exit code 0 without a file")
        else:
            outcome.input_runs = _complaint(subject.path, subject) is None
        return
    if outcome.exit != 0:
        outcome.faults.append("a file in spite of an error")
    complaint = _complaint(output, subject)
    outcome.runs = complaint is None
    if complaint is not None:
        outcome.faults.append(f"the file does not run: {complaint}")


@functools.cache
def _complaint(path: Path, subject: Subject) -> str | None:
    """Why onnxruntime, in a process of its own, does not run the file; None: it does."""
    feeds = ["--feeds", subject.feeds] if subject.feeds else []
    found = subprocess.run(
        [sys.executable, __file__, "--check", str(path), *feeds],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=600,
        check=False,
    )
    if found.returncode == 0:
        return None
    return (found.stderr.strip().splitlines()[-1:] or [f"exit code {found.returncode}"])[0][:200]


def _check(path: Path, feeds: str | None) -> int:
    """Runs once, apart from all of onnxqp: on the first sample of the hook, else on plain numbers."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    session.run(None, _first(feeds) if feeds else {item.name: _plain(item) for item in session.get_inputs()})
    return 0


def _first(feeds: str) -> dict[str, Any]:
    import importlib.util

    file, _, name = feeds.rpartition(":")
    spec = importlib.util.spec_from_file_location("feeds", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dict(next(iter(getattr(module, name)())))


def _plain(item: Any) -> Any:
    """Halves, zeros or empty texts in the shape declared, open dimensions 1."""
    import numpy as np

    shape = [size if isinstance(size, int) else 1 for size in item.shape]
    kind = item.type.removeprefix("tensor(").removesuffix(")")
    if kind == "string":
        return np.full(shape, "a", dtype=object)
    names = {"float": "float32", "double": "float64"}
    array = np.zeros(shape, dtype=np.dtype(names.get(kind, kind)))
    return array + array.dtype.type(0.5) if array.dtype.kind == "f" else array


# ---- what came out ------------------------------------------------------------------------------------------


def _write(stem: Path, outcomes: Sequence[Outcome]) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    facts = [asdict(outcome) for outcome in outcomes]
    stem.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    rows = ["| model | command | exit | s | result |", "|---|---|---|---|---|"]
    for one in outcomes:
        cells = (one.model, one.command, str(one.exit), f"{one.seconds:.1f}", _result(one))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    text = "\n".join(["# Sweep", "", _summary(outcomes), "", *rows, ""])
    stem.with_suffix(".md").write_text(text, encoding="utf-8")


def _summary(outcomes: Sequence[Outcome]) -> str:
    """One line per command: how often each exit code, then the faults."""
    lines = []
    for command in dict.fromkeys(outcome.command for outcome in outcomes):
        codes = Counter(outcome.exit for outcome in outcomes if outcome.command == command)
        told = ", ".join(f"{count} × exit {code}" for code, count in sorted(codes.items()))
        lines.append(f"- {command}: {told}")
    written = [outcome for outcome in outcomes if outcome.runs is not None]
    faulty = [outcome for outcome in outcomes if outcome.faults]
    models = len({outcome.model for outcome in outcomes})
    lines.append(
        f"- {models} models, {len(outcomes)} commands, {len(written)} files written, "
        f"{sum(bool(outcome.runs) for outcome in written)} of them run in onnxruntime, {len(faulty)} faults"
    )
    return "\n".join(lines)


def _line(outcome: Outcome) -> str:
    return f"{outcome.command}: exit {outcome.exit}, {outcome.seconds:.1f} s, {_result(outcome)}"


def _result(outcome: Outcome) -> str:
    """The figures of the report, or the reason of the refusal; faults first."""
    parts = [f"**{fault}**" for fault in outcome.faults]
    if outcome.message:
        parts.append(" ".join(outcome.message.split())[:200])
    if outcome.input_runs and outcome.exit in (3, 4):
        parts.append("(onnxruntime does run the model)")
    report = outcome.report
    parts += [text.format(value) for path, text in _FIGURES if (value := _at(report, path)) is not None]
    channels = report.get("pruning", {})
    if "channels_before" in channels:
        parts.append(f"{channels['channels_before']} → {channels['channels_after']} channels")
    nodes = report.get("quantization", {})
    if "nodes_quantizable" in nodes and outcome.command == "quantize":
        parts.append(f"{nodes['nodes_quantized']} of {nodes['nodes_quantizable']} nodes, {nodes['nodes_fused']} fused")
    proof = channels.get("proof")
    if proof:
        parts.append("proven" if proof.get("checked") else f"not proven: {proof.get('skipped_reason', 'disagrees')}")
    return ", ".join(parts)


_FIGURES = (
    ("size.ratio", "{:.3g}× smaller"),
    ("latency.speedup", "{:.2f}× faster"),
    ("latency.noise", "noise {:.1%}"),
    ("accuracy.baseline", "accuracy {:.2f}"),
    ("accuracy.drop", "drop {:+.2f}"),
    ("fidelity.top1_agreement", "agreement {:.1f} %"),
    ("fidelity.sqnr_db", "SQNR {:.1f} dB"),
    ("fidelity.cosine_min", "cosine {:.4f}"),
)


def _at(report: dict[str, Any], path: str) -> Any:
    value: Any = report
    for key in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


if __name__ == "__main__":
    sys.exit(main())
