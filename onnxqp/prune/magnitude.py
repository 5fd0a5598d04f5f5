"""Elementary pruning of one weight, numpy only: small functions to learn from and to script with.

Counts round to nearest, ties to even: half of 5 filters is 2, half of 7 is 4.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from onnxqp.errors import UsageError


def share_of(ratio: float, count: int) -> int:
    """How many of `count` things a share `ratio` (0 <= ratio <= 1) is, to nearest, ties to even."""
    if not 0.0 <= ratio <= 1.0:
        raise UsageError(f"the ratio must lie between 0 and 1, not {ratio}", hint="0.5 removes half")
    return int(np.rint(ratio * count))


def slice_norms(
    weights: npt.NDArray[Any], axes: int | tuple[int, ...] = 0, order: Literal[1, 2] = 1
) -> npt.NDArray[np.float64]:
    """The L1 or L2 norm of every slice along `axes`; the result has the dimensions of `axes`, in their order.

    For a convolution weight of shape (out, in, height, width), `axes=0` gives one norm per filter.
    """
    kept = (axes,) if isinstance(axes, int) else tuple(axes)
    kept = tuple(axis % weights.ndim for axis in kept)
    rest = tuple(axis for axis in range(weights.ndim) if axis not in kept)
    if order == 1:
        norms = np.abs(weights).sum(axis=rest, dtype=np.float64)
    else:
        norms = np.sqrt(np.square(weights, dtype=np.float64).sum(axis=rest))
    return np.asarray(norms).transpose(np.argsort(np.argsort(kept)))


def prune_magnitude(
    weights: npt.NDArray[Any], *, threshold: float | None = None, ratio: float | None = None
) -> npt.NDArray[Any]:
    """A copy of `weights` with small elements set to zero; shape and dtype stay.

    Exactly one of: `threshold`, every element of smaller magnitude goes; `ratio`, that share of all elements goes,
    those of smallest magnitude (of equal ones the first).
    """
    if (threshold is None) == (ratio is None):
        raise UsageError("neither or both of threshold and ratio", hint="pass exactly one of them")
    pruned = np.array(weights)
    if threshold is not None:
        pruned[np.abs(pruned) < threshold] = 0
        return pruned
    count = share_of(ratio or 0.0, pruned.size)
    order = np.argsort(np.abs(pruned), axis=None, kind="stable")
    pruned.reshape(-1)[order[:count]] = 0
    return pruned


def weakest(scores: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    """Places of the `count` lowest scores, lowest first; of equal ones the first."""
    return np.argsort(scores, kind="stable")[:count].astype(np.int64)


def prune_filters(
    weights: npt.NDArray[Any], axis: int = 0, *, ratio: float, order: Literal[1, 2] = 1
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Remove whole slices along `axis`, those of smallest norm (Li et al., Pruning Filters for Efficient ConvNets).

    Returns the smaller weight, and the places kept, ascending: whatever else runs over the axis (bias, the next layer's
    input channels) must keep the same ones. At least one slice is kept.
    """
    norms = slice_norms(weights, axis, order)
    count = min(share_of(ratio, norms.size), norms.size - 1)
    kept = np.setdiff1d(np.arange(norms.size, dtype=np.int64), weakest(norms, count))
    return np.take(weights, kept, axis=axis), kept
