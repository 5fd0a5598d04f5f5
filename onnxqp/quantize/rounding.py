"""Weight rounding by what it does to the output of the layer: closed form, deterministic. numpy only.

The mean squared error at an output channel is e' H e, e being the errors of its weights and H the second moments of the
layer's inputs. Weights are rounded one input after the other, and the error of each is taken back in those that are
still to come (optimal brain surgeon: Frantar et al. 2022, "GPTQ", arXiv 2210.17323; the use of a Cholesky factor is
theirs). Where inputs are correlated, as neighbouring pixels under a kernel are, most of the error of rounding to the
nearest cancels. Where the bias takes the mean error back, H is the covariance, which leaves more room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from onnxqp.calibrate.moments import Moments
from onnxqp.ops.contraction import Contraction
from onnxqp.quantize.weights import PAIR_LIMIT

Doubles: TypeAlias = npt.NDArray[np.float64]
Places: TypeAlias = npt.NDArray[np.intp]

DAMPING = 0.01  # of the mean second moment, added to each: what samples say of rare inputs is not to be trusted...
SHRINKAGE = 0.1  # ...and so much more for every input per row
BLOCK = 64  # inputs whose errors are passed on together


@dataclass(frozen=True)
class LayerRounding:
    """One layer: how its weight is a matrix, and the moments of its inputs. Results are kept: candidates share them.

    `corrects`: their means take the mean error of a rounded weight back, in the bias.
    """

    contraction: Contraction
    moments: Moments
    corrects: bool = True
    _rounded: dict[tuple[bytes, bool, tuple[int, ...]], npt.NDArray[np.int8]] = field(default_factory=dict)

    def round(
        self,
        weight: npt.NDArray[np.float32],
        scale: npt.NDArray[np.float32],
        nearest: npt.NDArray[np.int8],
        *,
        centred: bool,
        summed: Sequence[int] = (),
    ) -> npt.NDArray[np.int8]:
        """The integers for a weight, in its shape; `nearest` where they do no better.

        `scale` broadcasts against the weight. `centred`: a bias takes the mean error back. `summed`: the axes that a
        kernel sums over, slowest first, where its 16-bit sums of neighbours must be exact, as those of `nearest` are.
        """
        key = (scale.tobytes(), centred, tuple(summed))
        if key not in self._rounded:
            self._rounded[key] = self._round(weight, scale, nearest, centred, summed)
        return self._rounded[key]

    def shift(self, weight: npt.NDArray[np.float32], rounded: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """What a bias must add to take the mean error back, one per output channel."""
        error = self.contraction.matrix(weight) - self.contraction.matrix(rounded)
        return np.asarray(np.einsum("gi,gio->go", self.moments.x_mean, error).reshape(-1), np.float32)

    def _round(
        self,
        weight: npt.NDArray[np.float32],
        scale: npt.NDArray[np.float32],
        nearest: npt.NDArray[np.int8],
        centred: bool,
        summed: Sequence[int],
    ) -> npt.NDArray[np.int8]:
        matrix = self.contraction.matrix(weight)
        steps = self.contraction.matrix(np.broadcast_to(scale, weight.shape))
        hessian, factor, order = self.factor(centred)
        partner = partners(self.contraction, weight.shape, summed) if summed else None
        found = round_by_hessian(matrix, steps, factor, order, partner) * steps
        if _error(matrix - found, hessian) >= _error(matrix - self.contraction.matrix(nearest * scale), hessian):
            return nearest
        return np.rint(self.contraction.weight_of(found, weight.shape) / scale).astype(np.int8)

    def factor(self, centred: bool) -> tuple[Doubles, Doubles, Places]:
        """The second moments of the inputs, and what `factor_of` makes of them, damped.

        Not kept: they are as large as the moments each, and hardly anyone asks twice.
        """
        hessian = self.moments.covariance
        if not centred:
            mean = self.moments.x_mean
            hessian = hessian + mean[:, :, None] * mean[:, None, :]
        damping = DAMPING + SHRINKAGE * hessian.shape[1] / max(self.moments.count, 1)
        return (hessian, *factor_of(hessian, damping))


Roundings: TypeAlias = Mapping[str, LayerRounding]  # by the name of the node


def factor_of(hessian: Doubles, damping: float) -> tuple[Doubles, Places]:
    """Of every group [inputs, inputs]: R of H = R' R, upper triangular, damped, and the order of its inputs.

    Rounding goes from the last to the first: those that vary most come last, so that their errors are passed on.
    """
    diagonal = np.einsum("gii->gi", hessian)
    order = np.argsort(diagonal, axis=1, kind="stable")
    mean = diagonal.mean(axis=1)
    mean = np.where(mean > 0, mean, 1.0)
    ordered = np.take_along_axis(np.take_along_axis(hessian, order[:, :, None], 1), order[:, None, :], 2)
    damped = ordered / mean[:, None, None] + damping * np.eye(hessian.shape[1])
    return np.asarray(np.linalg.cholesky(damped).transpose(0, 2, 1)), order


def round_by_hessian(
    matrix: Doubles,
    scale: Doubles,
    factor: Doubles,
    order: Places,
    partner: Places | None = None,
    levels: Doubles | None = None,
) -> Doubles:
    """Integers -128..127 for the weights `matrix` [groups, inputs, outputs] at steps `scale` of the same shape.

    e' H e is the sum over i of (R_ii e_i + sum of R_ij e_j over j > i) squared: with the errors behind i known, the
    integer i that makes its term least is that nearest to w_i + sum / R_ii. `factor` and `order` are those of
    `factor_of`. `partner` [inputs]: with which other input each one makes a pair (itself: with none) whose sum stays
    within `PAIR_LIMIT`. `levels`: the integers to choose from, in order, 0 among them; None: all.
    """
    inputs = matrix.shape[1]
    weights = np.take_along_axis(matrix, order[:, :, None], 1)
    steps = np.take_along_axis(scale, order[:, :, None], 1)
    place = np.argsort(order, axis=1)
    relative = factor / np.einsum("gii->gi", factor)[:, :, None]  # R_ij / R_ii
    rounded, errors = np.zeros_like(weights), np.zeros_like(weights)
    wanted = weights.copy()
    low: npt.ArrayLike = -128.0
    high: npt.ArrayLike = 127.0
    for stop in range(inputs, 0, -BLOCK):
        start = max(stop - BLOCK, 0)
        for i in range(stop - 1, start - 1, -1):
            if partner is not None:
                low, high = _limits(rounded, place, order[:, i], partner, i)
            here = wanted[:, i] + np.matmul(relative[:, i, None, i + 1 : stop], errors[:, i + 1 : stop])[:, 0]
            here /= steps[:, i]
            if levels is None:
                np.rint(here, out=here)
                np.maximum(here, low, out=here)
                np.minimum(here, high, out=rounded[:, i])
            else:
                rounded[:, i] = _to_levels(here, levels, low, high)
            np.subtract(weights[:, i], rounded[:, i] * steps[:, i], out=errors[:, i])
        wanted[:, :start] += relative[:, :start, start:stop] @ errors[:, start:stop]
    return np.take_along_axis(rounded, place[:, :, None], 1)


def _to_levels(wanted: Doubles, levels: Doubles, low: npt.ArrayLike, high: npt.ArrayLike) -> Doubles:
    """The nearest of the levels between the limits, of which there is one."""
    nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, wanted)
    first, last = np.searchsorted(levels, low), np.searchsorted(levels, high, side="right") - 1
    return np.asarray(levels[np.clip(nearest, first, last)])


def _limits(rounded: Doubles, place: Places, inputs: Places, partner: Places, turn: int) -> tuple[Doubles, Doubles]:
    """Of the integers at this turn, one input per group: those that its partner, where it had its turn, leaves."""
    other = place[np.arange(len(place)), partner[inputs]]
    met = (other > turn)[:, None]
    sum_ = np.where(met, rounded[np.arange(len(place)), other], 0.0)
    return np.where(met, np.maximum(-128.0, -PAIR_LIMIT - sum_), -128.0), np.where(
        met, np.minimum(127.0, PAIR_LIMIT - sum_), 127.0
    )


def partners(contraction: Contraction, shape: Sequence[int], summed: Sequence[int]) -> Places:
    """For every input of the matrix the one beside it in the order of the kernel; the last may be alone."""
    sizes = [shape[axis] for axis in summed]
    places = np.zeros(shape)
    for axis, stride in zip(summed, [int(np.prod(sizes[i + 1 :])) for i in range(len(sizes))], strict=True):
        places += (np.arange(shape[axis]) * stride).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    unit = contraction.matrix(np.ones(shape))
    in_kernel = np.rint(contraction.matrix(places)[0, :, 0] / unit[0, :, 0]).astype(np.intp)
    beside = np.where(in_kernel ^ 1 < in_kernel.size, in_kernel ^ 1, in_kernel)
    return np.asarray(np.argsort(in_kernel)[beside])


def _error(error: Doubles, hessian: Doubles) -> float:
    """Mean squared error at the outputs, summed over them."""
    return float(np.einsum("gio,gio->", error, hessian @ error))
