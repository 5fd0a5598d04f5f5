"""Kinds of option values that click lacks: sizes, shapes, finite numbers, channel steps; and options in sections."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import click

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


class Option(click.Option):
    """An option that stands under a heading of its own in the help."""

    def __init__(self, declarations: Sequence[str], *, section: str = "Options", **attributes: Any) -> None:
        super().__init__(declarations, **attributes)
        self.section = section


class Number(click.ParamType[float]):
    """A finite number between bounds; `below` excludes its own value, `at_least`, `at_most` and `above` as they say."""

    name = "number"

    def __init__(
        self,
        *,
        at_least: float | None = None,
        above: float | None = None,
        at_most: float | None = None,
        below: float | None = None,
    ) -> None:
        bounds = (
            (at_least, "at least", operator.ge),
            (above, "more than", operator.gt),
            (at_most, "at most", operator.le),
            (below, "less than", operator.lt),
        )
        self.bounds: list[tuple[float, str, Callable[[float, float], bool]]] = [
            (bound, words, holds) for bound, words, holds in bounds if bound is not None
        ]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number{self._instead(str(value))}", param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        if not all(holds(number, bound) for bound, _, holds in self.bounds):
            limits = " and ".join(f"{words} {bound:g}" for bound, words, _ in self.bounds)
            self.fail(f"{number:g} is out of range, it must be {limits}", param, ctx)
        return number

    def _instead(self, value: str) -> str:
        """What to write for a percentage: shares are numbers up to 1, all else that has percent is a number of them."""
        try:
            percent = float(value.strip().removesuffix("%"))
        except ValueError:
            return ""
        share = any(bound == 1 and words in ("at most", "less than") for bound, words, _ in self.bounds)
        return f": write {percent / 100 if share else percent:g}"


class Size(click.ParamType[int]):
    """Bytes: a plain number, or one with a unit. 1 MB = 10^6, 1 MiB = 2^20."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = _SIZE.fullmatch(str(value))
        unit = _UNITS.get(found[2].upper()) if found else None
        if found is None or unit is None:
            self.fail(f"{value!r} is not a size: write bytes, or 500kB, 12MB, 1.5GB, 8MiB", param, ctx)
        size = int(float(found[1]) * unit)
        if size < 1:
            self.fail(f"{value!r} is less than one byte", param, ctx)
        return size


class Shape(click.ParamType[tuple[str, tuple[int, ...]]]):
    """NAME:1,3,224,224; the name is what stands before the last colon."""

    name = "shape"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        if isinstance(value, tuple):
            return value
        name, colon, text = str(value).rpartition(":")
        sizes = [part.strip() for part in text.split(",")]
        if not colon or not name or not all(part.isascii() and part.isdigit() and int(part) for part in sizes):
            self.fail(f"{value!r} is not NAME:1,3,224,224", param, ctx)
        return name, tuple(int(part) for part in sizes)


class Shard(click.ParamType[tuple[int, int]]):
    """I/N, 1 <= I <= N."""

    name = "shard"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", str(value).strip())
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            self.fail(f"{value!r} is not I/N with 1 <= I <= N, as 2/4", param, ctx)
        return int(found[1]), int(found[2])


class Layers(click.ParamType[int | float]):
    """A whole number of layers from 1 on, or a share between 0 and 1."""

    name = "layers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | float:
        text = str(value)
        if text.isascii() and text.isdigit() and int(text) > 0:
            return int(text)
        try:
            share = float(text)
        except ValueError:
            share = 0.0
        if not 0.0 < share < 1.0:
            self.fail(f"{value!r} is neither a number of layers from 1 on nor a share between 0 and 1", param, ctx)
        return share


class Step(click.ParamType[int | None]):
    """A whole number of channels, or `auto` (None)."""

    name = "step"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if str(value) == "auto":
            return None
        if not str(value).isascii() or not str(value).isdigit() or int(value) < 1:
            self.fail(f"{value!r} is neither a whole number from 1 on nor auto", param, ctx)
        return int(value)
