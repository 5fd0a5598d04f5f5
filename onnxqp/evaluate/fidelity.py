"""How close the candidate's outputs are to the baseline's, in memory that does not grow with the samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from onnxqp.errors import DataError, VerificationError
from onnxqp.evaluate.runnable import Runnable, Signed, samples_in
from onnxqp.evaluate.scores import Doubles, class_output, class_scores, is_float, predictions
from onnxqp.report.records import Fidelity, OutputFidelity
from onnxqp.runtime import as_array
from onnxqp.specs import Array, Feed

Warn: TypeAlias = Callable[[str], None]
Shape: TypeAlias = tuple[int | str | None, ...]

WORST_SQNR_DB = -300.0  # noise without any signal, or not a number: JSON has no minus infinity
WORST_DIFF = float(np.finfo(np.float64).max)  # not a number where there was one: JSON has no infinity
TELLING = 4  # a cosine of fewer numbers says little: they count as one long vector over all samples


def ignore(message: str) -> None:
    """A `Warn` for those who do not listen."""


def fidelity(
    baseline: Runnable,
    candidate: Runnable,
    feeds: Iterable[Feed],
    output_name: str | None = None,
    *,
    warn: Warn = ignore,
) -> Fidelity:
    """Runs both models on every feed and compares all outputs; see `FidelityMeter`.

    Raises `VerificationError` when the outputs differ in name or shape (but for dimensions that the baseline itself
    declares open), `DataError` when there is no feed.
    """
    meter = FidelityMeter(output_name, declared=declared_shapes(baseline))
    for feed in feeds:
        meter.update(feed, baseline.run(feed), candidate.run(feed))
    return meter.result(warn)


class FidelityMeter:
    """Adds up the comparison of two models' outputs, feed by feed.

    Per output: the signal-to-quantization-noise ratio 10 log10(sum a^2 / sum (a - b)^2) over everything seen, the
    cosine of each sample (its minimum and mean; outputs of fewer than `TELLING` numbers per sample are taken as one
    vector over all samples, their cosine is both), and the largest absolute difference. Integers and booleans count
    as numbers, texts as equal or not. The overall figures are those of the worst float output, or of the worst output
    where none is a float: an index that changes by one has no meaningful distance.

    What is not a number in the baseline has no truth to compare with and is left out. What is infinite or not a number
    in the candidate alone makes the sample's cosine 0, the difference `WORST_DIFF` and the ratio `WORST_SQNR_DB`.
    `declared` holds the baseline's output shapes: where a dimension is open, it may depend on the data (the boxes
    found), and a candidate that returns another number of them is wrong in all of the sample, but valid.

    `top1_agreement` is the percentage of samples in which both models rank the same class first, if the output named
    `output_name` (the first by default) holds class scores.
    """

    def __init__(self, output_name: str | None = None, *, declared: Mapping[str, Shape] | None = None) -> None:
        self._output_name = output_name
        self._declared = declared or {}
        self._outputs: dict[str, _OutputSums] = {}
        self._samples = 0
        self._agreed = 0
        self._judged = 0
        self._classes = True

    def update(self, feed: Feed, baseline: Mapping[str, Array], candidate: Mapping[str, Array]) -> None:
        """Compares the outputs of one feed."""
        missing = [name for name in baseline if name not in candidate]
        if missing:
            raise VerificationError(
                f"the candidate has no output {missing[0]!r}; it has {', '.join(candidate) or 'none'}",
                where=missing[0],
                hint="both models must have the same outputs",
            )
        if not baseline:
            return
        scored = class_output(baseline, self._output_name)
        samples = self._samples_of(feed, as_array(baseline[scored]))
        for name, expected in baseline.items():
            sums = self._outputs.setdefault(name, _OutputSums())
            pair = _Pair.of(expected, candidate[name])
            if pair.baseline.shape == pair.candidate.shape:
                sums.update(pair, samples)
            elif _may_vary(pair, self._declared.get(name)):
                sums.miss(pair)
            else:
                raise _other_shape(name, pair)
        self._samples += samples
        self._judge(baseline[scored], candidate[scored], samples)

    def result(self, warn: Warn = ignore) -> Fidelity:
        """The figures so far."""
        if not self._samples:
            raise DataError("there is no input to compare the models on", hint="the data source yielded nothing")
        for name, sums in self._outputs.items():
            _report_broken(name, sums, warn)
        floats = [sums for sums in self._outputs.values() if sums.floating]
        telling = [sums.result() for sums in floats or self._outputs.values()]
        return Fidelity(
            samples=self._samples,
            top1_agreement=100 * self._agreed / self._judged if self._classes and self._judged else None,
            cosine_min=_least(each.cosine_min for each in telling),
            cosine_mean=_least(each.cosine_mean for each in telling),
            sqnr_db=_least(each.sqnr_db for each in telling),
            max_abs_diff=max(each.max_abs_diff for each in telling),
            outputs={name: sums.result() for name, sums in self._outputs.items()},
        )

    def _samples_of(self, feed: Feed, scored: Array) -> int:
        samples = samples_in(feed)
        return samples if scored.ndim and scored.shape[0] == samples else 1

    def _judge(self, baseline: Array, candidate: Array, samples: int) -> None:
        named = self._output_name is not None
        ours = class_scores(baseline, samples, certain=named) if self._classes else None
        theirs = class_scores(candidate, samples, certain=named) if self._classes else None
        if ours is None or theirs is None or ours.shape != theirs.shape:
            self._classes = False
            return
        self._agreed += int((predictions(ours) == predictions(theirs)).sum())
        self._judged += samples


@dataclass(frozen=True)
class _Pair:
    """The same output of both models, as float64; `floating` tells whether it was a float."""

    baseline: Doubles
    candidate: Doubles
    floating: bool

    @classmethod
    def of(cls, baseline: object, candidate: object) -> _Pair:
        """Texts become 1, and 1 where equal to the baseline's; complex numbers get a last axis of size 2."""
        ours, theirs = as_array(baseline), as_array(candidate)
        if ours.dtype.kind in "OUS":
            equal = ours == theirs if ours.shape == theirs.shape else np.zeros(theirs.shape)
            return cls(np.ones(ours.shape), np.asarray(equal, dtype=np.float64), False)
        if ours.dtype.kind == "c":
            ours, theirs = (np.stack([array.real, array.imag], axis=-1) for array in (ours, theirs))
        return cls(ours.astype(np.float64), theirs.astype(np.float64), is_float(ours.dtype))


