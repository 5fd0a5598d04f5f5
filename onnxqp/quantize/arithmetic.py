"""Scale, zero point and rounding: the arithmetic of ONNX QuantizeLinear and DequantizeLinear, in numpy alone.

An integer q stands for the real number (q - zero_point) * scale. Quantizing rounds to nearest, ties to even, and
saturates, as the ONNX operators do; the passes of onnxqp use these very functions.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from onnxqp.errors import DataError, UsageError
from onnxqp.quantize.blocks import Part, each_block, within
from onnxqp.specs import Array

MIN_BITS, MAX_BITS = 4, 16
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)  # a denormal scale would lose digits, or read as zero
MANY_SCALES = 64  # from so many on they are stored in half precision...
HALF_MAX = 60000.0  # ...which does not go beyond
BIAS_LIMIT = 2**30  # leaves the int32 accumulator as much room for the products as for the bias

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.integer]


def integer_limits(bits: int, signed: bool) -> tuple[int, int]:
    """Smallest and largest integer of `bits` bits, as (0, 255) or (-128, 127)."""
    if not MIN_BITS <= bits <= MAX_BITS:
        raise UsageError(f"{bits} bits are out of range", hint=f"use {MIN_BITS} to {MAX_BITS} bits")
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def storage_dtype(bits: int, signed: bool) -> np.dtype[np.generic]:
    """The smallest numpy integer type that holds `bits` bits: 4-bit values live in int8 or uint8."""
    integer_limits(bits, signed)
    return np.dtype(f"{'' if signed else 'u'}int{8 if bits <= 8 else 16}")


def quantize_linear(
    x: Array,
    scale: npt.ArrayLike,
    zero_point: npt.ArrayLike = 0,
    *,
    bits: int = 8,
    signed: bool = False,
    axis: int | None = None,
) -> Integers:
    """Real numbers to integers: saturate(round_half_even(x / scale) + zero_point).

    `x` has any shape and a float dtype. `scale` and `zero_point` are scalars, or with `axis` vectors of length
    `x.shape[axis]`. The result has the shape of `x` and the smallest integer dtype that holds `bits` bits; infinities
    saturate. Raises UsageError for parameters that do not fit and DataError for NaN.
    """
    low, high = integer_limits(bits, signed)
    x = np.asarray(x)
    step = _along(scale, x.shape, axis, "scale")
    if not (np.isfinite(step).all() and (step > 0).all()):
        raise UsageError("a scale must be positive and finite", hint="take it from scale_and_zero_point")
    zero = _along(zero_point, x.shape, axis, "zero point")
    if zero.size and (zero.min() < low or zero.max() > high):
        raise UsageError(f"zero point outside {low}..{high}", hint="`bits` and `signed` must be those of its making")
    integers = np.empty(x.shape, storage_dtype(bits, signed))
    step, shifted = step.astype(np.float32), bool(zero.any())

    def fill(part: Part) -> None:
        with np.errstate(over="ignore"):  # x / scale beyond float32 saturates below
            steps = np.asarray(x[part] / within(step, part))
        np.rint(steps, out=steps)
        if np.isnan(steps).any():
            raise DataError("NaN cannot be quantized", hint="look for it in the array before quantizing")
        if shifted:
            steps += within(zero, part)
        integers[part] = np.clip(steps, low, high, out=steps)

    each_block(x.shape, fill)
    return cast(Integers, integers)


def dequantize_linear(
    q: Integers, scale: npt.ArrayLike, zero_point: npt.ArrayLike = 0, *, axis: int | None = None
) -> Floats:
    """Integers back to float32: (q - zero_point) * scale, in the shape of `q`; parameters as in `quantize_linear`."""
    q = np.asarray(q)
    zero = _along(zero_point, q.shape, axis, "zero point")
    step = _along(scale, q.shape, axis, "scale").astype(np.float32)
    if q.dtype.itemsize > 2:
        return (q.astype(np.int64) - zero.astype(np.int64)).astype(np.float32) * step
    real, shifted = np.empty(q.shape, np.float32), bool(zero.any())

    def fill(part: Part) -> None:
        block = q[part].astype(np.float32)  # holds every integer of 17 bits
        if shifted:
            block -= within(zero, part).astype(np.float32)
        np.multiply(block, within(step, part), out=real[part])

    each_block(q.shape, fill)
    return real


def scale_and_zero_point(
    x: Array,
    *,
    bits: int = 8,
    signed: bool = False,
    symmetric: bool = False,
    axis: int | None = None,
    step: float | None = None,
) -> tuple[Floats, Integers]:
    """Parameters that cover every value of `x`: float32 scale and integer zero point, scalars or one per `axis` index.

    Zero is always represented exactly. `symmetric`: the zero point is 0 (the middle of the range when unsigned) and
    the scale follows the largest magnitude. `step`: this scale is used as it is, and only the zero point is derived.
    Raises DataError when `x` holds NaN or infinity.
    """
    x = np.asarray(x)
    if x.size and not np.isfinite(x).all():
        raise DataError("NaN or infinity in the values", hint="a range must be finite")
    if axis is None:
        low, high = (x.min(), x.max()) if x.size else (0.0, 0.0)
    else:
        others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
        low, high = x.min(axis=others, initial=0), x.max(axis=others, initial=0)
    return range_parameters(low, high, bits=bits, signed=signed, symmetric=symmetric, step=step)


def range_parameters(
    low: npt.ArrayLike,
    high: npt.ArrayLike,
    *,
    bits: int = 8,
    signed: bool = False,
    symmetric: bool = False,
    step: float | None = None,
) -> tuple[Floats, Integers]:
    """Scale and zero point of the real range [low, high], scalars or vectors alike.

    The range is widened to hold 0; the empty range [0, 0] gets scale 1. Scales are float32 and never denormal.
    """
    smallest, largest = integer_limits(bits, signed)
    bottom = np.minimum(np.asarray(low, np.float64), 0.0)
    top = np.maximum(np.asarray(high, np.float64), 0.0)
    if not (np.isfinite(bottom).all() and np.isfinite(top).all()):
        raise DataError("a range must be finite", hint="look for NaN or infinity in the values")
    middle = 0 if signed else (smallest + largest + 1) // 2
    span = np.maximum(-bottom, top) if symmetric else top - bottom
    levels = largest - middle if symmetric else largest - smallest
    if step is None:
        scale = np.where(span > 0, np.maximum(span / levels, SMALLEST_SCALE), 1.0).astype(np.float32)
    elif np.isfinite(step) and step >= SMALLEST_SCALE:
        scale = np.full(span.shape, step, np.float32)
    else:
        raise UsageError(f"a step of {step} is not a positive finite number", hint="for example step=0.05")
    if symmetric:
        zero = np.full(scale.shape, middle)
    else:
        zero = np.clip(np.rint(smallest - bottom / scale.astype(np.float64)), smallest, largest)
    return scale, cast(Integers, zero.astype(storage_dtype(bits, signed)))


def in_half(scale: Floats) -> Floats:
    """Scales rounded up to what half precision knows, as float32; zero stays zero, and infinity what is too large."""
    with np.errstate(over="ignore"):
        halves = scale.astype(np.float16)
    return np.where(halves < scale, np.nextafter(halves, np.float16(np.inf)), halves).astype(np.float32)


def quantize_bias(bias: Floats, x_scale: npt.ArrayLike, weight_scale: npt.ArrayLike) -> npt.NDArray[np.int32]:
    """A bias in the units of the integer accumulator: int32 at scale x_scale * weight_scale, zero point 0.

    `bias` has shape [C], `weight_scale` is a scalar or [C]. Raises UsageError beyond `BIAS_LIMIT`: raise the weight
    scale first (`smallest_weight_scale`), for a clipped bias would be wrong without a sign of it.
    """
    scale = np.asarray(x_scale, np.float32) * np.asarray(weight_scale, np.float32)
    steps = np.rint(np.asarray(bias, np.float64) / scale.astype(np.float64))
    if steps.size and np.abs(steps).max() > BIAS_LIMIT:
        raise UsageError("a bias does not fit in 32 bits at this scale", hint="raise the scale of the weights")
    return cast("npt.NDArray[np.int32]", steps.astype(np.int32))


def smallest_weight_scale(bias: Floats, x_scale: npt.ArrayLike) -> Floats:
    """Per channel, the smallest weight scale at which `quantize_bias` holds: float32, in the shape of `bias`.

    It also keeps the product of the two scales a normal float32.
    """
    need = np.maximum(np.abs(np.asarray(bias, np.float64)) / BIAS_LIMIT, SMALLEST_SCALE)
    return cast(Floats, (1.001 * need / np.asarray(x_scale, np.float64)).astype(np.float32))


def _along(values: npt.ArrayLike, shape: tuple[int, ...], axis: int | None, what: str) -> npt.NDArray[np.number[Any]]:
    """A scalar, or a vector reshaped to broadcast along `axis` of an array of that shape."""
    array = np.asarray(values)
    if array.size == 1:
        return array.reshape(())
    if axis is None:
        raise UsageError(f"{what} has {array.size} values but no axis is given", hint="pass axis=")
    if not -len(shape) <= axis < len(shape) or array.shape != (shape[axis],):
        raise UsageError(f"{what} of shape {array.shape} does not fit axis {axis} of an array of shape {shape}")
    return array.reshape([-1 if i == axis % len(shape) else 1 for i in range(len(shape))])
