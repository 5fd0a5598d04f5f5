"""What a report says, as plain blocks of text: the one source of the table on screen and of the Markdown.

Nothing here knows of colours, markup or widths; a view turns blocks into its own form and escapes what they hold.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from onnxqp.report import text
from onnxqp.report.blocks import Block, Line, Row
from onnxqp.report.frontier import frontier
from onnxqp.report.inspection import inspection
from onnxqp.report.records import (
    Accuracy,
    Calibration,
    Fidelity,
    Gate,
    Latency,
    ModelSummary,
    NodeNote,
    Proof,
    Pruning,
    Quantization,
    Report,
    Size,
)
from onnxqp.report.regions import regions
from onnxqp.report.removals import dropped_layers, narrowed, perforated, sparsity
from onnxqp.report.tensors import tensors

_POINTS = ("top1", "top5")  # metrics in points, 0..100
_WRITING = ("quantize", "prune", "compress", "calibrate")  # commands that write a file
_PARTICULARS = re.compile(r"'[^']*'|(?<![\w.])\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.]*\w)")  # quoted names and figures
_MOST_REASONS = 12  # kinds of reasons shown before the rest is only counted


def outline(report: Report, *, every: bool = False, groups: bool = False, drawn: bool = False) -> list[Block]:
    """The blocks of a report.

    `every` names each node and layer, not only their kinds; `groups` each channel group. `drawn`: the view has drawings
    and needs no pictures in letters.
    """
    blocks = [
        *(inspection(report, every) if report.command == "inspect" else _comparison(report)),
        *(_quantization(report.quantization, every, _planned(report)) if report.quantization else ()),
        *(_pruning(report.pruning, every, groups, _planned(report)) if report.pruning else ()),
        *(_ranges(report.calibration, every) if report.calibration else ()),
        *(tensors(report, every, drawn) if every or report.command == "debug" else ()),
        *regions(report, every),
        *frontier(report),
        *(_models(report) if report.models else ()),
        *(_gates(report.gates) if report.gates else ()),
    ]
    return [*blocks, *_closing(report)]


# ---- before and after ----------------------------------------------------------------------------------------


def _comparison(report: Report) -> Iterator[Block]:
    rows = [
        *_size_rows(report.size),
        *_model_rows(report.input, report.output),
        *_channel_rows(report.pruning),
        *_latency_rows(report.latency),
        *_accuracy_rows(report.accuracy),
    ]
    lines = [
        *_latency_lines(report.latency),
        *_accuracy_lines(report.accuracy),
        *_fidelity_lines(report.fidelity),
        *_calibration_lines(report.calibration),
    ]
    if report.input is not None or rows or lines:
        yield Block(_title(report), ("", "before", "after", "change") if rows else (), tuple(rows), tuple(lines))


def _title(report: Report) -> str:
    if report.input is None:
        return report.command
    return report.input.path if report.output is None else f"{report.input.path} -> {report.output.path}"


def _size_rows(size: Size | None) -> Iterator[Row]:
    if size is not None:
        before, after = text.size(size.baseline_bytes), text.size(size.candidate_bytes)
        yield "size", before, after, text.smaller(size.ratio)


def _model_rows(before: ModelSummary | None, after: ModelSummary | None) -> Iterator[Row]:
    if before is None or after is None:
        return
    yield _counts("parameters", before.parameters, after.parameters)
    if before.macs is not None and after.macs is not None:
        yield _counts("MACs", before.macs, after.macs)
    yield _counts("nodes", before.nodes, after.nodes)


def _counts(name: str, before: int, after: int) -> Row:
    return name, text.quantity(before), text.quantity(after), text.change(before, after)


def _channel_rows(pruning: Pruning | None) -> Iterator[Row]:
    if pruning is not None and pruning.channels_before:
        yield _counts("channels", pruning.channels_before, pruning.channels_after)


def _latency_rows(latency: Latency | None) -> Iterator[Row]:
    if latency is None:
        return
    before, after = latency.baseline, latency.candidate
    yield "latency p50", text.milliseconds(before.p50_ms), text.milliseconds(after.p50_ms), _faster(latency)
    yield "latency p99", text.milliseconds(before.p99_ms), text.milliseconds(after.p99_ms), ""


def _faster(latency: Latency) -> str:
    if latency.speedup > 1:
        return f"{text.times(latency.speedup)} faster"
    return f"{text.times(1 / latency.speedup)} slower" if latency.speedup > 0 else ""


def _latency_lines(latency: Latency | None) -> Iterator[Line]:
    if latency is None:
        return
    low, high = latency.speedup_ci
    verdict = ", not distinguishable from 1" if low <= 1 <= high or _within_noise(latency) else ""
    yield Line(
        f"speed-up {text.times(latency.speedup)} (95 % interval {low:.2f} to {high:.2f}, "
        f"noise {text.percent(latency.noise * 100)}{verdict}); {text.plural(latency.threads, 'thread')}, "
        f"batch {latency.batch}, {latency.candidate.n} runs each",
        "quiet",
    )


def _within_noise(latency: Latency) -> bool:
    return abs(latency.speedup - 1) <= latency.noise


def _accuracy_rows(accuracy: Accuracy | None) -> Iterator[Row]:
    if accuracy is None:
        return
    shown = _points if accuracy.metric in _POINTS else text.number
    unit = " points" if accuracy.metric in _POINTS else ""
    gain = f"{-accuracy.drop:+.2f}{unit}" if accuracy.drop else "same"
    yield accuracy.metric, shown(accuracy.baseline), shown(accuracy.candidate), gain


def _points(value: float) -> str:
    return f"{value:.2f} %"


def _accuracy_lines(accuracy: Accuracy | None) -> Iterator[Line]:
    if accuracy is None:
        return
    low, high = accuracy.drop_ci
    flips = "" if accuracy.flips is None else f", {text.plural(accuracy.flips, 'prediction')} changed"
    yield Line(
        f"{accuracy.metric} on {text.plural(accuracy.samples, 'labelled sample')}: drop {accuracy.drop:.2f} "
        f"(95 % interval {low:.2f} to {high:.2f}){flips}",
        "quiet",
    )


def _fidelity_lines(fidelity: Fidelity | None) -> Iterator[Line]:
    if fidelity is None:
        return
    parts = []
    if fidelity.top1_agreement is not None:
        parts.append(f"top-1 agreement {text.percent(fidelity.top1_agreement)}")
    if fidelity.cosine_min is not None and fidelity.cosine_mean is not None:
        parts.append(f"cosine {fidelity.cosine_mean:.4f} (worst {fidelity.cosine_min:.4f})")
    parts.append("outputs identical" if fidelity.max_abs_diff == 0 else _distance(fidelity))
    yield Line(f"fidelity on {text.plural(fidelity.samples, 'sample')}: {', '.join(parts)}", "quiet")


def _distance(fidelity: Fidelity) -> str:
    sqnr = "" if fidelity.sqnr_db is None else f"SQNR {fidelity.sqnr_db:.1f} dB, "
    return f"{sqnr}largest difference {fidelity.max_abs_diff:.3g}"


def _calibration_lines(calibration: Calibration | None) -> Iterator[Line]:
    if calibration is None:
        return
    source = "synthetic inputs" if calibration.source == "synthetic" else "samples of the data"
    held = f", {calibration.held_back} held back" if calibration.held_back else ""
    yield Line(f"calibrated on {calibration.samples} {source}{held}, method {calibration.method}", "quiet")


def _ranges(calibration: Calibration, every: bool) -> Iterator[Block]:
    ranges = calibration.ranges or {}
    if every and ranges:
        rows = tuple((name, text.number(low), text.number(high)) for name, (low, high) in ranges.items())
        yield Block("ranges", ("value", "lowest", "highest"), rows)
    elif ranges:
        yield Block("", lines=(Line(f"statistics of {text.plural(len(ranges), 'value')}"),))


# ---- what was done, and what was not, and why ------------------------------------------------------------------


def _planned(report: Report) -> bool:
    """Whether the report tells what would be done, not what was."""
    return report.command == "inspect" or bool(report.arguments.get("dry_run"))


def _quantization(found: Quantization, every: bool, planned: bool) -> Iterator[Block]:
    deed = "would be quantized" if planned else "quantized"
    done = [f"{found.nodes_quantized} of {text.plural(found.nodes_quantizable, 'quantizable node')} {deed}"]
    if found.nodes_quantized and not planned:
        done.append(f"{found.nodes_fused} run as integer kernels")
    for count, words in (
        (found.weights_at_rest, "stored as int8 and computed in float"),
        (found.weights_packed or 0, "packed in four bits each"),
        (found.weights_made_safe, "scaled against saturation"),
        (found.bias_corrected, "corrected for bias"),
    ):
        if count:
            done.append(f"{text.plural(count, 'weight')} {words}")
    yield Block("quantization", lines=(Line("; ".join(done)),))
    yield from _reasons("left in float", found.left_float, every)
    yield from _reasons("quantized, but not run as an integer kernel", found.unfused, every)


def _reasons(title: str, notes: Sequence[NodeNote], every: bool) -> Iterator[Block]:
    if not notes:
        return
    if every:
        rows = tuple((note.node, note.op_type, note.reason) for note in notes)
        yield Block(title, ("node", "operator", "why"), rows, texts=3)
        return
    kinds = _kinds((note.op_type, note.reason) for note in notes)
    rows = tuple((op_type, reason, str(count)) for (op_type, reason), count in _top(kinds))
    yield Block(title, ("operator", "why", "nodes"), rows, _the_rest(len(kinds)), texts=2)


def _kinds(notes: Iterable[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """How often each (operator, reason) occurs; reasons that differ in names or figures alone count as one."""
    alike: dict[tuple[str, str], Counter[str]] = {}
    for op_type, reason in notes:
        alike.setdefault((op_type, _PARTICULARS.sub("…", reason)), Counter())[reason] += 1
    return Counter(
        {
            (op_type, next(iter(reasons)) if len(reasons) == 1 else kind): reasons.total()
            for (op_type, kind), reasons in alike.items()
        }
    )


def _top(kinds: Counter[tuple[str, str]]) -> list[tuple[tuple[str, str], int]]:
    return sorted(kinds.items(), key=lambda item: (-item[1], item[0]))[:_MOST_REASONS]


def _the_rest(kinds: int) -> tuple[Line, ...]:
    return (Line(f"and {kinds - _MOST_REASONS} more kinds", "quiet"),) if kinds > _MOST_REASONS else ()


def _pruning(found: Pruning, every: bool, groups: bool, planned: bool) -> Iterator[Block]:
    cut = sum(group.after < group.before for group in found.groups)
    words = f"{text.plural(len(found.groups), 'prunable channel group')}, {len(found.pinned)} pinned"
    lines = (
        [Line(f"{words}; {cut} {'would be cut' if planned else 'cut'}" if cut else words)] if _grouped(found) else []
    )
    if (cut or found.dropped or found.perforated or found.narrowed) and not planned:
        macs = "" if found.macs_ratio is None else f"MACs {text.percent(found.macs_ratio * 100)}, "
        lines.append(Line(f"{macs}parameters {text.percent(found.params_ratio * 100)} of the original", "quiet"))
    if found.proof is not None:
        lines.append(_proof(found.proof))
    if found.recovery is not None:
        recovery = found.recovery
        lines.append(
            Line(f"recovery by {recovery.kind}: {recovery.consumers} consumers adjusted, {recovery.rejected} rejected")
        )
    yield Block(
        "pruning", lines=(*dropped_layers(found), *perforated(found), *narrowed(found), *sparsity(found), *lines)
    )
    if groups and found.groups:
        rows = tuple(
            (group.id, _members(group.members), str(group.before), str(group.after), group.score_kind)
            for group in found.groups
        )
        yield Block("channel groups", ("group", "members", "before", "after", "score"), rows, texts=2)
    if found.pinned and (groups or every):
        named = tuple((group.id, _members(group.members), group.reason) for group in found.pinned)
        yield Block("pinned", ("group", "members", "why"), named, texts=3)
    elif found.pinned:
        kinds = _kinds(("", group.reason) for group in found.pinned)
        pinned = tuple((reason, str(count)) for (_, reason), count in _top(kinds))
        yield Block("pinned", ("why", "groups"), pinned, _the_rest(len(kinds)))


def _grouped(found: Pruning) -> bool:
    """Whether channels were looked at: not where all that was asked for is zeros or fewer layers."""
    return bool(found.groups or found.pinned) or not (found.sparsity or found.dropped)


def _members(members: Iterable[str]) -> str:
    names = list(members)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _proof(proof: Proof) -> Line:
    if proof.checked:
        found = "" if proof.max_abs_diff is None else f": largest difference {text.scientific(proof.max_abs_diff)}"
        return Line(f"proof: pruned equals masked{found} (tolerance {text.scientific(proof.tolerance)})", "good")
    if proof.skipped_reason is not None:
        return Line(f"proof: skipped, {proof.skipped_reason}", "bad")
    return Line(f"proof: pruned and masked differ by {text.number(proof.max_abs_diff or 0)}", "bad")


# ---- bench, gates, the end --------------------------------------------------------------------------------------


def _models(report: Report) -> Iterator[Block]:
    models = report.models or []
    first = models[0].latency.p50_ms
    rows = tuple(
        (
            model.path,
            text.milliseconds(model.latency.p50_ms),
            text.milliseconds(model.latency.p90_ms),
            text.milliseconds(model.latency.p99_ms),
            text.percent(model.latency.cv * 100),
            str(model.latency.n),
            text.times(first / model.latency.p50_ms) if model.latency.p50_ms else "",
        )
        for model in models
    )
    line = Line(f"{text.plural(report.machine.threads, 'thread')} on {report.machine.cpu}", "quiet")
    yield Block("latency", ("model", "p50", "p90", "p99", "cv", "runs", "speed-up"), rows, (line,))


def _gates(gates: Sequence[Gate]) -> Iterator[Block]:
    rows = tuple(
        (gate.name, gate_value(gate, gate.limit), gate_value(gate, gate.value), "passed" if gate.passed else "MISSED")
        for gate in gates
    )
    yield Block("gates", ("gate", "limit", "value", "result"), rows)


def gate_value(gate: Gate, value: float) -> str:
    """A limit or value of `gate` in its unit."""
    if gate.name == "max-size":
        return text.size(value)
    if gate.name == "min-agreement":
        return text.percent(value)
    return text.times(value) if gate.name.startswith("min-") else f"{value:.2f}"


def _closing(report: Report) -> Iterator[Block]:
    parts = []
    total = report.seconds.get("total") or sum(report.seconds.values())
    if total:
        parts.append(f"took {text.seconds(total)}")
    if report.peak_memory_bytes:
        parts.append(f"peak memory {text.size(report.peak_memory_bytes)}")
    lines = [Line(", ".join(parts), "quiet")] if parts else []
    lines += [Line(_outcome(report))] if report.command in _WRITING else []
    if report.gates:
        missed = [gate.name for gate in report.gates if not gate.passed]
        verdict = Line(f"FAILED: {', '.join(missed)} missed", "bad") if missed else Line("passed", "good")
        lines.append(verdict)
    if lines:
        yield Block("", lines=tuple(lines))


def _outcome(report: Report) -> str:
    if report.arguments.get("dry_run"):
        return "dry run: nothing written"
    if report.command == "calibrate":
        return f"wrote {report.arguments['output']}"
    if report.output is None or not (report.passed or report.arguments.get("keep_failed")):
        return "nothing written"
    return f"wrote {report.output.path}"