@dataclass
class _OutputSums:
    """Running sums of one output."""

    floating: bool = True
    signal: float = 0.0
    noise: float = 0.0
    largest: float = 0.0
    cosines: int = 0
    cosine_sum: float = 0.0
    cosine_least: float = math.inf
    short: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # a·b, a·a, b·b of short vectors
    seen_short: bool = False
    broken: int = 0  # samples in which the candidate alone is infinite or not a number
    undefined: int = 0  # samples in which the baseline is not a number
    resized: int = 0  # samples in which the candidate's output has another shape
    samples: int = 0

    def update(self, pair: _Pair, samples: int) -> None:
        """Adds outputs of equal shape."""
        rows = samples if pair.baseline.ndim and pair.baseline.shape[0] == samples else 1
        a, b = pair.baseline.reshape(rows, -1), pair.candidate.reshape(rows, -1)
        self.floating = self.floating and pair.floating
        self.samples += rows
        if a.size == 0:
            return
        a, b, broken = self._finite(a, b)
        with np.errstate(over="ignore", invalid="ignore"):
            difference = a - b
            self.signal += float(np.square(a).sum())
            self.noise += float(np.square(difference).sum())
        self.largest = max(self.largest, float(np.abs(difference).max()))
        if a.shape[1] < TELLING:
            self.seen_short = True
            for place, (one, other) in enumerate(((a, b), (a, a), (b, b))):
                self.short[place] += float((one * other).sum())
            return
        cosines = np.where(broken, 0.0, _cosines(a, b))
        self.cosines += rows
        self.cosine_sum += float(cosines.sum())
        self.cosine_least = min(self.cosine_least, float(cosines.min()))

    def miss(self, pair: _Pair) -> None:
        """Adds outputs of unequal shape: all that either holds is error."""
        self.floating = self.floating and pair.floating
        self.samples += 1
        self.resized += 1
        for array in (pair.baseline, pair.candidate):
            finite = array[np.isfinite(array)]
            self.noise += float(np.square(finite).sum())
            self.largest = max(self.largest, float(np.abs(finite).max(initial=0.0)))
        self.signal += float(np.square(pair.baseline[np.isfinite(pair.baseline)]).sum())
        self.cosines += 1
        self.cosine_least = min(self.cosine_least, 0.0)

    def _finite(self, a: Doubles, b: Doubles) -> tuple[Doubles, Doubles, Array]:
        """Both without what cannot be compared, and which rows the candidate broke."""
        good = np.isfinite(a) & np.isfinite(b)
        if good.all():
            return a, b, np.zeros(len(a), dtype=bool)
        undefined = np.isnan(a)
        broken = (~good & ~undefined & (a != b)).any(axis=1)
        self.undefined += int(undefined.any(axis=1).sum())
        self.broken += int(broken.sum())
        return np.where(good, a, 0.0), np.where(good, b, 0.0), broken

    def result(self) -> OutputFidelity:
        least, mean = self.cosine_least, self.cosine_sum / max(self.cosines, 1)
        if self.seen_short:
            pooled = 0.0 if self.broken else _cosine(*self.short)
            least, mean = min(least, pooled), pooled if not self.cosines else min(mean, pooled)
        known = bool(self.cosines or self.seen_short)
        return OutputFidelity(
            cosine_min=least if known else None,
            cosine_mean=mean if known else None,
            sqnr_db=self._sqnr(),
            max_abs_diff=WORST_DIFF if self.broken else min(self.largest, WORST_DIFF),
        )

    def _sqnr(self) -> float | None:
        if self.broken:
            return WORST_SQNR_DB
        if self.noise == 0:
            return None
        if self.signal == 0 or not math.isfinite(self.noise):
            return WORST_SQNR_DB
        return float(np.clip(10 * (math.log10(self.signal) - math.log10(self.noise)), WORST_SQNR_DB, -WORST_SQNR_DB))


