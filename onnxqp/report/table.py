"""The report on a screen: rich renderables. Names that come from a model are shown literally, never as markup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from onnxqp.report.blocks import Block, Tone
from onnxqp.report.outline import outline
from onnxqp.report.records import Report
from onnxqp.report.text import printable

# Only a line under the heading, in ASCII: it survives every locale, terminal and copy into a bug report.
_BOX = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
_STYLES: Mapping[Tone, str] = {"plain": "", "good": "green", "bad": "bold red", "quiet": "dim"}


def render(report: Report, *, every: bool = False, groups: bool = False) -> RenderableType:
    """Everything a report says but its warnings, which belong on the other stream."""
    return Group(*(part for block in outline(report, every=every, groups=groups) for part in _parts(block)))


def facts(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> RenderableType:
    """A table of text alone, for what is no report: operators, versions."""
    return Group(*_parts(Block(title, tuple(columns), tuple(tuple(row) for row in rows), texts=len(columns))))


def _parts(block: Block) -> Iterable[RenderableType]:
    if block.title:
        yield Text(printable(block.title), style="bold")
    if block.rows:
        yield Padding.indent(_table(block), 2)
    for line in block.lines:
        yield Padding.indent(Text(printable(line.text), style=_STYLES[line.tone]), 2)
    yield Text("")


def _table(block: Block) -> Table:
    table = Table(box=_BOX, show_edge=False, show_header=any(block.columns), pad_edge=False, header_style="dim")
    for index, name in enumerate(block.columns):
        if index < block.texts:
            table.add_column(Text(name), overflow="fold")
        else:
            table.add_column(Text(name), justify="right", no_wrap=True)
    for row in block.rows:
        table.add_row(*(_cell(block, name, cell) for name, cell in zip(block.columns, row, strict=True)))
    return table


def _cell(block: Block, column: str, cell: str) -> Text:
    gate = block.title == "gates" and column == "result"
    return Text(printable(cell), style=("green" if cell == "passed" else "bold red") if gate else "")
