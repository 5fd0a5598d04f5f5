"""Weights to signed integers: per channel, symmetric, and safe from the 16-bit sums of older x64 CPUs. numpy only.

Without VNNI an int8 kernel adds two neighbouring products, each of a uint8 activation and an int8 weight, in 16 bits,
and saturates. With activations up to 255 the sum is exact when -128 <= w[2k] + w[2k+1] <= 128, for 255 * 128 < 32768.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from onnxqp.quantize.arithmetic import Floats, quantize_linear, range_parameters
from onnxqp.quantize.blocks import Part, each_block

PAIR_LIMIT = 128  # largest magnitude of the sum of two neighbours
WORST_GROWTH = 127 / 64  # at this multiple of the min-max scale no weight exceeds 64, so every pair is safe
CANDIDATES = 24  # scales tried for an unsafe channel, from the smallest that may be safe


@dataclass(frozen=True)
class IntegerWeight:
    """`values` int8 in the shape of the weight; `scale` float32, a scalar or one per channel; the zero point is 0.

    `made_safe` counts the channels whose scale had to grow; without channels it is 0 or 1.
    """

    values: npt.NDArray[np.int8]
    scale: Floats
    made_safe: int = 0


def quantize_weight(
    weight: Floats,
    axis: int | None,
    *,
    summed: Sequence[int] = (),
    safe: bool = False,
    at_least: npt.ArrayLike = 0.0,
) -> IntegerWeight:
    """Round a weight of any rank to int8, symmetrically, with one scale per index of `axis` or a single one.

    `summed` are the axes that the kernel sums over, slowest first; `safe` keeps its 16-bit sums exact by growing
    scales (never by clipping, which costs far more). `at_least`: scales below are raised, a scalar or one per channel.
    """
    magnitude = _magnitude(weight, axis)
    magnitude = np.where(magnitude > 0, magnitude, magnitude.max(initial=0.0))  # a zero channel takes a usual scale
    scale, _ = range_parameters(-magnitude, magnitude, signed=True, symmetric=True)
    scale = np.maximum(scale, np.asarray(at_least, np.float32))
    made_safe = 0
    if safe and summed:
        scale, made_safe = _safe_scales(weight, scale, axis, summed)
    values = quantize_linear(weight, scale, bits=8, signed=True, axis=axis)
    return IntegerWeight(cast("npt.NDArray[np.int8]", values), scale, made_safe)


def worst_pair(values: npt.NDArray[np.int8], summed: Sequence[int]) -> int:
    """Largest magnitude of the sum of two neighbours in kernel order; over `PAIR_LIMIT` a kernel may saturate."""
    rows = _in_kernel_order(values.astype(np.int32), None, summed)
    return int(np.abs(_pair_sums(rows)).max(initial=0))


def _safe_scales(weight: Floats, scale: Floats, axis: int | None, summed: Sequence[int]) -> tuple[Floats, int]:
    """For every channel the scale, from the given one up, of least squared error among those that are safe."""
    rows = _in_kernel_order(weight, axis, summed)  # [channels, other rows, sum]
    scales = np.broadcast_to(scale, (rows.shape[0],)).astype(np.float32)
    unsafe = np.flatnonzero(~_is_safe(rows, scales))
    for channel in unsafe:
        row, start = rows[channel : channel + 1], scales[channel]
        # rounding moves a sum by at most 1, so nothing below this can be safe
        lowest = max(start, float(np.abs(_pair_sums(row)).max()) / (PAIR_LIMIT + 1))
        candidates = (lowest + (start * WORST_GROWTH - lowest) * np.linspace(0, 1, CANDIDATES) ** 2).astype(np.float32)
        tried = np.repeat(row, candidates.size, axis=0)
        error = np.where(_is_safe(tried, candidates), _squared_error(tried, candidates), np.inf)
        scales[channel] = candidates[int(np.argmin(error))]
    return (scales if np.ndim(scale) else scales.reshape(())), int(unsafe.size)


def _in_kernel_order(weight: npt.NDArray[np.number], axis: int | None, summed: Sequence[int]) -> npt.NDArray[np.number]:
    """[channels or 1, rows, length of the sum], the sum's axes in the order of the kernel."""
    channel = [axis] if axis is not None else []
    rest = [i for i in range(weight.ndim) if i not in summed and i not in channel]
    ordered = weight.transpose([*channel, *rest, *summed])
    length = int(np.prod([weight.shape[i] for i in summed]))
    return ordered.reshape(weight.shape[axis] if axis is not None else 1, -1, length)


def _pair_sums(rows: npt.NDArray[np.number]) -> npt.NDArray[np.number]:
    """Sums of elements 2k and 2k+1 of the last axis; an odd last element stands alone."""
    even = rows.shape[-1] // 2 * 2
    return rows[..., :even:2] + rows[..., 1:even:2]


def _steps(rows: npt.NDArray[np.number], scales: Floats) -> Floats:
    return cast(Floats, np.clip(np.rint(rows / scales[:, None, None]), -128, 127))


def _is_safe(rows: npt.NDArray[np.number], scales: Floats) -> npt.NDArray[np.bool_]:
    """Per channel, whether all its neighbours fit at this scale."""
    return cast(
        "npt.NDArray[np.bool_]", np.abs(_pair_sums(_steps(rows, scales))).max(axis=(1, 2), initial=0) <= PAIR_LIMIT
    )


def _squared_error(rows: npt.NDArray[np.number], scales: Floats) -> npt.NDArray[np.float64]:
    difference = _steps(rows, scales) * scales[:, None, None] - rows
    return cast("npt.NDArray[np.float64]", np.square(difference, dtype=np.float64).sum(axis=(1, 2)))


def _magnitude(weight: Floats, axis: int | None) -> Floats:
    """The largest there is, or that of every index of an axis."""
    others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)

    def largest(part: Part) -> Floats:
        block = weight[part]
        return np.asarray(np.maximum(block.max(axis=others, initial=0.0), -block.min(axis=others, initial=0.0)))

    found = each_block(weight.shape, largest)
    if not found:
        return np.zeros(() if axis is None else weight.shape[axis], np.float32)
    return np.concatenate(found) if axis == 0 else np.asarray(np.max(found, axis=0))