def declared_shapes(runnable: Runnable) -> dict[str, Shape]:
    """The shapes that the model declares for its outputs, as far as it knows them."""
    if not isinstance(runnable, Signed):
        return {}
    return {spec.name: spec.shape for spec in runnable.outputs if spec.shape is not None}


def _may_vary(pair: _Pair, declared: Shape | None) -> bool:
    """Whether the shapes differ only where the baseline declares no fixed size."""
    ours, theirs = pair.baseline.shape, pair.candidate.shape
    if declared is None or not len(ours) == len(theirs) == len(declared):
        return False
    return all(not isinstance(size, int) for size, a, b in zip(declared, ours, theirs, strict=True) if a != b)


def _other_shape(name: str, pair: _Pair) -> VerificationError:
    return VerificationError(
        f"output {name!r} has shape {pair.candidate.shape} in the candidate, {pair.baseline.shape} in the baseline",
        where=name,
        hint="the models must be versions of one another",
    )


def _cosines(a: Doubles, b: Doubles) -> Doubles:
    """Cosine of each row, 1 for equal rows, 0 where only one of them is all zeros."""
    one, other = (row / np.maximum(np.abs(row).max(axis=1, keepdims=True), np.finfo(np.float64).tiny) for row in (a, b))
    lengths = np.sqrt((one * one).sum(axis=1) * (other * other).sum(axis=1))
    cosines = np.divide((one * other).sum(axis=1), lengths, out=np.zeros(len(a)), where=lengths > 0)
    return np.where((a == b).all(axis=1), 1.0, np.clip(cosines, -1.0, 1.0))


def _cosine(product: float, ours: float, theirs: float) -> float:
    if ours == theirs == product:
        return 1.0
    length = math.sqrt(ours) * math.sqrt(theirs)
    return float(np.clip(product / length, -1.0, 1.0)) if length > 0 else 0.0


def _least(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _report_broken(name: str, sums: _OutputSums, warn: Warn) -> None:
    if sums.broken:
        warn(
            f"output {name!r} of the candidate is infinite or not a number in {sums.broken} of {sums.samples} samples "
            "where the baseline is not"
        )
    if sums.resized:
        warn(f"output {name!r} has another size in the candidate in {sums.resized} of {sums.samples} samples")
    if sums.undefined:
        warn(f"output {name!r} of the baseline is not a number in {sums.undefined} of {sums.samples} samples")
