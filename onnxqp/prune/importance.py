"""How much a channel matters: norms of the weight slices that make it and that read it.

Every weight that a group's channels run through (the filters that produce a channel, the input columns that consume it)
votes with the norms of its slices, each divided by their mean over the group so that large layers do not drown small
ones; a channel's score is the mean of the votes. Scores of a group therefore average 1, which is what `--threshold` and
global allocation compare.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxqp.axes import Family, Labels
from onnxqp.prune.magnitude import slice_norms

FloatArray: TypeAlias = npt.NDArray[np.float64]


def class_norms(
    weights: npt.NDArray[np.generic], family: Family, roots: Labels, order: Literal[1, 2]
) -> tuple[Labels, FloatArray]:
    """Classes along a family of a weight, and the norm of all slices that go with each."""
    axes = tuple(axis for axis in family.axes if isinstance(axis, int))
    norms = slice_norms(weights, axes, order)
    classes, place = np.unique(roots[family.labels], return_inverse=True)
    flat: FloatArray = norms.reshape(-1) ** order
    power: FloatArray = np.bincount(place.reshape(-1), weights=flat, minlength=len(classes)).astype(np.float64)
    return classes, power if order == 1 else np.sqrt(power)


class Votes:
    """Collects the votes of the weights on the classes of all groups; `group_of` is -1 for classes in none."""

    def __init__(self, group_of: Labels) -> None:
        self.group_of = group_of
        self._sum = np.zeros(len(group_of))
        self._count = np.zeros(len(group_of), np.int64)

    def add(self, classes: Labels, norms: FloatArray) -> None:
        """One weight's norms, relative to their mean over each group. A weight of zeros counts all channels alike."""
        groups = self.group_of[classes]
        classes, norms, groups = classes[groups >= 0], norms[groups >= 0], groups[groups >= 0]
        if not len(classes):
            return
        names, place = np.unique(groups, return_inverse=True)
        mean = (np.bincount(place, weights=norms) / np.bincount(place, minlength=len(names)))[place]
        self._sum[classes] += np.divide(norms, mean, out=np.ones_like(norms), where=mean > 0)
        self._count[classes] += 1

    def scores(self, classes: Labels) -> FloatArray:
        """Mean vote on each class."""
        return self._sum[classes] / np.maximum(self._count[classes], 1)
