"""From a histogram to the range that a quantizer will cover. numpy only.

Every method returns (low, high) with low <= 0 <= high inside what was observed; values beyond are clipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from onnxqp.calibrate.observers import Histogram

Range = tuple[float, float]

PERCENTILE_TAIL = 1e-5  # share of the elements that percentile cuts from each end
CANDIDATES = 128  # ranges tried along each side by mse
CLIP_WEIGHT = 3.0  # of a clipped element's squared error against a rounded one's, for auto
LEVELS = 255  # steps of an 8-bit grid


def minmax(histogram: Histogram) -> Range:
    """Everything that was observed."""
    low, high = histogram.range
    return min(low, 0.0), max(high, 0.0)


def percentile(histogram: Histogram, tail: float = PERCENTILE_TAIL) -> Range:
    """Cuts the share `tail` of all elements from each end, between bin edges by linear interpolation."""
    low, high = minmax(histogram)
    if not histogram.width:
        return low, high
    allowed = tail * histogram.count
    middle = histogram.counts.size // 2
    above = _cut(histogram.counts[middle:], histogram.width, allowed)
    below = _cut(histogram.counts[:middle][::-1], histogram.width, allowed)
    return max(low, -below), min(high, above)


def moving_average(histogram: Histogram) -> Range:
    """The mean over all samples of their smallest and of their largest element.

    As MEAN_MINMAX of NNCF, its default for activations: robust against single samples, and, being a plain mean, the
    same for any order and any batching (an exponential average, as elsewhere, is neither).
    """
    low, high = minmax(histogram)
    mean_low, mean_high = histogram.mean_range
    return min(max(mean_low, low), 0.0), max(min(mean_high, high), 0.0)


def entropy(histogram: Histogram) -> Range:
    """The range of least Kullback-Leibler divergence between the elements and what 8 bits keep of them.

    The reference counts clipped elements into the outermost bins; the candidate spreads the elements of each of the 256
    levels evenly over those of its bins that are not empty (Migacz, "8-bit inference with TensorRT", GTC 2017). Unlike
    there both ends are searched, first together, then in turn until neither moves; zeros are left out, for they are
    exact. A level is never narrower than a bin.
    """
    low, high = minmax(histogram)
    if not histogram.width:
        return low, high
    divergence = _Divergence(histogram)
    return _search(low, high, divergence.total)


def mse(histogram: Histogram, clip_weight: float = 1.0) -> Range:
    """The range of least mean squared error when its values are rounded to 8 bits and clipped.

    Elements are taken as uniform inside a bin (as in PPQ's MSE calibration): s*s / 12 for each one inside the range,
    `clip_weight` times the squared distance for each one outside, nothing for zeros. Both ends are searched in turn
    until neither moves.
    """
    low, high = minmax(histogram)
    if not histogram.width:
        return low, high
    return _search(low, high, _ClippingErrors(histogram, clip_weight).total)


def _search(low: float, high: float, total: Callable[[npt.ArrayLike, npt.ArrayLike], npt.NDArray[np.float64]]) -> Range:
    """The range inside [low, high] of least `total`."""
    shrink = np.linspace(0.0, 1.0, CANDIDATES + 1)[1:]
    both = shrink[CANDIDATES // 4 :]
    factor = _least(both, total(low * both, high * both))
    best = (low * factor, high * factor)
    for _ in range(8):
        bottom = _least(low * shrink, total(low * shrink, best[1])) if low < 0 else 0.0
        top = _least(high * shrink, total(bottom, high * shrink)) if high > 0 else 0.0
        if (bottom, top) == best:
            break
        best = (bottom, top)
    return best


def auto(histogram: Histogram, responses: Sequence[npt.NDArray[np.float64]] = ()) -> Range:
    """The range of least squared error in which clipping counts `CLIP_WEIGHT` times.

    Rounding errors are independent noise and average out in the layers behind; clipping errs systematically, on the
    largest values. On the 15 zoo models that int8 changes most the weight 3 gives 1.1 dB more at the outputs than 1 and
    1.2 dB more than taking everything (weights 10 and 30: 0.5 and 1.2 dB less than 3).

    `responses`: functions of one element that are all that the graph makes of it, each at the edges of the bins; the
    error is then theirs. For the input of a SiLU that is up to 7 dB where it is the only value rounded (three of
    YOLOX-nano, at the output of the model: 9 to 15, 18 to 25 and 14 to 18 dB), 1 dB where all are.

    What was tried and gained nothing: counting the elements of each channel by the weights that read it (2 to 4 dB
    less on ResNet-20, ResNet-56 and SqueezeNet: clipping errs in many channels at once, and adds up where rounding
    averages out); choosing the method of every block of layers by the error at the outputs (it fits the samples).
    """
    if not responses or not histogram.width:
        return mse(histogram, CLIP_WEIGHT)
    errors = [_ResponseErrors(histogram, curve, CLIP_WEIGHT) for curve in responses]
    return _search(*minmax(histogram), lambda low, high: np.asarray(sum(error.total(low, high) for error in errors)))


def squared_error(histogram: Histogram, ends: Range) -> float:
    """Mean squared error of rounding the observed elements to 8 bits over this range, clipping included."""
    if not histogram.width:
        return 0.0
    return float(_ClippingErrors(histogram).total(ends[0], ends[1])) / histogram.count


METHODS: dict[str, Callable[[Histogram], Range]] = {
    "auto": auto,
    "minmax": minmax,
    "moving-average": moving_average,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mse,
}


def _cut(counts: npt.NDArray[np.int64], width: float, allowed: float) -> float:
    """The distance from zero beyond which `allowed` elements lie; `counts` runs outwards."""
    beyond = counts[::-1].cumsum()[::-1].astype(np.float64)  # elements in this bin and further out
    inside = np.flatnonzero(beyond > allowed)
    if not inside.size:
        return 0.0
    k = int(inside[-1])
    return float(width * (k + (beyond[k] - allowed) / counts[k]))


def _least(ends: npt.NDArray[np.float64], errors: npt.NDArray[np.float64]) -> float:
    """The end of least error; among equals the widest, which comes last."""
    return float(ends[ends.size - 1 - int(np.argmin(errors[::-1]))])


class _ClippingErrors:
    """Squared error of any range in O(1) after one pass over the bins: sums of 1, c and c*c from each end inwards."""

    def __init__(self, histogram: Histogram, clip_weight: float = 1.0) -> None:
        self._clip_weight = clip_weight
        centers = np.clip(histogram.centers, histogram.low, histogram.high)
        moments = np.stack([np.ones_like(centers), centers, centers * centers]) * histogram.counts
        self._left = np.concatenate([np.zeros((3, 1)), moments.cumsum(axis=1)], axis=1)  # [:, i]: bins before i
        self._total = self._left[:, -1:]
        self._width = histogram.width
        self._bins = histogram.counts.size

    def total(self, low: npt.ArrayLike, high: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Sum of squared errors for every pair of ends, broadcast against each other."""
        bottom, top = np.broadcast_arrays(np.asarray(low, np.float64), np.asarray(high, np.float64))
        first, last = self._bin(bottom), self._bin(top)
        under = self._left[:, first]
        over = self._total.reshape(3, *[1] * np.ndim(last)) - self._left[:, last]
        inside = self._left[0, last] - self._left[0, first]
        clipped = self._beyond(under, bottom) + self._beyond(over, top)
        return np.asarray(inside * ((top - bottom) / LEVELS) ** 2 / 12 + self._clip_weight * clipped)

    def _bin(self, end: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
        """The bin edge nearest to an end."""
        return np.clip(np.rint(end / self._width), -self._bins // 2, self._bins // 2).astype(np.intp) + self._bins // 2

    def _beyond(self, moments: npt.NDArray[np.float64], end: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        count, first, second = moments
        spread = count * self._width**2 / 12
        return np.asarray(np.maximum(second - 2 * end * first + end * end * count, 0.0) + spread)


class _ResponseErrors(_ClippingErrors):
    """Squared error, for any range, of a function f of the elements: f'(x)^2 s*s / 12 inside, (f(x) - f(end))^2 beyond.

    `curve`: f at the edges of the bins.
    """

    def __init__(self, histogram: Histogram, curve: npt.NDArray[np.float64], clip_weight: float) -> None:
        super().__init__(histogram, clip_weight)
        self._curve = curve
        middle, slope = (curve[1:] + curve[:-1]) / 2, np.diff(curve) / histogram.width
        moments = np.stack([np.ones_like(middle), middle, middle * middle, slope * slope]) * histogram.counts
        self._left = np.concatenate([np.zeros((4, 1)), moments.cumsum(axis=1)], axis=1)
        self._total = self._left[:, -1:]

    def total(self, low: npt.ArrayLike, high: npt.ArrayLike) -> npt.NDArray[np.float64]:
        bottom, top = np.broadcast_arrays(np.asarray(low, np.float64), np.asarray(high, np.float64))
        first, last = self._bin(bottom), self._bin(top)
        over = self._total.reshape(4, *[1] * np.ndim(last)) - self._left[:, last]
        inside = self._left[3, last] - self._left[3, first]
        clipped = self._apart(self._left[:, first], self._curve[first]) + self._apart(over, self._curve[last])
        return np.asarray(inside * ((top - bottom) / LEVELS) ** 2 / 12 + self._clip_weight * clipped)

    @staticmethod
    def _apart(moments: npt.NDArray[np.float64], end: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        count, first, second = moments[:3]
        return np.asarray(np.maximum(second - 2 * end * first + end * end * count, 0.0))


class _Divergence:
    """Kullback-Leibler divergence of any range, from sums over bins: of c, of c log c, of how many are not empty."""

    def __init__(self, histogram: Histogram) -> None:
        counts = histogram.counts.astype(np.float64)
        logs = counts * np.log(np.maximum(counts, 1.0))
        self._counts, self._logs, self._filled = (
            np.concatenate([[0.0], sums.cumsum()]) for sums in (counts, logs, (counts > 0).astype(np.float64))
        )
        self._width = histogram.width
        self._middle = histogram.counts.size // 2

    def total(self, low: npt.ArrayLike, high: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """For every pair of ends, broadcast against each other; infinite where a level would be narrower than a bin."""
        bottom, top = np.broadcast_arrays(np.asarray(low, np.float64), np.asarray(high, np.float64))
        first = np.maximum(np.floor(bottom / self._width), -self._middle).astype(np.intp) + self._middle
        last = np.minimum(np.ceil(top / self._width), self._middle).astype(np.intp) + self._middle
        levels = LEVELS + 1
        steps = first[..., None] + (last - first)[..., None] * np.arange(levels + 1) // levels
        inside, filled = np.diff(self._counts[steps]), np.diff(self._filled[steps])
        kept = self._counts[last] - self._counts[first]
        whole = self._counts[-1]
        reference = inside.copy()
        entropy = self._logs[last] - self._logs[first]
        for place, edge, beyond in ((0, first, self._counts[first]), (-1, last - 1, whole - self._counts[last])):
            own = self._counts[edge + 1] - self._counts[edge]
            joined = own + beyond
            entropy = entropy - own * np.log(np.maximum(own, 1.0)) + joined * np.log(np.maximum(joined, 1.0))
            reference[..., place] += beyond
            filled[..., place] += (own == 0) & (beyond > 0)
        # a level that the candidate leaves empty while the reference does not: as if it held one element
        spread = np.log(np.maximum(inside, 1.0)) - np.log(np.maximum(filled, 1.0))
        divergence = (entropy - (reference * spread).sum(axis=-1)) / whole + np.log(np.maximum(kept, 1.0) / whole)
        return np.where((last - first >= levels) & (kept > 0), divergence, np.inf)
