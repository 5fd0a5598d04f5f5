"""What `inspect` says of a model, or of two: size, operators, layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from onnxqp.report import text
from onnxqp.report.blocks import Block, Line
from onnxqp.report.records import ModelSummary, Report


def inspection(report: Report, every: bool) -> Iterator[Block]:
    """Of the input, beside the output where there are two; `every` names each layer."""
    first, second = report.input, report.output
    if first is None:
        return
    if second is None:
        yield Block(first.path, ("", "model"), tuple(_facts(first)))
    else:
        pairs = zip(_facts(first), _facts(second), _changes(first, second), strict=True)
        rows = tuple((name, before, after, delta) for (name, before), (_, after), delta in pairs)
        yield Block(f"{first.path} -> {second.path}", ("", "before", "after", "change"), rows)
    yield from _operators(first, second)
    if every:
        yield from _layers(first)


def _facts(model: ModelSummary) -> Iterator[tuple[str, str]]:
    yield "size", text.size(model.bytes)
    yield "parameters", text.quantity(model.parameters)
    yield "MACs", "unknown" if model.macs is None else text.quantity(model.macs)
    yield "nodes", str(model.nodes)
    yield "opset", str(model.opset)
    yield "IR version", str(model.ir_version)


def _changes(first: ModelSummary, second: ModelSummary) -> Iterator[str]:
    yield text.smaller(first.bytes / second.bytes) if second.bytes else ""
    yield text.change(first.parameters, second.parameters)
    yield "" if first.macs is None or second.macs is None else text.change(first.macs, second.macs)
    yield text.change(first.nodes, second.nodes)
    yield "same" if first.opset == second.opset else ""
    yield "same" if first.ir_version == second.ir_version else ""


def _operators(first: ModelSummary, second: ModelSummary | None) -> Iterator[Block]:
    before = Counter(first.operators or {})
    if second is None:
        if before:
            rows = tuple((name, str(count)) for name, count in _most_first(before))
            yield Block("operators", ("operator", "nodes"), rows)
        return
    after = Counter(second.operators or {})
    changed = tuple(
        (name, str(before[name]), str(after[name]), f"{after[name] - before[name]:+d}")
        for name, _ in _most_first(before | after)
        if before[name] != after[name]
    )
    if changed:
        yield Block("operators", ("operator", "before", "after", "change"), changed)
    else:
        yield Block("operators", lines=(Line("the same in both models", "quiet"),))


def _most_first(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _layers(model: ModelSummary) -> Iterator[Block]:
    rows = tuple(
        (
            layer.name,
            layer.op_type,
            "x".join(str(dim) for dim in layer.shape) if layer.shape is not None else "?",
            text.quantity(layer.parameters),
            "" if layer.macs is None else text.quantity(layer.macs),
        )
        for layer in model.layers or ()
    )
    if rows:
        yield Block("layers", ("node", "operator", "output", "parameters", "MACs"), rows, texts=3)
