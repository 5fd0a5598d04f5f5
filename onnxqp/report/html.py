"""The report as one HTML file that needs nothing else: no script, no font, no picture from elsewhere.

Every text that may come from a model, a path or a user goes through `literal`; the policy in the head forbids scripts
and requests even if one should slip through.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from onnxqp.report import text
from onnxqp.report.blocks import Block
from onnxqp.report.charts import Bar, Piece, chart, interval, key, literal
from onnxqp.report.latencies import latency_chart
from onnxqp.report.outline import outline
from onnxqp.report.plots import error_plot, frontier_plot
from onnxqp.report.records import Accuracy, Latency, Pruning, Report, Size

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_MOST_GROUPS = 40  # drawn; the table below them has all
_POINTS = ("top1", "top5")


def render(report: Report) -> str:
    """One document: verdict, what changed in large figures, drawings, warnings, and every reason by name."""
    title = f"onnxqp {report.command}" + (f": {report.input.path}" if report.input else "")
    return "".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            f"<title>{literal(title)}</title>\n<style>\n{_style()}</style>\n</head>\n<body>\n",
            *_head(report),
            "<main>\n",
            *_cards(report),
            *_warnings(report),
            *_drawings(report),
            *(part for block in outline(report, every=True, groups=True, drawn=True) for part in _block(block)),
            "</main>\n",
            *_foot(report),
            "</body>\n</html>\n",
        ]
    )


@functools.cache
def _style() -> str:
    return Path(__file__).with_name("report.css").read_text(encoding="utf-8")


# ---- head, figures, warnings -----------------------------------------------------------------------------------


def _head(report: Report) -> Iterator[str]:
    tone, word = ("good", "passed") if report.passed else ("bad", "FAILED")
    yield f'<header>\n<h1>onnxqp {literal(report.command)} <span class="verdict {tone}">{word}</span></h1>\n'
    if report.input is not None:
        after = f" → {literal(report.output.path)}" if report.output else ""
        yield f"<p>{literal(report.input.path)}{after}</p>\n"
    yield "</header>\n"


def _cards(report: Report) -> Iterator[str]:
    cards = [
        *_size_card(report.size),
        *_latency_card(report.latency),
        *_accuracy_card(report.accuracy),
        *_agreement_card(report),
        *_pruning_card(report.pruning),
    ]
    if cards:
        items = "".join(f"<li><b>{literal(figure)}</b><span>{literal(words)}</span></li>\n" for figure, words in cards)
        yield f'<ul class="cards">\n{items}</ul>\n'


def _size_card(size: Size | None) -> Iterator[tuple[str, str]]:
    if size is not None:
        ratio, word = (size.ratio, "smaller") if size.ratio >= 1 else (1 / size.ratio, "larger")
        yield text.times(ratio), f"{word}: {text.size(size.baseline_bytes)} → {text.size(size.candidate_bytes)}"


def _latency_card(latency: Latency | None) -> Iterator[tuple[str, str]]:
    if latency is not None and latency.speedup > 0:
        ratio, word = (latency.speedup, "faster") if latency.speedup >= 1 else (1 / latency.speedup, "slower")
        word = "as fast" if text.times(ratio) == "1.00x" else word
        before, after = latency.baseline.p50_ms, latency.candidate.p50_ms
        yield text.times(ratio), f"{word}: {text.milliseconds(before)} → {text.milliseconds(after)}"


def _accuracy_card(accuracy: Accuracy | None) -> Iterator[tuple[str, str]]:
    if accuracy is not None:
        gain = f"{-accuracy.drop:+.2f}" if accuracy.drop else "±0"
        unit = " points" if accuracy.metric in _POINTS else ""
        yield gain, f"{accuracy.metric}{unit}: {text.number(accuracy.baseline)} → {text.number(accuracy.candidate)}"


def _agreement_card(report: Report) -> Iterator[tuple[str, str]]:
    fidelity = report.fidelity
    if fidelity is None:
        return
    if fidelity.top1_agreement is not None:
        yield text.percent(fidelity.top1_agreement), "of the answers agree"
    elif fidelity.sqnr_db is not None:
        yield f"{fidelity.sqnr_db:.1f} dB", "signal to error of the outputs"


def _pruning_card(pruning: Pruning | None) -> Iterator[tuple[str, str]]:
    if pruning is not None and pruning.macs_ratio is not None and pruning.channels_after < pruning.channels_before:
        yield (
            text.percent(pruning.macs_ratio * 100),
            f"of the MACs, {text.percent(pruning.params_ratio * 100)} of weights",
        )


def _warnings(report: Report) -> Iterator[str]:
    if report.warnings:
        items = "".join(f"<li>{literal(warning)}</li>\n" for warning in report.warnings)
        yield f'<section class="warnings"><strong>Warnings</strong>\n<ul>\n{items}</ul></section>\n'


# ---- drawings --------------------------------------------------------------------------------------------------


def _drawings(report: Report) -> Iterator[str]:
    parts = [
        *_size_chart(report.size),
        *latency_chart(report),
        *_interval_chart(report),
        *frontier_plot(report),
        *error_plot(report),
        *_groups_chart(report.pruning),
    ]
    if parts:
        yield "<h2>At a glance</h2>\n"
        yield from parts


def _size_chart(size: Size | None) -> Iterator[str]:
    if size is None:
        return
    most = max(size.baseline_bytes, size.candidate_bytes) or 1
    pairs = (("before", size.baseline_bytes, "fill-before"), ("after", size.candidate_bytes, "fill-after"))
    yield "<h3>Size on disk</h3>\n"
    yield chart(Bar(name, (Piece(0, count / most, style),), text.size(count)) for name, count, style in pairs)


def _interval_chart(report: Report) -> Iterator[str]:
    bars = []
    if report.latency is not None:
        low, high = report.latency.speedup_ci
        shown = f"{text.times(report.latency.speedup)} ({low:.2f} to {high:.2f})"
        limit = _limit(report, "min-speedup")
        bars.append(interval("speed-up", report.latency.speedup, low, high, reference=1.0, limit=limit, shown=shown))
    if report.accuracy is not None:
        low, high = report.accuracy.drop_ci
        shown = f"{report.accuracy.drop:.2f} ({low:.2f} to {high:.2f})"
        label, limit = f"drop of {report.accuracy.metric}", _limit(report, "max-drop")
        bars.append(interval(label, report.accuracy.drop, low, high, reference=0.0, limit=limit, shown=shown))
    if bars:
        yield "<h3>How sure the figures are</h3>\n"
        yield chart(bars)
        limits = [("fill-bad", "the limit of a gate")] if any(gate.name in _JUDGED for gate in report.gates) else []
        yield key([("fill-after half", "95 % interval"), ("fill-ink", "no change"), *limits])


_JUDGED = ("min-speedup", "max-drop")


def _limit(report: Report, name: str) -> float | None:
    return next((gate.limit for gate in report.gates if gate.name == name), None)


def _groups_chart(pruning: Pruning | None) -> Iterator[str]:
    if pruning is None or not pruning.groups:
        return
    most = max(group.before for group in pruning.groups) or 1
    yield "<h3>Channels of each group</h3>\n"
    yield chart(
        Bar(
            group.members[0] if group.members else group.id,
            (Piece(0, group.before / most, "fill-before third"), Piece(0, group.after / most, "fill-after")),
            f"{group.before} → {group.after}",
        )
        for group in pruning.groups[:_MOST_GROUPS]
    )
    yield key([("fill-after", "kept"), ("fill-before third", "cut")])
    rest = len(pruning.groups) - _MOST_GROUPS
    if rest > 0:
        yield f'<p class="key">{text.plural(rest, "more group")} in the table below.</p>\n'


# ---- tables ----------------------------------------------------------------------------------------------------


def _block(block: Block) -> Iterator[str]:
    if block.title:
        yield f"<h2>{literal(block.title)}</h2>\n"
    if block.rows:
        cells = [_cell("th", name, index >= block.texts) for index, name in enumerate(block.columns)]
        yield '<div class="scroll"><table>\n'
        yield f"<thead><tr>{''.join(cells)}</tr></thead>\n" if any(block.columns) else ""
        yield "<tbody>\n"
        for row in block.rows:
            yield f"<tr>{''.join(_cell('td', cell, i >= block.texts, block) for i, cell in enumerate(row))}</tr>\n"
        yield "</tbody></table></div>\n"
    for line in block.lines:
        yield f'<p class="{line.tone}">{literal(line.text)}</p>\n'


def _cell(tag: str, content: str, number: bool, block: Block | None = None) -> str:
    tone = ""
    if block is not None and block.title == "gates" and content in ("passed", "MISSED"):
        tone = " good" if content == "passed" else " bad"
    style = f' class="{("number" if number else "text") + tone}"' if number or tone else ""
    return f"<{tag}{style}>{literal(content)}</{tag}>"


def _foot(report: Report) -> Iterator[str]:
    machine, versions = report.machine, ", ".join(f"{name} {version}" for name, version in report.versions.items())
    yield "<footer>\n"
    features = f" ({', '.join(machine.features)})" if machine.features else ""
    words = f"{machine.cpu}{features}, target {machine.target}, {text.plural(machine.threads, 'thread')}. {versions}."
    yield f'<p class="quiet">{literal(words)}</p>\n'
    for name, model in (("before", report.input), ("after", report.output)):
        if model is not None and model.sha256:
            yield f'<p class="quiet">{name}: <code>sha256 {literal(model.sha256)}</code></p>\n'
    stages = ", ".join(f"{stage} {text.seconds(taken)}" for stage, taken in report.seconds.items())
    if stages:
        yield f'<p class="quiet">{literal(stages)}.</p>\n'
    yield "</footer>\n"
