"""What a change of a model does to its outputs: noise, against outputs that are computed once."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxqp.runtime import Session
from onnxqp.specs import Array, Feed


@dataclass
class Reference:
    """A model's outputs on a few samples, to hold candidates against.

    Noise is the squared error relative to the squared signal, of the worst float output: NMSE, 10 ** (-SQNR / 10).
    """

    model: ir.Model
    feeds: Sequence[Feed]
    _references: list[dict[str, Array]] = field(default_factory=list, init=False)

    def noise_of(self, model: ir.Model) -> float:
        """Of a candidate for the model."""
        return self.noise(Session(model, brief=True))

    def noises_of(self, models: Iterable[ir.Model]) -> Generator[float]:
        """Of several candidates, in order; while one runs the next is made, and no more than that."""
        self.references()  # before two ask for them
        with ThreadPoolExecutor(1) as beside:
            running: Future[float] | None = None
            for model in models:
                following = beside.submit(self._compare, model)
                if running is not None:
                    yield self._kept(running.result)
                running = following
            if running is not None:
                yield self._kept(running.result)

    def noise(self, session: Session) -> float:
        """Of a candidate that is open."""
        return self._kept(lambda: self.compare(session))

    def _kept(self, take: Callable[[], float]) -> float:
        """What `take` finds; who keeps it may have it already."""
        return take()

    def _compare(self, model: ir.Model) -> float:
        return self.compare(Session(model, brief=True))

    def compare(self, session: Session) -> float:
        """The same, computed anew and kept by nobody."""
        sums: dict[str, tuple[float, float]] = {}
        for (_, results), reference in zip(session.run_each(self.feeds), self.references(), strict=True):
            for name, array in results.items():
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

    def know(self, references: Sequence[dict[str, Array]]) -> None:
        """What the model makes of the feeds, of one sample each, where somebody has run it on these: nothing else."""
        alone = all(array.shape[:1] in ((), (1,)) for feed in self.feeds for array in feed.values())
        if alone and len(references) == len(self.feeds):
            self._references = list(references)

    def references(self) -> list[dict[str, Array]]:
        """The outputs of the model that are arrays, feed by feed."""
        if not self._references:
            session = Session(self.model, brief=True)
            self._references = [_arrays(results) for _, results in session.run_each(self.feeds)]
        return self._references


def _squares(array: Array, before: Array) -> tuple[float, float]:
    """Squared error and squared signal where the float model says a number."""
    known = np.isfinite(before)
    difference = np.where(known, array, 0.0) - np.where(known, before, 0.0)
    error = float(np.square(difference, dtype=np.float64).sum())
    return error if math.isfinite(error) else math.inf, float(np.square(before[known], dtype=np.float64).sum())


def _arrays(outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Without sequences and optionals, which are lists."""
    return {name: found for name, found in outputs.items() if isinstance(found, np.ndarray)}
