"""A report file: the suffix says which view it holds. Written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from onnxqp import outputs
from onnxqp.errors import UsageError
from onnxqp.report import html, junit, markdown
from onnxqp.report.records import Report


def to_json(report: Report) -> str:
    """One JSON object, in ASCII, so that it survives any locale and any name."""
    return json.dumps(report.to_dict(), indent=2, allow_nan=False)


_VIEWS: dict[str, Callable[[Report], bytes]] = {
    ".json": lambda report: to_json(report).encode() + b"\n",
    ".md": lambda report: markdown.render(report).encode("utf-8", "backslashreplace"),
    ".html": lambda report: html.render(report).encode("utf-8", "backslashreplace"),
    ".xml": junit.render,
}
SUFFIXES = tuple(_VIEWS)


def check_suffix(path: Path) -> None:
    """Raise UsageError when no view has the suffix of `path`."""
    if path.suffix.lower() not in _VIEWS:
        raise UsageError(
            f"no kind of report ends in {path.suffix!r}" if path.suffix else "the report's name has no suffix",
            where=str(path),
            hint=f"end the name in one of {', '.join(SUFFIXES)}",
        )


def write(report: Report, path: Path) -> None:
    """Write the view that the suffix of `path` names; an older report there is replaced at the very end."""
    check_suffix(path)
    content = _VIEWS[path.suffix.lower()](report)
    outputs.write(path, lambda file: file.write(content), what="report")
