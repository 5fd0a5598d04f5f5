"""Draws the picture of the README, and prints its table, from reports of real runs.

onnxqp quantize model.onnx --data calib.npz --eval eval.npz --report q.json      (and so on)
python docs/picture.py q.json p.json c.json > table.md                           (writes before-after.svg beside itself)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from onnxqp.report import text

PICTURE = Path(__file__).parent / "before-after.svg"
WIDTH, ROW, LABEL, GAP = 760, 22, 170, 34
BAR = WIDTH - LABEL - 150
INK, SOFT, BEFORE, AFTER = "#1b1f24", "#6e7781", "#8c959f", "#0969da"

Report = dict[str, Any]


def rows(reports: list[Report]) -> Iterator[tuple[str, float, float, str]]:
    """Name, bytes, milliseconds and metric of the original and of every result."""
    first = reports[0]
    yield (
        "original",
        first["size"]["baseline_bytes"],
        first["latency"]["baseline"]["p50_ms"],
        _metric(first, "baseline"),
    )
    for report in reports:
        # what it takes beside its own baseline, on the scale of the first: machines change speed from run to run
        time = first["latency"]["baseline"]["p50_ms"] / report["latency"]["speedup"]
        yield _name(report), report["size"]["candidate_bytes"], time, _metric(report, "candidate")


def _name(report: Report) -> str:
    asked = report["arguments"]
    words = [f"--{name.replace('_', '-')} {asked[name]:g}" for name in ("ratio", "max_drop") if asked.get(name)]
    return " ".join([report["command"], *words])


def _metric(report: Report, which: str) -> str:
    return f"{report['accuracy'][which]:.1f} %"


def picture(reports: list[Report]) -> str:
    """Two groups of bars, size and time, with the accuracy at the end of each row."""
    found = list(rows(reports))
    parts, y = [], 24
    for title, column, shown in (("size", 1, text.size), ("time of one inference", 2, text.milliseconds)):
        parts.append(_text(0, y, title, weight=600))
        parts.append(_text(WIDTH, y, "top-1", anchor="end", colour=SOFT))
        most = max(row[column] for row in found)
        for row in found:
            y += ROW
            length = max(BAR * float(row[column]) / float(most), 2)
            parts.append(_text(0, y, row[0], colour=SOFT))
            colour = BEFORE if row[0] == "original" else AFTER
            parts.append(f'<rect x="{LABEL}" y="{y - 12}" width="{length:.1f}" height="14" rx="2" fill="{colour}"/>')
            parts.append(_text(LABEL + length + 8, y, shown(float(row[column]))))
            parts.append(_text(WIDTH, y, row[3], anchor="end"))
        y += GAP
    height = y - GAP + 16
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-10 0 {WIDTH + 20} {height}" width="{WIDTH + 20}" '
        f'font-family="system-ui, sans-serif" font-size="13">\n'
        f'<rect x="-10" width="{WIDTH + 20}" height="{height}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _text(x: float, y: float, words: str, *, anchor: str = "start", colour: str = INK, weight: int = 400) -> str:
    style = f'fill="{colour}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y}" {style}>{escape(words)}</text>'


def table(reports: list[Report]) -> str:
    """The same as Markdown."""
    lines = ["| | size | smaller | p50 | faster | top-1 |", "|---|---|---|---|---|---|"]
    original = None
    for name, size, time, metric in rows(reports):
        original = original or (size, time)
        ratios = (original[0] / size, original[1] / time)
        shown = ("", "") if name == "original" else tuple(f"{ratio:.2f}x" for ratio in ratios)
        code = name if name == "original" else f"`{name}`"
        lines.append(f"| {code} | {text.size(size)} | {shown[0]} | {text.milliseconds(time)} | {shown[1]} | {metric} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    reports = [json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:]]
    if not reports:
        sys.exit(__doc__)
    PICTURE.write_text(picture(reports), encoding="utf-8")
    sys.stdout.write(table(reports))


if __name__ == "__main__":
    main()
