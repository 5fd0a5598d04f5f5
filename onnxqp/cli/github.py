"""Inside GitHub Actions: the report as step summary, figures as step outputs, misses and warnings as annotations.

Where the runner names no file for them, nothing happens. The files and commands:
https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
Every text goes through `_escaped`, so that a name in a model cannot speak to the runner.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from onnxqp.report.text import printable

if TYPE_CHECKING:
    from onnxqp.report.records import Report

_WRITING = ("quantize", "prune", "compress")  # commands whose output is a file they wrote
_LARGEST_SUMMARY = 900_000  # bytes: GitHub refuses more than a mebibyte


def publish(report: Report) -> None:
    """Tell the runner what a command found; never fails, for the result stands whatever becomes of its news."""
    if os.environ.get("GITHUB_STEP_SUMMARY"):
        from onnxqp.report import markdown

        _append("GITHUB_STEP_SUMMARY", markdown.render(report)[:_LARGEST_SUMMARY])
    _append("GITHUB_OUTPUT", "".join(f"{name}={value}\n" for name, value in _outputs(report)))
    if _annotates():
        for warning in report.warnings:
            _annotate("warning", f"onnxqp {report.command}", warning)
        for gate in report.gates:
            if not gate.passed:
                _annotate(
                    "error", f"onnxqp {report.command}", f"{gate.name} missed: {gate.value:g}, limit {gate.limit:g}"
                )


def publish_failure(message: str, hint: str) -> None:
    """Tell the runner of an error that ended the command."""
    _append("GITHUB_OUTPUT", "passed=false\n")
    if _annotates():
        _annotate("error", "onnxqp", f"{message} ({hint})")


@contextlib.contextmanager
def literal() -> Iterator[None]:
    """What is printed on stdout meanwhile is text to the runner: a node may be called like one of its commands."""
    if not _annotates():
        yield
        return
    token = secrets.token_hex(16)
    sys.stdout.write(f"::stop-commands::{token}\n")
    try:
        yield
    finally:
        sys.stdout.write(f"::{token}::\n")


def tamed(text: str) -> str:
    """`text` without the older spelling of commands, `##[name]`, which the runner obeys anywhere in a line."""
    return text.replace("##[", "## [") if _annotates() else text


def tamed_json(text: str) -> str:
    """The same JSON value, in which the runner finds no command."""
    return text.replace("##[", "#\\u0023[") if _annotates() else text


def _outputs(report: Report) -> Iterator[tuple[str, str]]:
    """`size_ratio` as in the report; `latency_ratio` and `accuracy_drop` so that less is better."""
    yield "passed", "true" if report.passed else "false"
    if report.size is not None:
        yield "size_ratio", f"{report.size.ratio:.4f}"
    if report.latency is not None and report.latency.speedup > 0:
        yield "latency_ratio", f"{1 / report.latency.speedup:.4f}"
    if report.accuracy is not None:
        yield "accuracy_drop", f"{report.accuracy.drop:.4f}"
    if report.fidelity is not None and report.fidelity.top1_agreement is not None:
        yield "agreement", f"{report.fidelity.top1_agreement:.4f}"
    if report.command in _WRITING and report.output is not None and report.passed:
        yield "output", printable(report.output.path)


def _append(variable: str, text: str) -> None:
    path = os.environ.get(variable)
    if path:
        with contextlib.suppress(OSError, ValueError), Path(path).open("a", encoding="utf-8", errors="replace") as file:
            file.write(text)


def _annotates() -> bool:
    return os.environ.get("GITHUB_ACTIONS") == "true"


def _annotate(kind: str, title: str, message: str) -> None:
    """On stderr, which the runner reads as well: stdout may be the JSON of somebody else."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"::{kind} title={_escaped(title, in_property=True)}::{_escaped(message)}\n")


def _escaped(text: str, *, in_property: bool = False) -> str:
    found = tamed(printable(text)).replace("%", "%25")
    return found.replace(":", "%3A").replace(",", "%2C") if in_property else found
