"""What `sensitivity` found, as blocks: the regions of quantization and of pruning, the dearest first."""

from __future__ import annotations

from collections.abc import Iterator

from onnxqp.report.blocks import Block, Line, Row
from onnxqp.report.records import Region, Report

_WORST = 12  # of a kind listed unless all are asked for
_TITLES = {"quantize": "alone in int8", "prune": "alone cut in half, not recovered"}


def regions(report: Report, every: bool) -> Iterator[Block]:
    """The blocks, one for each kind; `every` lists all regions and all their members."""
    for kind, title in _TITLES.items():
        found = [each for each in report.regions or () if each.id.partition(":")[0] == kind]
        if not found:
            continue
        shown = found if every else found[:_WORST]
        rest = len(found) - len(shown)
        lines = (Line(f"and {rest} cheaper ones: --verbose lists them", "quiet"),) if rest else ()
        unit = f"cost ({found[0].unit})"
        yield Block(title, ("region", "nodes", unit, "SQNR"), tuple(map(_row, shown)), lines, texts=1)
        if every:
            named = tuple((_name(each), ", ".join(each.members)) for each in found if len(each.members) > 1)
            if named:
                yield Block(f"nodes of what is {title}", ("region", "nodes"), named, texts=2)


def _name(each: Region) -> str:
    return each.id.partition(":")[2]


def _row(each: Region) -> Row:
    cost = f"{each.cost:.2f}" if each.unit.startswith("points") else f"{each.cost:.3g}"
    return _name(each), str(len(each.members)), cost, "identical" if each.sqnr_db is None else f"{each.sqnr_db:.1f} dB"
