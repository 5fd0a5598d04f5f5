"""Streaming sums of one value's error, split by where it comes from, and the verdict. numpy only.

Of a value, four arrays are compared on every sample:

    truth     what the baseline computes
    inherited what the baseline's operators make of the candidate's inputs to them
    found     what the candidate computes
    exact     what the candidate computes from the same inputs when its kernels make no error of their own

So `inherited - truth` is error that came in, and `found - inherited` error made here: in the weights, in rounding to
the value's own grid, by clipping to its range, and by kernels (`found - exact`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxqp.debugging.matching import Quantizer

Array: TypeAlias = npt.NDArray[Any]

WORST_SQNR_DB = -300.0  # noise without any signal, or not a number: JSON has no minus infinity
_LARGE = 1e15  # NaN and infinity are not less either
STEPS = 1.5  # kernels round to a neighbour now and then; only a larger difference is the kernel's fault


@dataclass
class ErrorSums:
    """Sums of squares over all elements seen; `beyond` counts elements outside the range of the quantizer."""

    quantizer: Quantizer | None = None
    elements: int = 0
    signal: float = 0.0
    total: float = 0.0
    inherited: float = 0.0
    local: float = 0.0
    clipped: float = 0.0
    kernel: float = 0.0
    beyond: int = 0
    broken: int = 0  # elements that are finite in the baseline alone

    def update(self, truth: Array, found: Array, inherited: Array | None) -> None:
        """Take in one sample. `inherited` None: nothing came in, or nobody knows."""
        if not all(_is_plain(array) for array in (truth, found, inherited) if array is not None):
            truth, found, inherited = self._finite(truth, found, inherited)
        self.elements += truth.size
        self.signal += _square(truth)
        total = _square(found - truth)
        self.total += total
        if inherited is None:
            self.local += total
            inherited = truth
        else:
            self.inherited += _square(inherited - truth)
            self.local += _square(found - inherited)
        if self.quantizer is not None and inherited.size:
            self._clip(inherited, self.quantizer)

    def _clip(self, array: Array, quantizer: Quantizer) -> None:
        low, high = quantizer.range
        if float(array.min()) >= low - quantizer.scale / 2 and float(array.max()) <= high + quantizer.scale / 2:
            return
        excess = array - np.clip(array, low, high)
        excess = excess[np.abs(excess) > quantizer.scale / 2]
        self.clipped += _square(excess)
        self.beyond += excess.size

    def _finite(self, truth: Array, found: Array, inherited: Array | None) -> tuple[Array, Array, Array | None]:
        """The elements that are finite in all, as float64, in which no square overflows."""
        wide = [np.asarray(array, np.float64) for array in (truth, found, inherited) if array is not None]
        known = np.isfinite(wide[0])
        whole = np.logical_and.reduce([np.isfinite(array) for array in wide])
        self.broken += int((known & ~whole).sum())
        kept = [array[whole] for array in wide]
        return kept[0], kept[1], kept[2] if inherited is not None else None

    def update_kernel(self, found: Array, exact: Array) -> None:
        """Take in what the kernels alone did to one sample: differences that are no rounding to a neighbour."""
        with np.errstate(invalid="ignore"):  # infinity less infinity, left out below
            difference = found - exact
        if self.quantizer is not None:
            difference = difference[np.abs(difference) > STEPS * self.quantizer.scale]
        self.kernel += _square(difference[np.isfinite(difference)])

    @property
    def sqnr_db(self) -> float | None:
        """10 log10(signal / total error); None where there is no error."""
        return sqnr_db(self.signal, self.total, broken=self.broken > 0)

    @property
    def local_sqnr_db(self) -> float | None:
        """The same of the error made here."""
        return sqnr_db(self.signal, self.local)

    @property
    def inherited_share(self) -> float:
        """How much of the error came in, 0..1."""
        both = self.inherited + self.local
        return self.inherited / both if both else 0.0

    def cause(self) -> str:
        """What most of the error is: "inherited", "clipping", "saturation", "rounding"; "none" where there is none."""
        if self.broken:
            return "not finite"
        if not self.total:
            return "none"
        kernel = min(self.kernel, self.local)
        clipped = min(self.clipped, self.local - kernel)
        shares = {
            "rounding": self.local - kernel - clipped,
            "clipping": clipped,
            "saturation": kernel,
            "inherited": self.inherited,
        }
        return max(shares, key=lambda name: shares[name])


def sqnr_db(signal: float, noise: float, *, broken: bool = False) -> float | None:
    """Signal-to-quantization-noise ratio in decibels; None without noise."""
    if broken or (noise and not signal):
        return WORST_SQNR_DB
    return max(WORST_SQNR_DB, 10 * (math.log10(signal) - math.log10(noise))) if noise else None


def _is_plain(array: Array) -> bool:
    """Whether float32 holds the squares of all elements."""
    return array.dtype == np.float32 and (not array.size or float(np.abs(array).max()) < _LARGE)


def _square(array: Array) -> float:
    flat = array.reshape(-1)
    return float(np.dot(flat, flat))
