"""What int8 does to the outputs, and what that is worth in speed: the trade that decides between two candidates."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxqp.evaluate.noise import Reference
from onnxqp.measurements import Measurements
from onnxqp.specs import Array

ENOUGH_DB = 25.0  # scores, boxes, embeddings: on the zoo no metric falls by more than a sampling error above it
ENOUGH_FOR_IMAGES_DB = 40.0  # an output that is an image itself: its noise is seen, or measured as PSNR
IMAGE_SIZE = 32  # least height and width of an image
WORTH = 0.05  # of a decibel below what is enough: a model may be this share slower for it
_CLEAN = 1e-12


@dataclass
class Probe(Reference):
    """The float model's outputs on a few samples, to hold candidates against; `measured` keeps or gives back noise."""

    measured: Measurements = field(default_factory=Measurements)

    def noises_of(self, models: Iterable[ir.Model]) -> Generator[float]:
        """Of several candidates, in order; while one runs the next is made, and no more than that."""
        given_back = self.measured.given is not None  # then none needs to run
        yield from map(self.noise_of, models) if given_back else super().noises_of(models)

    def _kept(self, take: Callable[[], float]) -> float:
        (found,) = self.measured.of("noise", lambda: [take()], 1)
        return found

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


def _is_image(array: Array) -> bool:
    return np.issubdtype(array.dtype, np.floating) and array.ndim == 4 and sorted(array.shape)[-2] >= IMAGE_SIZE
