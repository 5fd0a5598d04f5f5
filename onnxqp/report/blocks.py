"""The plain form of everything shown: titles, tables and lines, which a view turns into its own form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Tone: TypeAlias = Literal["plain", "good", "bad", "quiet"]
Row: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class Line:
    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Block:
    """A title, then a table (the first column is text, numbers follow) and then lines."""

    title: str
    columns: Row = ()
    rows: tuple[Row, ...] = ()
    lines: tuple[Line, ...] = field(default=())
    texts: int = 1  # how many leading columns hold text
