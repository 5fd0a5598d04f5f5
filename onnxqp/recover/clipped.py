"""Refit a layer to what is left of its output behind a clipping activation (ReLU, ReLU6). Only numpy is needed here.

What is clipped away in both models need not be equal: a unit that is off may be off by any amount. To minimise
|clip(x W' + o) - clip(y + o)|^2, where both are clipped at the same side the target moves to the present output,
elsewhere it is the clipped one; then least squares again, a few times. (Zhang et al., Accelerating Very Deep
Convolutional Networks for Classification and Detection, 2015, solve the same problem by relaxation.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxqp.calibrate.moments import Moments
from onnxqp.recover.least_squares import Refit, compensate, solve

Array: TypeAlias = npt.NDArray[Any]
FloatArray: TypeAlias = npt.NDArray[np.float64]
Row: TypeAlias = tuple[Array, Array, Array]  # inputs, targets, and what is added to both before it is clipped

ROUNDS = 4
_WORTH = 1e-3


def refit_clipped(
    found: Refit, moments: Moments, rows: Sequence[Row], held: Sequence[Row], bounds: tuple[float, float]
) -> Refit:
    """A better refit than `found`, by the error behind the activation on the rows `held`; else the same.

    `found` may be the layer as it was, which plain least squares could not better: with its `damping` set, what counts
    behind the activation is often better all the same. (Squared error of the outputs of SqueezeNet, 80 % of the
    arithmetic: 0.085 where such layers are left alone, 0.068 where they are tried.)

    `moments` are those of all rows, `rows` all of them or an even share.
    """
    best, least, current = found, clipped_error(held, found.matrix, found.bias, bounds), found
    for _ in range(ROUNDS):
        asked = moments.towards(moved(rows, current.matrix, current.bias, bounds))
        try:
            matrix = solve(asked, current.matrix, found.damping or 0.0)
        except np.linalg.LinAlgError:
            break
        current = replace(found, matrix=matrix, bias=compensate(asked, matrix), kind="least-squares", reweighted=True)
        error = clipped_error(held, current.matrix, current.bias, bounds)
        if error >= least * (1 - _WORTH):
            break
        best, least = current, error
    return best


def moved(
    rows: Sequence[Row], matrix: FloatArray, bias: FloatArray, bounds: tuple[float, float]
) -> Iterator[tuple[Array, Array]]:
    """The rows with targets that ask for nothing where the activation hides the difference."""
    low, high = bounds
    for x, y, added in rows:
        now, wanted = _outputs(x, matrix, bias) + added, y + added
        hidden = ((wanted <= low) & (now <= low)) | ((wanted >= high) & (now >= high))
        yield x, np.where(hidden, now, np.clip(wanted, low, high)) - added


def clipped_error(rows: Sequence[Row], matrix: FloatArray, bias: FloatArray, bounds: tuple[float, float]) -> float:
    """Mean squared error behind the activation, summed over groups and outputs."""
    total, count = 0.0, 0
    for x, y, added in rows:
        difference = np.clip(_outputs(x, matrix, bias) + added, *bounds) - np.clip(y + added, *bounds)
        total += float(np.square(difference, dtype=np.float64).sum())
        count += x.shape[1]
    return total / max(count, 1)


def _outputs(x: Array, matrix: FloatArray, bias: FloatArray) -> Array:
    made: Array = x @ matrix.astype(x.dtype) + bias[:, None].astype(x.dtype)
    return made
