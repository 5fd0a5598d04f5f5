"""Second moments of the inputs and targets of a layer, streamed. Only numpy is needed here.

Rows come in batches and are dropped at once: what stays is a few sums, in float64, of the size of the layer's weights
squared. Sums are taken about a fixed point near the mean, so that nothing cancels when they are centred in the end;
products of a batch are computed in float32, which is as exact as its elements.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass
class Moments:
    """Sums over rows x `[groups, rows, inputs]` and y `[groups, rows, outputs]`, both taken about fixed points."""

    x_origin: FloatArray  # [groups, inputs]
    y_origin: FloatArray  # [groups, outputs]
    count: int
    x: FloatArray  # [groups, inputs]
    y: FloatArray  # [groups, outputs]
    xx: FloatArray  # [groups, inputs, inputs]
    xy: FloatArray  # [groups, inputs, outputs]
    yy: FloatArray  # [groups, outputs]: squares only

    @classmethod
    def about(cls, x_origin: FloatArray, y_origin: FloatArray) -> Moments:
        """Empty sums."""
        (groups, inputs), outputs = x_origin.shape, y_origin.shape[1]
        return cls(
            x_origin,
            y_origin,
            0,
            np.zeros((groups, inputs)),
            np.zeros((groups, outputs)),
            np.zeros((groups, inputs, inputs)),
            np.zeros((groups, inputs, outputs)),
            np.zeros((groups, outputs)),
        )

    def update(self, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
        """Add rows. Raises ValueError where the shapes do not fit."""
        if x.shape[:2] != y.shape[:2] or x.shape[::2] != self.x.shape or y.shape[::2] != self.y.shape:
            raise ValueError(f"rows {x.shape} and {y.shape} do not fit {self.x.shape} and {self.y.shape}")
        if not x.shape[1]:
            return
        a = np.asarray(x - self.x_origin[:, None].astype(x.dtype), _product_type(x))
        b = np.asarray(y - self.y_origin[:, None].astype(y.dtype), _product_type(y))
        flipped = a.transpose(0, 2, 1)
        self.count += x.shape[1]
        self.x += a.sum(axis=1, dtype=np.float64)
        self.y += b.sum(axis=1, dtype=np.float64)
        self.xx += flipped @ a
        self.xy += flipped @ b
        self.yy += np.einsum("gno,gno->go", b, b, dtype=np.float64)

    def towards(self, batches: Iterable[tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> Moments:
        """The same inputs with other targets: batches of rows x and y, of all rows or an even share of them."""
        count, x, y = 0, np.zeros_like(self.x), np.zeros_like(self.y)
        xy, yy = np.zeros_like(self.xy), np.zeros_like(self.yy)
        for rows, targets in batches:
            a = np.asarray(rows - self.x_origin[:, None].astype(rows.dtype), _product_type(rows))
            b = np.asarray(targets - self.y_origin[:, None].astype(targets.dtype), _product_type(targets))
            count += a.shape[1]
            x += a.sum(axis=1, dtype=np.float64)
            y += b.sum(axis=1, dtype=np.float64)
            xy += a.transpose(0, 2, 1) @ b
            yy += np.einsum("gno,gno->go", b, b, dtype=np.float64)
        return replace(self, count=count, x=x, y=y, xy=xy, yy=yy, xx=self.xx * (count / max(self.count, 1)))

    def merged(self, other: Moments) -> Moments:
        """The moments of both sets of rows; they must have been taken about the same points."""
        if not (np.array_equal(self.x_origin, other.x_origin) and np.array_equal(self.y_origin, other.y_origin)):
            raise ValueError("moments about different points cannot be merged")
        return Moments(
            self.x_origin,
            self.y_origin,
            self.count + other.count,
            self.x + other.x,
            self.y + other.y,
            self.xx + other.xx,
            self.xy + other.xy,
            self.yy + other.yy,
        )

    def part(self, groups: slice) -> Moments:
        """Of some of the groups."""
        x, y = (self.x_origin[groups], self.x[groups]), (self.y_origin[groups], self.y[groups])
        return Moments(x[0], y[0], self.count, x[1], y[1], self.xx[groups], self.xy[groups], self.yy[groups])

    @property
    def x_mean(self) -> FloatArray:
        return self.x_origin + self.x / max(self.count, 1)

    @property
    def y_mean(self) -> FloatArray:
        return self.y_origin + self.y / max(self.count, 1)

    @property
    def covariance(self) -> FloatArray:
        """Of the inputs, `[groups, inputs, inputs]`."""
        count = max(self.count, 1)
        mean = self.x / count
        return np.asarray(self.xx / count - mean[:, :, None] * mean[:, None, :])

    @property
    def cross(self) -> FloatArray:
        """Covariance of inputs and targets, `[groups, inputs, outputs]`."""
        count = max(self.count, 1)
        return np.asarray(self.xy / count - (self.x / count)[:, :, None] * (self.y / count)[:, None, :])

    def error(self, matrix: FloatArray, bias: FloatArray) -> float:
        """Sum over groups and outputs of the mean squared error of `x @ matrix + bias` as y; never negative."""
        count = max(self.count, 1)
        offset = bias + np.einsum("gi,gio->go", self.x_origin, matrix) - self.y_origin
        square = np.einsum("gio,gio->go", matrix, self.xx @ matrix - 2 * self.xy) + self.yy
        linear = 2 * offset * (np.einsum("gi,gio->go", self.x, matrix) - self.y)
        return max(float((square + linear).sum() / count + (offset * offset).sum()), 0.0)


def _product_type(rows: npt.NDArray[Any]) -> npt.DTypeLike:
    """What products of such rows are computed in."""
    return np.float64 if rows.dtype == np.float64 else np.float32
