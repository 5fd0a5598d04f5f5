"""Points on two axes for the HTML report: the frontier of a search, and the error along a graph.

The drawing stretches with the page, so its points are strokes of a fixed width, and all text stands beside it in HTML.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from onnxqp.report import text
from onnxqp.report.charts import key, literal
from onnxqp.report.records import FrontierPoint, Report

_WIDTH, _HEIGHT = 1000.0, 400.0  # of the drawing, in its own units
_TICKS = 8  # at most, or about
_CLEAR_DB = 60.0  # more is not told apart in a picture: the original itself has no noise
_CAUSES = {
    "rounding": "dot-after",
    "clipping": "dot-warm",
    "saturation": "dot-bad",
    "not finite": "dot-bad",
    "inherited": "dot-before",
    "none": "dot-before",
}


@dataclass(frozen=True)
class Dot:
    """A point in the units of its axes, a class of the style sheet, and what is said of it when it is pointed at."""

    x: float
    y: float
    style: str
    title: str


@dataclass(frozen=True)
class Axis:
    """What stands along it, and how a number on it is written."""

    name: str
    shown: Callable[[float], str]


def frontier_plot(report: Report) -> Iterator[str]:
    """What each candidate of a search was worth: speed against accuracy, and which was taken."""
    points = [(point, _worth(point)) for point in report.frontier or []]
    known = [(point, worth) for point, worth in points if worth is not None]
    if len(known) < 2:
        return
    exact = all(point.accuracy is not None for point, _ in known)
    metric = report.accuracy.metric if report.accuracy is not None else "accuracy"
    shares = any(point.agreement is not None for point, _ in known)
    name = metric if exact else "agreement in percent" if shares else f"SQNR in dB (at most {_CLEAR_DB:.0f})"
    best = _best([(point.speedup, worth) for point, worth in known])
    dots = [
        Dot(point.speedup, worth, _style(point, (point.speedup, worth) in best), _told(point, worth))
        for point, worth in sorted(known, key=lambda each: each[0].chosen)
    ]
    yield "<h3>Candidates of the search</h3>\n"
    yield plot(dots, Axis("speed-up", lambda value: f"{value:.3g}x"), Axis(name, text.number), line=best)
    names = [("fill-after", "none is better in both"), ("fill-before", "others")]
    yield key([("fill-good", "taken"), *names] if any(point.chosen for point, _ in known) else names)


def error_plot(report: Report) -> Iterator[str]:
    """The error of every value from input to output, coloured by its cause."""
    found = [each for each in report.tensors or [] if each.sqnr_db is not None]
    if len(found) < 2:
        return
    dots = [
        Dot(
            float(each.place),
            each.sqnr_db or 0.0,
            _CAUSES.get(each.cause, "dot-before"),
            f"{each.name}: {each.sqnr_db:.1f} dB, {each.cause}",
        )
        for each in found
    ]
    yield "<h3>Error along the graph</h3>\n"
    yield plot(dots, Axis("values, from input to output", text.number), Axis("SQNR in dB", text.number))
    yield key(
        [
            ("fill-after", "made by rounding"),
            ("fill-warm", "clipping"),
            ("fill-bad", "saturation"),
            ("fill-before", "inherited"),
        ]
    )


def plot(dots: Sequence[Dot], x: Axis, y: Axis, *, line: Iterable[tuple[float, float]] = ()) -> str:
    """The dots, a line through some places, and two axes with some round numbers."""
    across, up = _scale([dot.x for dot in dots]), _scale([dot.y for dot in dots])

    def place(left: float, high: float) -> str:
        return f"{_WIDTH * _share(left, across):.1f} {_HEIGHT * (1 - _share(high, up)):.1f}"

    grid = "".join(
        [
            *(f'<path class="grid" d="M{place(tick, up[0])}V0"/>' for tick in _ticks(across)),
            *(f'<path class="grid" d="M{place(across[0], tick)}H{_WIDTH:.0f}"/>' for tick in _ticks(up)),
        ]
    )
    corners = [place(*corner) for corner in line]
    path = f'<path class="line" d="M{"L".join(corners)}"/>' if len(corners) > 1 else ""
    marks = "".join(
        f'<path class="dot {dot.style}" d="M{place(dot.x, dot.y)}h.01"><title>{literal(dot.title)}</title></path>'
        for dot in dots
    )
    rows = "".join(
        f'<span style="bottom:{100 * _share(tick, up):.1f}%">{literal(y.shown(tick))}</span>' for tick in _ticks(up)
    )
    columns = "".join(
        f'<span style="left:{100 * _share(tick, across):.1f}%">{literal(x.shown(tick))}</span>'
        for tick in _ticks(across)
    )
    name = literal(f"{y.name} against {x.name}")
    return (
        f'<div class="plot"><div class="name">{literal(y.name)}</div><div class="up">{rows}</div>'
        f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" preserveAspectRatio="none" role="img" aria-label="{name}">'
        f'{grid}{path}{marks}</svg><div class="across">{columns}</div>'
        f'<div class="below">{literal(x.name)}</div></div>\n'
    )


def _scale(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis that holds the values with room around them."""
    low, high = min(values), max(values)
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return low - room, high + room


def _share(value: float, ends: tuple[float, float]) -> float:
    return (value - ends[0]) / (ends[1] - ends[0])


def _ticks(ends: tuple[float, float]) -> list[float]:
    """Round numbers between the ends."""
    raw = (ends[1] - ends[0]) / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= raw)
    first = math.ceil(ends[0] / step)
    return [round(number * step, 10) for number in range(first, math.floor(ends[1] / step) + 1)]


def _worth(point: FrontierPoint) -> float | None:
    found = point.accuracy if point.accuracy is not None else point.agreement
    if found is None and point.sqnr_db is not None:
        found = min(point.sqnr_db, _CLEAR_DB)
    return found if found is not None and math.isfinite(found) and math.isfinite(point.speedup) else None


def _best(places: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no other beats in both, from slow to fast."""
    found: list[tuple[float, float]] = []
    for place in sorted(set(places), key=lambda each: (-each[0], -each[1])):
        if not found or place[1] > found[-1][1]:
            found.append(place)
    return found[::-1]


def _style(point: FrontierPoint, best: bool) -> str:
    return "dot-good" if point.chosen else "dot-after" if best else "dot-before"


def _told(point: FrontierPoint, worth: float) -> str:
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in point.settings.items())
    return f"{text.times(point.speedup)}, {text.number(worth)}{': ' if settings else ''}{settings}"
