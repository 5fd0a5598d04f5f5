"""How much of an error in a layer's outputs arrives at the outputs of the model. Only numpy is needed here.

A layer passes an error in one of its inputs on with the square of its weights, an activation in between with the share
that the variance of the channel behind it has in the variance before. Followed from the last layer to the first, that
says of every channel how loud an error in it is, where errors are as good as independent: a channel that few hear may
be wrong. (Yu et al., NISP: Pruning Networks using Neuron Importance Score Propagation, 2018, pass scores back through
absolute weights; here it is energies, measured ones.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]

_LEAST = 1e-6  # of the largest: nothing is divided by less, and nothing counts for nothing


@dataclass(frozen=True)
class Passage:
    """A layer that channels pass: `matrix` is `[groups, inputs, outputs]`.

    `entering` is the channel of every input, `leaving` that of every output (None: not known), `[groups, ...]`;
    `spread` the variance of the inputs, `variance` that of what the outputs become part of.
    """

    matrix: FloatArray
    entering: IntArray
    leaving: IntArray | None
    spread: FloatArray
    variance: FloatArray


def loudness(passages: Sequence[Passage], channels: int) -> list[FloatArray]:
    """For each of the layers, which come in the order of running, what a squared error of 1 in each output is worth,
    `[groups, outputs]`.

    Where a layer's outputs are all read by later ones, it is measured there; else all outputs count alike, and relative
    to the variance of them all.
    """
    heard, reached = np.zeros(channels), np.zeros(channels, np.bool_)
    found = []
    for passage in reversed(passages):
        total = float(passage.variance.sum())
        weights = np.full(passage.variance.shape, 1 / total if total > 0 else 0.0)
        leaving = passage.leaving
        if leaving is not None and reached[leaving].all():
            weights = heard[leaving] / np.maximum(passage.variance, _LEAST * float(passage.variance.max()) or 1.0)
        weights = np.maximum(weights, _LEAST * float(weights.max()))
        passed = np.einsum("gio,go->gi", np.square(passage.matrix), weights) * passage.spread
        np.add.at(heard, passage.entering, passed)
        reached[passage.entering] = True
        found.append(weights)
    return found[::-1]
