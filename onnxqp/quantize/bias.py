"""Bias correction: rounding a weight shifts the mean of every output channel; the bias takes the shift back.

The shift is E[Wx] - E[W'x] = (W - W') E[x], with the per-channel means of the input from calibration (Nagel et al.
2019, arXiv 1906.04721, section 4.2, with measured means in place of those of a BatchNormalization). That padding brings
zeros to the borders of a convolution is neglected. numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from onnxqp.quantize.arithmetic import Floats
from onnxqp.quantize.blocks import Part, each_block

Means: TypeAlias = Mapping[str, npt.NDArray[np.float64]]  # by the name of an activation: one mean per channel


def mean_shift(
    weight: Floats, rounded: Floats, mean: npt.NDArray[np.float64], channel_axis: int, summed: Sequence[int]
) -> Floats | None:
    """What to add to the bias: float32, one per output channel; None where the shapes do not tell the groups.

    `weight` and `rounded` have the same shape; `mean` has one element per input channel of all groups together; the
    axes are those of `onnxqp.specs.Weight`.
    """
    into = weight.shape[summed[-1]]
    groups = mean.size // into
    out = weight.shape[channel_axis]
    if groups * into != mean.size or out % max(groups, 1) or not np.isfinite(mean).all():
        return None
    inner = tuple(summed[:-1])

    def summed_error(part: Part) -> Floats:
        return np.asarray((weight[part] - rounded[part]).sum(axis=inner, keepdims=True))

    whole = summed_error(...) if 0 in inner else np.concatenate(each_block(weight.shape, summed_error))
    error = np.moveaxis(whole, (channel_axis, summed[-1]), (0, 1))
    rows = error.reshape(groups, out // groups, into)
    shift: Floats = np.einsum("goi,gi->go", rows, mean.reshape(groups, into)).reshape(out).astype(np.float32)
    return shift
