"""Latency for the HTML report: how long half, nine of ten and nearly all runs took, and how often which time came."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from onnxqp.report import text
from onnxqp.report.charts import Bar, Piece, chart, key, literal
from onnxqp.report.records import Histogram, LatencyStats, Report

_WIDTH, _HEIGHT = 1000.0, 60.0  # of a histogram, in its own units
_Row: TypeAlias = tuple[str, LatencyStats, str]


def latency_chart(report: Report) -> Iterator[str]:
    """Bars from zero, then the histograms, on a scale of their own."""
    rows = _rows(report)
    if not rows:
        return
    most = max(max(stats.p99_ms, stats.p50_ms) for _, stats, _ in rows) or 1.0
    yield "<h3>Latency</h3>\n"
    yield chart(_bar(name, stats, style, most) for name, stats, style in rows)
    names = ("half of the runs", "nine of ten", "ninety-nine of a hundred")
    yield key([(f"fill-ink {strength}", name) for strength, name in zip(("", "half", "third"), names, strict=True)])
    yield from _distribution(rows)


def _rows(report: Report) -> list[_Row]:
    if report.latency is not None:
        return [("before", report.latency.baseline, "fill-before"), ("after", report.latency.candidate, "fill-after")]
    return [(model.path, model.latency, "fill-after") for model in report.models or ()]


def _bar(name: str, stats: LatencyStats, style: str, most: float) -> Bar:
    p50, p90, p99 = (value / most for value in (stats.p50_ms, stats.p90_ms, stats.p99_ms))
    pieces = (
        Piece(0, p50, style),
        Piece(p50, max(p50, p90), f"{style} half"),
        Piece(p90, max(p90, p99), f"{style} third"),
    )
    return Bar(name, pieces, text.milliseconds(stats.p50_ms))


def _distribution(rows: Sequence[_Row]) -> Iterator[str]:
    """One histogram below the other, on one axis; where the runs were counted in the same bins."""
    found = [(name, stats.histogram, style) for name, stats, style in rows if stats.histogram is not None]
    if not found or any(each.edges_ms != found[0][1].edges_ms for _, each, _ in found):
        return
    edges = found[0][1].edges_ms
    yield "<h3>How long each run took</h3>\n"
    for name, each, style in found:
        runs = text.plural(sum(each.counts), "run")
        yield (
            f'<div class="bar tall"><div class="label">{literal(name)}</div>{_drawing(name, each, style)}'
            f'<div class="value">{literal(runs)}</div></div>\n'
        )
    low, high = text.milliseconds(edges[0]), text.milliseconds(edges[-1])
    yield f'<p class="key">From {literal(low)} on the left to {literal(high)} or longer on the right, by ratio.</p>\n'


def _drawing(name: str, histogram: Histogram, style: str) -> str:
    most, wide = max(histogram.counts) or 1, _WIDTH / len(histogram.counts)
    steps = "".join(
        f"V{_HEIGHT * (1 - count / most):.1f}H{wide * place:.1f}" for place, count in enumerate(histogram.counts, 1)
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" preserveAspectRatio="none" role="img" '
        f'aria-label="{literal(f"latency of {name}")}">'
        f'<path class="{style}" d="M0 {_HEIGHT:.0f}{steps}V{_HEIGHT:.0f}Z"/>'
        f'<rect x="0" y="{_HEIGHT:.0f}" width="{_WIDTH:.0f}" height="1" class="fill-line"/></svg>'
    )
