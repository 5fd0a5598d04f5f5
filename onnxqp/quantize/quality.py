"""What int8 does to the outputs, and what that is worth in speed: the trade that decides between two candidates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxqp.measurements import Measurements
from onnxqp.runtime import Session
from onnxqp.specs import Array, Feed

ENOUGH_DB = 25.0  # scores, boxes, embeddings: on the zoo no metric falls by more than a sampling error above it
ENOUGH_FOR_IMAGES_DB = 40.0  # an output that is an image itself: its noise is seen, or measured as PSNR
IMAGE_SIZE = 32  # least height and width of an image
WORTH = 0.05  # of a decibel below what is enough: a model may be this share slower for it
_CLEAN = 1e-12


@dataclass
class Probe:
    """The float model's outputs on a few samples, to hold candidates against; `noise` of a candidate is measured once.

    Noise is the squared error relative to the squared signal, of the worst float output: NMSE, 10 ** (-SQNR / 10).
    """

    model: ir.Model
    feeds: Sequence[Feed]
    measured: Measurements = field(default_factory=Measurements)
    _references: list[dict[str, Array]] = field(default_factory=list)

    def noise_of(self, model: ir.Model) -> float:
        """Of a candidate for the model."""
        return self.noise(Session(model, brief=True))

    def noise(self, session: Session) -> float:
        """Of a candidate that is open."""
        (found,) = self.measured.of("noise", lambda: [self._noise(session)], 1)
        return found

    def _noise(self, session: Session) -> float:
        sums: dict[str, tuple[float, float]] = {}
        for feed, reference in zip(self.feeds, self.references(), strict=True):
            for name, array in session.run(feed).items():
                before = reference.get(name)
                if (
                    before is None
                    or not isinstance(array, np.ndarray)
                    or before.shape != array.shape
                    or not np.issubdtype(array.dtype, np.floating)
                ):
                    continue
                error, signal = _squares(np.asarray(array, np.float64), np.asarray(before, np.float64))
                old = sums.get(name, (0.0, 0.0))
                sums[name] = (old[0] + error, old[1] + signal)
        return max((error / signal if signal else float(error > 0) for error, signal in sums.values()), default=0.0)

    def references(self) -> list[dict[str, Array]]:
        """The outputs of the float model that are arrays, feed by feed."""
        if not self._references:
            session = Session(self.model, brief=True)
            self._references = [_arrays(session.run(feed)) for feed in self.feeds]
        return self._references

    @property
    def enough_db(self) -> float:
        """The signal-to-noise ratio above which more is worth nothing."""
        arrays = [array for reference in self.references() for array in reference.values()]
        return ENOUGH_FOR_IMAGES_DB if any(map(_is_image, arrays)) else ENOUGH_DB

    def worth(self, speedup: float, noise: float) -> float:
        """A figure of merit: more is better, 0.01 is one percent of speed."""
        return math.log(speedup) + WORTH * min(decibels(noise), self.enough_db)


def decibels(noise: float) -> float:
    """SQNR of a relative squared error."""
    return -10 * math.log10(max(noise, _CLEAN))


def _squares(array: Array, before: Array) -> tuple[float, float]:
    """Squared error and squared signal where the float model says a number."""
    known = np.isfinite(before)
    difference = np.where(known, array, 0.0) - np.where(known, before, 0.0)
    error = float(np.square(difference, dtype=np.float64).sum())
    return error if math.isfinite(error) else math.inf, float(np.square(before[known], dtype=np.float64).sum())


def _arrays(outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Without sequences and optionals, which are lists."""
    return {name: found for name, found in outputs.items() if isinstance(found, np.ndarray)}


def _is_image(array: Array) -> bool:
    return np.issubdtype(array.dtype, np.floating) and array.ndim == 4 and sorted(array.shape)[-2] >= IMAGE_SIZE
