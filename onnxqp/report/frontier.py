"""The candidates of a search as a table: what each was worth, and which one was taken."""

from __future__ import annotations

from collections.abc import Iterator

from onnxqp.report import text
from onnxqp.report.blocks import Block, Line, Row
from onnxqp.report.records import FrontierPoint, Report


def frontier(report: Report) -> Iterator[Block]:
    """In the order in which they were judged; columns that no candidate has are left out."""
    points = report.frontier or []
    if not points:
        return
    names = list(dict.fromkeys(name for point in points for name in point.settings))
    columns = [name for name in _MEASURED if any(getattr(point, name) is not None for point in points)]
    heads = (
        "",
        *(_HEADS.get(name, name.replace("_", " ")) for name in names),
        "speed-up",
        *(_MEASURED[name] for name in columns),
    )
    rows = tuple(_row(point, names, columns) for point in points)
    lines = () if report.choice is None else (Line(text.printable(report.choice)),)
    yield Block("candidates judged", heads, rows, lines)


_HEADS = {"macs_ratio": "MACs left", "nodes_on_integers": "int8 nodes", "weights_packed": "4-bit weights"}
_MEASURED = {
    "accuracy": "accuracy",
    "agreement": "agreement",
    "sqnr_db": "SQNR dB",
    "size_ratio": "smaller",
    "kept": "budgets",
}


def _row(point: FrontierPoint, names: list[str], columns: list[str]) -> Row:
    settings = (text.printable(str(point.settings.get(name, ""))) for name in names)
    measured = (_value(name, getattr(point, name)) for name in columns)
    return "taken" if point.chosen else "", *settings, text.times(point.speedup), *measured


def _value(name: str, value: float | bool | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "kept" if value else "missed"
    return text.times(value) if name == "size_ratio" else text.percent(value) if name == "agreement" else f"{value:.2f}"
