"""Refit a layer to what it computed before the cut. Only numpy is needed here.

    W' = W + (C + lambda D)^-1 (S - C W)        b' = mean(y) - mean(x) W'

C is the covariance of the inputs that are left (of the pruned model), S that of inputs and targets (of the original
model), W the sliced weight. D is the diagonal of C, so that lambda says the same of channels of any scale. It pulls
towards W, not towards zero: where the samples say nothing, the weight stays as it is. With inputs and targets of one
model this is He et al., Channel Pruning for Accelerating Very Deep Neural Networks (2017), and the block update of
Optimal Brain Surgeon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxqp.calibrate.moments import Moments

FloatArray: TypeAlias = npt.NDArray[np.float64]
Kind: TypeAlias = Literal["bias", "least-squares"]

DAMPINGS = (1e-3, 1e-2, 1e-1, 1.0)
_LEAST = 1e-3  # of the mean variance: damped as if it varied so much, what hardly does
_FACTOR = 2.0  # most that an output is scaled by, up or down
WORTH = 1e-3  # a refit must lower the held-out error by this share


@dataclass(frozen=True)
class Refit:
    """A layer's new weight `[groups, inputs, outputs]` and bias `[groups, outputs]`.

    `kind` is what the held-out rows preferred; None: the layer is best left as it was. Errors are means of squares.
    """

    matrix: FloatArray
    bias: FloatArray
    kind: Kind | None
    before: float
    after: float
    damping: float | None = None  # of least squares
    reweighted: bool = False  # whether the weight is another


def solve(moments: Moments, matrix: FloatArray, damping: float) -> FloatArray:
    """The least-squares weight, pulled towards `matrix`; LinAlgError where even the damped system is singular."""
    covariance = moments.covariance
    inputs = covariance.shape[-1]
    spread = np.diagonal(covariance, axis1=1, axis2=2)
    strength = np.maximum(spread, _LEAST * spread.mean(axis=1, keepdims=True))
    strength = damping * np.where(strength > 0, strength, 1.0)
    damped = covariance + strength[:, None, :] * np.eye(inputs)
    return np.asarray(matrix + np.linalg.solve(damped, moments.cross - covariance @ matrix))


def compensate(moments: Moments, matrix: FloatArray) -> FloatArray:
    """The bias that makes the mean of the outputs right."""
    return np.asarray(moments.y_mean - np.einsum("gi,gio->go", moments.x_mean, matrix))


def rescale(moments: Moments, matrix: FloatArray) -> FloatArray:
    """The weight with one factor for each output, the least-squares one: what is left after a cut varies less than all
    did, and that adds up from layer to layer. Factors are bounded, for a tiny output may have any."""
    varying = np.einsum("gio,gio->go", matrix, moments.covariance @ matrix)
    common = np.einsum("gio,gio->go", matrix, moments.cross)
    factors = np.divide(common, varying, out=np.ones_like(varying), where=varying > 0)
    return np.asarray(matrix * np.clip(factors, 1 / _FACTOR, _FACTOR)[:, None, :])


def refit(
    fit: Moments,
    held: Moments,
    matrix: FloatArray,
    bias: FloatArray,
    *,
    kind: Kind = "least-squares",
    dampings: Sequence[float] = DAMPINGS,
    least: float = 0.0,
    fixed: bool = False,
    towards: Sequence[FloatArray] = (),
) -> Refit:
    """Fit on `fit`, judge on `held`: the damping, `least` or more, is chosen there, and so is whether anything is
    changed at all. A `fixed` weight stays as it is, whatever the `kind`. `towards`: other weights that are tried, as
    they are and to be pulled to instead of `matrix`.

    What wins is fitted once more on all rows. The simplest choice wins where nothing else is better.
    """
    before = held.error(matrix, bias)
    whole = fit.merged(held)
    shifted = held.error(matrix, compensate(fit, matrix))
    best = Refit(matrix, bias, None, before, before)
    if shifted < before * (1 - WORTH):
        best = Refit(matrix, compensate(whole, matrix), "bias", before, shifted)
    if fixed:
        return best
    if kind == "bias":
        scaled = rescale(fit, matrix)
        error = held.error(scaled, compensate(fit, scaled))
        if error < best.after * (1 - WORTH):
            final = rescale(whole, matrix)
            best = Refit(final, compensate(whole, final), "bias", before, error, reweighted=True)
        return best
    chosen: tuple[FloatArray, float | None] | None = None
    tried = list(dict.fromkeys(max(damping, least) for damping in dampings))
    for start, damping in [*product([matrix], tried), *product(towards, [None, *tried])]:
        try:
            candidate = start if damping is None else solve(fit, start, damping)
        except np.linalg.LinAlgError:
            continue
        error = held.error(candidate, compensate(fit, candidate))
        if error < best.after * (1 - WORTH):
            chosen = start, damping
            best = Refit(candidate, compensate(fit, candidate), "least-squares", before, error, damping, True)
    if chosen is None:
        return best
    start, damping = chosen
    final = start if damping is None else solve(whole, start, damping)
    return Refit(final, compensate(whole, final), "least-squares", before, best.after, damping, True)
