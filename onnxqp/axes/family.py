"""Labels over the axes of one value, and the classes that ties between labels form."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx_ir as ir

Labels: TypeAlias = npt.NDArray[np.int64]
Name: TypeAlias = Hashable


@dataclass(frozen=True, eq=False)
class Family:
    """Labels over an ordered tuple of axes, outer ones first, the compacted inner axis last.

    `labels` is int64 of shape `[dim(a) for a in axes]`. Inside `ops.join` the axes are names, elsewhere numbers.
    """

    axes: tuple[Name, ...]
    labels: Labels

    @property
    def inner(self) -> Name:
        return self.axes[-1]

    @property
    def outer(self) -> tuple[Name, ...]:
        return self.axes[:-1]

    def renamed(self, new: Mapping[Any, Any]) -> Family:
        return Family(tuple(new[axis] for axis in self.axes), self.labels)


def components(count: int, left: Labels, right: Labels) -> Labels:
    """Smallest label of each label's class, for classes given by the pairs `left[i] ~ right[i]`.

    Vectorised union-find: every root hooks onto the smallest root it meets, then all paths are compressed; a few rounds
    of numpy over all pairs, O((count + pairs) log count) in practice.
    """
    parent = np.arange(count, dtype=np.int64)
    while True:
        a, b = parent[left], parent[right]
        differ = a != b
        if not differ.any():
            return parent
        left, right, a, b = left[differ], right[differ], a[differ], b[differ]
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
        while True:
            grand = parent[parent]
            if np.array_equal(grand, parent):
                break
            parent = grand


def name_of(value: ir.Value | str | None) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return value.name or None
