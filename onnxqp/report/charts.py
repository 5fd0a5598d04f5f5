"""Bars and intervals for the HTML report: inline SVG beside labels in HTML, since text in a drawing shrinks with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from onnxqp.report.text import printable

_WIDTH = 1000.0  # of every drawing, in its own units


def literal(text: str) -> str:
    """`text` as HTML shows it: nothing of it is markup, on one line, control characters as escapes."""
    return escape(printable(text), quote=True)


@dataclass(frozen=True)
class Piece:
    """A rectangle between two shares of the width, 0 to 1; `style` are classes of the style sheet."""

    start: float
    end: float
    style: str
    thin: bool = False


@dataclass(frozen=True)
class Bar:
    """One line of a chart: what it is, its drawing, and its value in words."""

    label: str
    pieces: tuple[Piece, ...]
    value: str


def chart(bars: Iterable[Bar]) -> str:
    """Lines of label, drawing and value."""
    return "".join(
        f'<div class="bar"><div class="label">{literal(bar.label)}</div>{_drawing(bar)}'
        f'<div class="value">{literal(bar.value)}</div></div>\n'
        for bar in bars
    )


def key(names: Sequence[tuple[str, str]]) -> str:
    """What the colours mean."""
    return (
        '<p class="key">'
        + "".join(f'<span class="swatch {style}"></span>{literal(name)}' for style, name in names)
        + "</p>\n"
    )


def _drawing(bar: Bar) -> str:
    pieces = "".join(_rectangle(piece) for piece in bar.pieces)
    name = literal(f"{bar.label}: {bar.value}")
    return (
        f'<svg viewBox="0 0 {_WIDTH:.0f} 20" preserveAspectRatio="none" role="img" aria-label="{name}">{pieces}</svg>'
    )


def _rectangle(piece: Piece) -> str:
    start, end = (_WIDTH * min(1.0, max(0.0, share)) for share in (piece.start, piece.end))
    y, height = (9, 2) if piece.thin else (3, 14)
    return (
        f'<rect x="{start:.1f}" y="{y}" width="{max(1.5, end - start):.1f}" height="{height}" class="{piece.style}"/>'
    )


def interval(
    label: str, value: float, low: float, high: float, *, reference: float, limit: float | None, shown: str
) -> Bar:
    """A value with its interval, the value that would mean no change, and a limit, on one axis that holds them all."""
    marks = [value, low, high, reference, *([limit] if limit is not None else [])]
    span = (max(marks) - min(marks)) or 1.0
    left, width = min(marks) - 0.1 * span, 1.2 * span

    def share(mark: float) -> float:
        return (mark - left) / width

    pieces = [
        Piece(0.0, 1.0, "fill-line", thin=True),
        Piece(share(reference) - 0.001, share(reference) + 0.001, "fill-ink"),
        Piece(share(low), share(high), "fill-after half"),
        Piece(share(value) - 0.004, share(value) + 0.004, "fill-after"),
    ]
    if limit is not None:
        pieces.append(Piece(share(limit) - 0.002, share(limit) + 0.002, "fill-bad"))
    return Bar(label, tuple(pieces), shown)
