"""Large arrays a block at a time: what several passes over one block need then stays in the cache of the processor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import EllipsisType
from typing import Any, TypeAlias, TypeVar

import numpy.typing as npt

Part: TypeAlias = slice | EllipsisType
T = TypeVar("T")

BLOCK = 1 << 17  # elements
MANY = 8  # blocks, from which on two threads share them


def blocks(shape: Sequence[int]) -> list[Part]:
    """Along the first axis; one, the whole, of a scalar. They depend on the shape alone, on no machine."""
    if not shape:
        return [...]
    step = max(1, BLOCK // max(math.prod(shape[1:]), 1))
    return [slice(start, start + step) for start in range(0, shape[0], step)]


def within(array: npt.NDArray[Any], part: Part) -> npt.NDArray[Any]:
    """What of an array, broadcast along others, meets a block of them; all have the same number of axes, or it none."""
    return array[part] if array.ndim and array.shape[0] != 1 else array


def each_block(shape: Sequence[int], work: Callable[[Part], T]) -> list[T]:
    """What `work` makes of every block, in order. Blocks must not depend on each other: they run side by side."""
    parts = blocks(shape)
    if len(parts) < MANY:
        return list(map(work, parts))
    with ThreadPoolExecutor(2) as beside:
        return list(beside.map(work, parts))
