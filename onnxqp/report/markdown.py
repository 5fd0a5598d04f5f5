"""The report as GitHub-flavoured Markdown, for a pull request or a job summary."""

from __future__ import annotations

import re
from collections.abc import Iterator

from onnxqp.report.blocks import Block, Tone
from onnxqp.report.outline import outline
from onnxqp.report.records import Report
from onnxqp.report.text import printable

_MARKS: dict[Tone, tuple[str, str]] = {"plain": ("", ""), "good": ("**", "**"), "bad": ("**", "**"), "quiet": ("", "")}
_SPECIAL = re.compile(r"[\\`*_\[\]<>|~$]")
_ENTITIES = {"&": "&amp;", "#": "&#35;", "@": "&#64;", "://": "&#58;//", "www.": "www&#46;"}  # links, mentions, issues
_LINKING = re.compile("|".join(map(re.escape, _ENTITIES)))


def render(report: Report) -> str:
    """One document: verdict, warnings, before and after, what was left alone and why."""
    return "\n".join(_document(report)) + "\n"


def escape(text: str) -> str:
    """`text` as literal Markdown on one line, safe inside a table cell."""
    entities = _LINKING.sub(lambda found: _ENTITIES[found[0]], printable(text))
    return _SPECIAL.sub(lambda found: "\\" + found[0], entities)


def _document(report: Report) -> Iterator[str]:
    verdict = "passed" if report.passed else "FAILED"
    yield f"# onnxqp {escape(report.command)}: {verdict}"
    yield ""
    if report.warnings:
        yield "**Warnings**"
        yield ""
        yield from (f"- {escape(warning)}" for warning in report.warnings)
        yield ""
    for block in outline(report):
        yield from _block(block)
    yield from _environment(report)


def _block(block: Block) -> Iterator[str]:
    if block.title:
        yield f"## {escape(block.title)}"
        yield ""
    if block.rows:
        yield _row(block.columns)
        yield _row(["---" if index < block.texts else "---:" for index in range(len(block.columns))], literal=True)
        yield from (_row(row) for row in block.rows)
        yield ""
    for line in block.lines:
        before, after = _MARKS[line.tone]
        yield f"{before}{escape(line.text)}{after}"
        yield ""


def _row(cells: tuple[str, ...] | list[str], *, literal: bool = False) -> str:
    return "| " + " | ".join(cell if literal else escape(cell) for cell in cells) + " |"


def _environment(report: Report) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    machine = report.machine
    yield f"{escape(machine.cpu)}, target {escape(machine.target)}. {escape(versions)}."
