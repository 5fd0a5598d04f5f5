"""Sixteen of the 256 integers that stand for a weight at the least error. numpy only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnxqp.quantize.rounding import Doubles

LEVELS = 16  # what 4 bits tell apart
_LOW, _COUNT = -128, 256  # of int8


def choose_levels(values: npt.NDArray[np.int8], importance: Doubles | float = 1.0) -> npt.NDArray[np.int8]:
    """The `LEVELS` integers, in order, to which `values` go at the least squared error; 0 is one of them.

    `importance` weighs the squared errors and broadcasts against `values`. Exact: dynamic programming over the ends of
    the intervals that share a level (Wang and Song 2011, "Ckmeans.1d.dp"), of which there are no more than integers.
    """
    bins = (values.astype(np.intp) - _LOW).reshape(-1)
    mass: Doubles = np.bincount(bins, np.broadcast_to(importance, values.shape).reshape(-1), _COUNT).astype(np.float64)
    cost, centre = _intervals(mass + 1e-12 * mass.sum())  # what does not occur still wants a level nearby
    least, cuts = cost[0], list[npt.NDArray[np.intp]]()
    for _ in range(LEVELS - 1):  # least[j]: up to integer j, with so many levels
        total = least[:, None] + np.concatenate([cost[1:], np.full((1, _COUNT), np.inf)])
        cuts.append(total.argmin(axis=0))
        least = np.take_along_axis(total, cuts[-1][None], 0)[0]
    levels, end = [], _COUNT - 1
    for cut in reversed(cuts):
        levels.append(centre[cut[end] + 1, end])
        end = int(cut[end])
    found = np.array([centre[0, end], *levels[::-1]]) + _LOW
    found[np.abs(found).argmin()] = 0
    return found.astype(np.int8)


def nearest_levels(values: npt.NDArray[np.number], levels: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """Every value as the nearest of the `levels`, which are in order."""
    wide = levels.astype(np.float64)
    return np.asarray(levels[np.searchsorted((wide[1:] + wide[:-1]) / 2, values)])


def _intervals(mass: Doubles) -> tuple[Doubles, npt.NDArray[np.intp]]:
    """Of the integers from i to j: the squared error that one level for all of them costs, and that level.

    Both [i, j], places from 0 on; infinite where j < i.
    """
    place = np.arange(_COUNT, dtype=np.float64)
    sums = [np.concatenate([[0.0], np.cumsum(mass * place**power)]) for power in range(3)]
    count, first, second = (each[None, 1:] - each[:-1, None] for each in sums)
    valid = np.triu(np.ones((_COUNT, _COUNT), bool))
    level = np.rint(np.divide(first, count, where=valid, out=np.zeros_like(first)))
    cost = np.where(valid, second - 2 * level * first + level**2 * count, np.inf)
    return cost, level.astype(np.intp)
