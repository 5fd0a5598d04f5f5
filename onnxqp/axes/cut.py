"""What is left of a graph once labels are removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxqp.axes.family import Family, Labels, name_of
from onnxqp.axes.labels import AxisLabels

if TYPE_CHECKING:
    import onnx_ir as ir


class Cut:
    """What is left of every axis once some labels are removed.

    `removed` is a boolean array over all labels. Sizes are those of the cut graph; positions are those before the cut.
    """

    def __init__(self, labels: AxisLabels, removed: npt.NDArray[np.bool_]) -> None:
        self._labels = labels
        self._removed = removed
        self._masks: dict[str, list[tuple[tuple[int, ...], npt.NDArray[np.bool_]]]] = {}

    def whole(self, node: ir.Node) -> bool:
        """Whether the blocks of a node go as a whole."""
        return node.name in self._labels.whole

    def masks(self, value: ir.Value | str | None) -> list[tuple[tuple[int, ...], npt.NDArray[np.bool_]]]:
        """For every family of `value` that loses something: its axes, and True where a slice is kept."""
        name = name_of(value)
        if name is None:
            return []
        if name not in self._masks:
            lost = ((_numbers(family), self._removed[family.labels]) for family in self._labels.families(name))
            self._masks[name] = [(axes, ~gone) for axes, gone in lost if gone.any()]
        return self._masks[name]

    def mask(self, value: ir.Value | str | None, axis: int) -> tuple[tuple[int, ...], npt.NDArray[np.bool_]] | None:
        """The one of `masks` whose inner axis is `axis`."""
        return next((entry for entry in self.masks(value) if entry[0][-1] == axis), None)

    def sizes(self, value: ir.Value | str | None) -> dict[int, int]:
        """New sizes of the axes that change."""
        found = {}
        for axes, kept in self.masks(value):
            counts = kept.sum(axis=-1).reshape(-1)
            if not (counts == counts[0]).all():
                raise ValueError(f"blocks of axis {axes[-1]} of {name_of(value)!r} keep different numbers")
            found[axes[-1]] = int(counts[0])
        return found

    def size(self, value: ir.Value | str | None, axis: int) -> int | None:
        """The new size of an axis, None if it does not change."""
        return self.sizes(value).get(axis)

    def kept(self, value: ir.Value | str | None, axis: int) -> npt.NDArray[np.int64] | None:
        """Positions kept along an axis on which every block keeps the same ones, None if the axis does not change."""
        entry = self.mask(value, axis)
        if entry is None:
            return None
        rows = entry[1].reshape(-1, entry[1].shape[-1])
        if not (rows == rows[0]).all():
            raise ValueError(f"blocks of axis {axis} of {name_of(value)!r} keep different positions")
        return np.flatnonzero(rows[0])

    def labels(self, value: ir.Value | str | None, axis: int) -> Labels | None:
        """The label of every position along an axis, before the cut, where no other axis numbers blocks of it: those
        with one label are one channel. None for an axis that is never cut."""
        name = name_of(value)
        family = None if name is None else self._labels.family(name, axis)
        return family.labels if family is not None and len(family.axes) == 1 else None

    def compact(self, value: ir.Value | str | None, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """`array`, laid out as `value` was, without the removed slices."""
        for axes, kept in sorted(self.masks(value), key=lambda entry: -len(entry[0])):
            if len(axes) == 1:
                array = np.take(array, np.flatnonzero(kept), axis=axes[0])
                continue
            count = int(kept.reshape(-1, kept.shape[-1])[0].sum())
            positions = np.nonzero(kept)[-1].reshape(*kept.shape[:-1], count)
            array = np.take_along_axis(array, spread(positions, axes, array.ndim), axis=axes[-1])
        return array


def spread(array: npt.NDArray[Any], axes: Sequence[int], rank: int) -> npt.NDArray[Any]:
    """`array`, whose axes are `axes` of a tensor of this rank, in any order, as one that broadcasts against it."""
    order = np.argsort(axes)
    shape = [1] * rank
    for place, axis in enumerate(axes):
        shape[axis] = array.shape[place]
    return array.transpose(order).reshape(shape)


def _numbers(family: Family) -> tuple[int, ...]:
    return tuple(axis for axis in family.axes if isinstance(axis, int))
