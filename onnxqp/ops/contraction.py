"""Layers as matrix products: rows of inputs times the columns of a weight.

A convolution, plain, grouped, depthwise or transposed, and a product of matrices all compute
`targets = rows @ matrix + bias` in every one of their groups. Seen this way they can be refitted by least squares and
judged by second moments without anybody asking which operator it is. Only numpy is needed here; the operators say how.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Contraction(Protocol):
    """How output 0 of a node follows from input `data`, the constant input `weight` and the constant input `bias`.

    `bias` is None for operators without one. `scale` multiplies the product, `shift` the bias (alpha and beta of Gemm).
    `taps` elements of `data` meet each weight per input channel: the columns of `rows` come channel by channel.
    """

    @property
    def data(self) -> int: ...
    @property
    def weight(self) -> int: ...
    @property
    def bias(self) -> int | None: ...
    @property
    def shift(self) -> float: ...
    @property
    def contracted(self) -> int:
        """The axis of `data` that the inputs run along, counted from the end when negative."""
        ...

    def matrix(self, weight: Array) -> Array:
        """The weight as float64 `[groups, inputs * taps, outputs]`, so that rows times it are outputs."""
        ...

    def sizes(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """The shape of `matrix` of a weight of this shape."""
        ...

    def weight_of(self, matrix: Array, shape: Sequence[int]) -> Array:
        """The inverse of `matrix`, for a weight of this shape."""
        ...

    def positions(self, output: Sequence[int]) -> int:
        """How many rows an output of this shape comes from."""
        ...

    def rows(self, data: Array, output: Sequence[int], chosen: npt.NDArray[np.int64]) -> Array:
        """Rows `[groups, chosen, inputs * taps]` that make the outputs at the flat positions `chosen`."""
        ...

    def targets(self, output: Array, chosen: npt.NDArray[np.int64]) -> Array:
        """Outputs `[groups, chosen, outputs]` at the flat positions `chosen`."""
        ...


@dataclass(frozen=True)
class Product:
    """A matrix product with one group. `across`: the inputs run along axis 0 of `data`, not the last (transA)."""

    bias: int | None
    across: bool = False
    flipped: bool = False  # the weight is (outputs, inputs), not (inputs, outputs)
    scale: float = 1.0
    shift: float = 1.0
    data: int = 0
    weight: int = 1

    @property
    def contracted(self) -> int:
        return 0 if self.across else -1

    def matrix(self, weight: Array) -> Array:
        matrix: Array = weight.astype(np.float64) * self.scale
        return matrix.T[None] if self.flipped else matrix[None]

    def sizes(self, shape: Sequence[int]) -> tuple[int, int, int]:
        return (1, shape[1], shape[0]) if self.flipped else (1, shape[0], shape[1])

    def weight_of(self, matrix: Array, shape: Sequence[int]) -> Array:
        plain: Array = matrix[0] / self.scale
        return plain.T.reshape(shape) if self.flipped else plain.reshape(shape)

    def positions(self, output: Sequence[int]) -> int:
        return math.prod(output[:-1])

    def rows(self, data: Array, output: Sequence[int], chosen: npt.NDArray[np.int64]) -> Array:
        plain = data.T if self.across else data
        return plain.reshape(-1, plain.shape[-1])[chosen][None]

    def targets(self, output: Array, chosen: npt.NDArray[np.int64]) -> Array:
        return output.reshape(-1, output.shape[-1])[chosen][None]


@dataclass(frozen=True)
class Gates:
    """What a recurrent layer makes of its inputs, before it adds what its states say: no output shows it.

    `data` is (steps, batch, inputs) or (batch, steps, inputs), the weight (directions, outputs, inputs), the bias
    (directions, 2 * outputs), of which the first half is added here. Outputs are `[directions, positions, outputs]`.
    """

    directions: int
    data: int = 0
    weight: int = 1
    bias: int | None = 3
    shift: float = 1.0
    contracted: int = -1

    def matrix(self, weight: Array) -> Array:
        return weight.astype(np.float64).transpose(0, 2, 1)

    def sizes(self, shape: Sequence[int]) -> tuple[int, int, int]:
        return shape[0], shape[2], shape[1]

    def weight_of(self, matrix: Array, shape: Sequence[int]) -> Array:
        return matrix.transpose(0, 2, 1).reshape(shape)

    def positions(self, output: Sequence[int]) -> int:
        return output[1]

    def rows(self, data: Array, output: Sequence[int], chosen: npt.NDArray[np.int64]) -> Array:
        plain = data.reshape(-1, data.shape[-1])[chosen]
        return np.broadcast_to(plain, (self.directions, *plain.shape))

    def targets(self, output: Array, chosen: npt.NDArray[np.int64]) -> Array:
        return output[:, chosen]


@dataclass(frozen=True)
class Windows:
    """A convolution over images (batch, channels, space...); every tuple has one entry per spatial axis.

    `transposed`: the weight is (in, out / groups, ...) and inputs are spread over the output (ConvTranspose). `pads`
    are those at the beginning; None: as `automatic` has it, "upper", "lower" or "valid", which depends on the sizes.
    """

    groups: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...] | None
    automatic: str = "valid"
    transposed: bool = False
    extra: tuple[int, ...] = ()  # output_padding of a transposed convolution
    data: int = 0
    weight: int = 1
    bias: int | None = 2
    shift: float = 1.0
    contracted: int = 1

    def matrix(self, weight: Array) -> Array:
        taps = math.prod(self.kernel)
        blocks = weight.astype(np.float64).reshape(self.groups, weight.shape[0] // self.groups, weight.shape[1], taps)
        order = (0, 1, 3, 2) if self.transposed else (0, 2, 3, 1)
        ordered = blocks.transpose(order)
        return ordered.reshape(self.groups, ordered.shape[1] * taps, ordered.shape[3])

    def sizes(self, shape: Sequence[int]) -> tuple[int, int, int]:
        taps, inside = math.prod(self.kernel), shape[0] // self.groups
        return (self.groups, inside * taps, shape[1]) if self.transposed else (self.groups, shape[1] * taps, inside)

    def weight_of(self, matrix: Array, shape: Sequence[int]) -> Array:
        taps = math.prod(self.kernel)
        blocks = matrix.reshape(self.groups, -1, taps, matrix.shape[-1])
        return blocks.transpose((0, 1, 3, 2) if self.transposed else (0, 3, 1, 2)).reshape(shape)

    def positions(self, output: Sequence[int]) -> int:
        return output[0] * math.prod(output[2:])

    def rows(self, data: Array, output: Sequence[int], chosen: npt.NDArray[np.int64]) -> Array:
        space = data.shape[2:]
        where = np.unravel_index(chosen, (output[0], *output[2:]))
        flat, valid = np.zeros((len(chosen), 1), np.int64), np.ones((len(chosen), 1), np.bool_)
        for axis, place in enumerate(where[1:]):
            index, inside = self._sources(axis, place, space[axis], output[2 + axis])
            flat = (flat[:, :, None] * space[axis] + index[:, None, :]).reshape(len(chosen), -1)
            valid = (valid[:, :, None] & inside[:, None, :]).reshape(len(chosen), -1)
        plain = data.reshape(data.shape[0], data.shape[1], -1).transpose(0, 2, 1)  # gather whole pixels
        found = plain[where[0][:, None], flat]  # chosen, taps, channels
        found[~valid] = 0
        found = found.reshape(*flat.shape, self.groups, -1).transpose(2, 0, 3, 1)
        return found.reshape(self.groups, len(chosen), -1)

    def targets(self, output: Array, chosen: npt.NDArray[np.int64]) -> Array:
        where = np.unravel_index(chosen, (output.shape[0], *output.shape[2:]))
        found = np.moveaxis(output, 1, -1)[where]
        return found.reshape(len(chosen), self.groups, -1).transpose(1, 0, 2)

    def _sources(self, axis: int, place: Array, size: int, output: int) -> tuple[Array, Array]:
        """Along one axis: the inputs `[places, kernel]` that outputs at `place` come from, and where there are any."""
        begin = self._begin(axis, size, output)
        offsets = np.arange(self.kernel[axis]) * self.dilations[axis]
        if self.transposed:
            spread = place[:, None] + begin - offsets
            index, inside = spread // self.strides[axis], spread % self.strides[axis] == 0
        else:
            index = place[:, None] * self.strides[axis] - begin + offsets
            inside = np.ones(index.shape, np.bool_)
        inside = inside & (index >= 0) & (index < size)
        return np.where(inside, index, 0), inside

    def _begin(self, axis: int, size: int, output: int) -> int:
        """Padding before the first element, from the sizes where it is automatic."""
        if self.pads is not None:
            return self.pads[axis]
        reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1
        if self.transposed:
            extra = self.extra[axis] if self.extra else 0
            total = max((size - 1) * self.strides[axis] + extra + reach - output, 0)
        else:
            total = max((output - 1) * self.strides[axis] + reach - size, 0)
        return {"valid": 0, "upper": total // 2, "lower": total - total // 2}[self.automatic]
