"""Pruning and quantization of one weight in one go, numpy only; made of the functions that the passes use."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from onnxqp.prune.magnitude import prune_magnitude
from onnxqp.quantize.arithmetic import quantize_linear, scale_and_zero_point


class QuantizedWeight(NamedTuple):
    """Integers in the shape of the weight; scale float32 and zero point, scalars or one per index of `axis`."""

    q: npt.NDArray[Any]
    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[Any]


def prune_and_quantize(
    weights: npt.NDArray[Any],
    *,
    threshold: float | None = None,
    ratio: float | None = None,
    bits: int = 8,
    signed: bool = True,
    symmetric: bool = True,
    axis: int | None = None,
    step: float | None = None,
) -> QuantizedWeight:
    """Zero the small elements (`prune_magnitude`), then quantize what is left (`quantize_linear`).

    Exactly one of `threshold` and `ratio`. Zero is exact in every grid, so pruned elements come back as 0 from
    `dequantize_linear`; the others within half a step. The scale is that of the pruned weight.
    """
    pruned = prune_magnitude(weights, threshold=threshold, ratio=ratio)
    scale, zero_point = scale_and_zero_point(
        pruned, bits=bits, signed=signed, symmetric=symmetric, axis=axis, step=step
    )
    q = quantize_linear(pruned, scale, zero_point, bits=bits, signed=signed, axis=axis)
    return QuantizedWeight(q, np.asarray(scale, np.float32), np.asarray(zero_point))
