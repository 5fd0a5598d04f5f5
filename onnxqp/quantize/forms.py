"""In which form a float weight is stored as integers: the cheapest scales that are good enough. numpy only.

Large weights of one kind want one scale for each output, others one for each input; depthwise filters and folded
normalisations want the one, embeddings and the layers behind an activation the other. Where neither will do, every
weight gets the product of two scales, one of its row and one of its column, that take turns until they balance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from onnxqp.quantize.arithmetic import HALF_MAX, MANY_SCALES, SMALLEST_SCALE, Floats, Integers, in_half
from onnxqp.quantize.blocks import Part, each_block, within

GOOD_SQNR_DB = 42.0  # of the rounded weight, good enough to spend no more bytes on scales
LEAST_SQNR_DB = 31.0  # a weight that lies below in every form gets 16 bits...
LEAST_WIDE_SQNR_DB = 45.0  # ...or stays in float
FAINT = 1e-2  # of the mean energy of a channel
GROUP = 16  # elements at least that share a scale, but for depthwise layers
TURNS = 4  # of rows and columns


Energies: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Form:
    """Integers in the shape of the weight, and float32 scales: it stands for the product of them all, broadcast.

    Scales of `half` have values that half precision knows.
    """

    integers: Integers
    scales: tuple[Floats, ...]

    @property
    def scale(self) -> Floats:
        """The product of the scales."""
        return math.prod(self.scales[1:], start=self.scales[0])

    @staticmethod
    def half(scale: Floats) -> bool:
        """Whether a scale is to be stored in half precision."""
        return scale.size >= MANY_SCALES and float(scale.max()) < HALF_MAX


def smallest_form(array: Floats) -> Form | None:
    """The cheapest scales at which int8 is good; else the best that will do; else 16 bits, if these do."""
    if not _is_finite(array):  # a mask, as it may be
        return None
    best: tuple[float, Form] | None = None
    signal = _signal(array)
    for scales in _scales(array):
        quality, form = _rounded(array, scales, np.dtype(np.int8), signal)
        if quality >= GOOD_SQNR_DB:
            return form
        if quality >= LEAST_SQNR_DB and (best is None or quality > best[0]):
            best = (quality, form)
    return best[1] if best is not None else wide_form(array)


def wide_form(array: Floats) -> Form | None:
    """16 bits and one scale; None where they would spoil the array, too."""
    if not _is_finite(array):
        return None
    quality, form = _rounded(array, (np.abs(array).max(keepdims=True),), np.dtype(np.int16), _signal(array))
    return form if quality >= LEAST_WIDE_SQNR_DB else None


def _scales(array: Floats) -> Iterator[tuple[Floats, ...]]:
    """Magnitudes that scales may follow, the fewest first: of every index of an axis, of two axes together."""
    sizes = {axis: size for axis, size in enumerate(array.shape) if size > 1}
    rows = np.concatenate(each_block(array.shape, lambda part: _largest(array[part], 0)))
    others = np.max(each_block(array.shape, lambda part: np.abs(array[part]).max(axis=0, keepdims=True)), axis=0)
    for axis in sorted(sizes, key=lambda axis: (sizes[axis], axis)):
        if array.size >= GROUP * sizes[axis] or axis == 0:
            yield (rows if axis == 0 else _largest(others, axis),)
    if len(sizes) > 1 and array.size >= GROUP * sum(list(sizes.values())[:2]):
        yield _balanced(array, *list(sizes)[:2])


def _largest(array: Floats, *kept: int) -> Floats:
    """Magnitudes along some axes, the largest of all others, whose sizes become 1."""
    others = tuple(axis for axis in range(array.ndim) if axis not in kept)
    return np.asarray(np.abs(array).max(axis=others, keepdims=True))


def _is_finite(array: Floats) -> bool:
    return all(each_block(array.shape, lambda part: bool(np.isfinite(array[part]).all())))


def _balanced(array: Floats, row: int, column: int) -> tuple[Floats, Floats]:
    """Magnitudes of rows and of columns whose products bound every element closely."""
    found = each_block(array.shape, lambda part: _largest(array[part], row, column))
    bounds = np.concatenate(found) if row == 0 else np.max(found, axis=0)
    rows, columns = (
        np.ones([size if axis == own else 1 for axis, size in enumerate(array.shape)], np.float32)
        for own in (row, column)
    )
    for turn in range(TURNS):
        last = turn == TURNS - 1
        rows = rows * _shared((bounds / (rows * columns)).max(axis=column, keepdims=True), whole=False)
        columns = columns * _shared((bounds / (rows * columns)).max(axis=row, keepdims=True), whole=last)
    return rows, columns


def _shared(magnitude: Floats, *, whole: bool) -> Floats:
    """What a side takes of an excess: the half of it in every turn, in the last all that is left."""
    return np.asarray(np.where(magnitude > 0, magnitude if whole else np.sqrt(magnitude), 1.0), np.float32)


def _rounded(
    array: Floats, magnitudes: tuple[Floats, ...], dtype: np.dtype[np.signedinteger], signal: Energies
) -> tuple[float, Form]:
    """The quality, in decibels, and the form; the largest integer stands for the magnitudes' product."""
    levels = np.float32(np.iinfo(dtype).max)
    first, *others = magnitudes
    scales = tuple(_storable(each) for each in (first / levels, *others))
    form = Form(np.empty(array.shape, dtype), scales)
    whole = form.scale

    def fill(part: Part) -> Energies:
        block, scale = array[part], within(whole, part)
        steps = block / scale
        np.clip(np.rint(steps, out=steps), -levels, levels, out=steps)
        form.integers[part] = steps
        with np.errstate(over="ignore", invalid="ignore"):  # the mask of an attention holds the largest of all floats
            steps *= scale
            steps -= block
        return _squares(steps, array.shape)

    return _quality(np.concatenate(each_block(array.shape, fill)), signal), form


def _storable(scale: Floats) -> Floats:
    """The scale as the file will hold it, zero as one; in half precision it is rounded up."""
    scale = np.where(scale > 0, np.maximum(scale, np.float32(SMALLEST_SCALE)), np.float32(1.0)).astype(np.float32)
    return in_half(scale) if Form.half(scale) else scale


def _signal(array: Floats) -> Energies:
    return np.concatenate(each_block(array.shape, lambda part: _squares(array[part], array.shape)))


def _quality(noise: Energies, signal: Energies) -> float:
    """The signal-to-noise ratio of the mean row or column, whichever is worse, in decibels.

    Not that of the whole: a small channel may be drowned beside large ones, and be scaled up again in the next layer.
    One that is `FAINT` is as good as dead.
    """
    worst = 0.0
    for axis in (0, 1):
        below, above = noise.sum(axis=axis), signal.sum(axis=axis)
        if not np.isfinite(above).all() or not above.any():
            return -math.inf
        worst = max(worst, float((below / (above + FAINT * above.mean())).mean()))
    return -10 * math.log10(worst) if worst else math.inf


def _squares(block: Floats, shape: tuple[int, ...]) -> Energies:
    """Sums of squares, [rows, columns], of a block of an array of that shape: its first two axes longer than 1."""
    sides = [size for size in shape if size != 1] or [1]
    parts = block.reshape(-1, math.prod(sides[1:2]), math.prod(sides[2:]))
    sums: Energies = np.einsum("ijk,ijk->ij", parts, parts, dtype=np.float64)
    return sums
