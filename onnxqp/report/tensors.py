"""What `debug` found, as blocks: the worst values with their causes, and a picture of the error along the graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from onnxqp.report import text
from onnxqp.report.blocks import Block, Line, Row
from onnxqp.report.records import Report, TensorError

_WORST = 15  # values listed unless all are asked for
_STATIONS = 24  # rows of the picture
_BAR = 40  # its widest bar
_GOOD_DB = 60.0  # no bar: rounding to 8 bits alone reaches 40 to 55


def tensors(report: Report, every: bool, drawn: bool) -> Iterator[Block]:
    """The blocks; `every` lists all values, with the nodes that make them; `drawn`: the view has a picture."""
    found = report.tensors or []
    if not found:
        return
    shown = found if every else found[:_WORST]
    rows = tuple(_row(each, every) for each in shown)
    columns = ("value", *(("node",) if every else ()), "cause", "SQNR", "made here")
    rest = len(found) - len(shown)
    lines = (Line(f"and {rest} better ones: --verbose lists them", "quiet"),) if rest else ()
    yield Block("worst values first", columns, rows, lines, texts=len(columns) - 2)
    if len(found) > 1 and not drawn:
        yield Block("error along the graph", ("up to value", "", "worst SQNR"), tuple(_picture(found)), texts=2)
    causes = Counter(each.cause for each in found if each.cause != "none")
    told = ", ".join(f"{count} {cause}" for cause, count in causes.most_common())
    yield Block("", lines=(Line(f"{text.plural(len(found), 'value')} compared; causes: {told or 'no error at all'}"),))


def _row(each: TensorError, every: bool) -> Row:
    node = (each.node or "(input)",) if every else ()
    return each.name, *node, _cause(each), _decibels(each.sqnr_db), _decibels(each.local_sqnr_db)


def _cause(each: TensorError) -> str:
    if each.cause == "inherited" and each.source not in (None, each.name):
        return f"inherited from {each.source}"
    if each.cause == "clipping" and each.clipped:
        return f"clipping of {text.percent(100 * each.clipped)} of the elements"
    return each.cause


def _decibels(value: float | None) -> str:
    return "identical" if value is None else f"{value:.1f} dB"


def _picture(found: Sequence[TensorError]) -> Iterator[Row]:
    """The graph from input to output in stretches, each with its worst value: the longer the bar, the more error."""
    along = sorted(found, key=lambda each: each.place)
    size = -(-len(along) // _STATIONS)
    for start in range(0, len(along), size):
        stretch = along[start : start + size]
        worst = min(_GOOD_DB if each.sqnr_db is None else each.sqnr_db for each in stretch)
        length = round(_BAR * min(max(1 - worst / _GOOD_DB, 0.0), 1.0))
        same = all(each.sqnr_db is None for each in stretch)
        yield stretch[-1].name, "#" * length, _decibels(None if same else worst)
