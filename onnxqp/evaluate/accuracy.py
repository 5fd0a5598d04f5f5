"""Accuracy of baseline and candidate on labelled data, paired sample by sample."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np

from onnxqp.errors import DataError, UsageError
from onnxqp.evaluate.chance import suspicions
from onnxqp.evaluate.fidelity import Warn, ignore
from onnxqp.evaluate.metric import CustomMetric, Metric, TopK, parse_metric
from onnxqp.evaluate.runnable import Runnable
from onnxqp.evaluate.scores import Doubles, Indices, class_output, class_scores, predictions, ranks
from onnxqp.report.records import Accuracy
from onnxqp.specs import Array, Feed

LabelledFeed: TypeAlias = tuple[Feed, Any]

RESAMPLES = 2000
CONFIDENCE = 0.95
CUSTOM_RESAMPLES = 200
CHEAP_SECONDS = 0.02  # a custom metric faster than this is resampled, at most 8 s in all


class AccuracyMeter(Protocol):
    """Adds up one metric of both models, feed by feed."""

    def update(self, baseline: Mapping[str, Array], candidate: Mapping[str, Array], label: Any) -> None:
        """Adds the outputs of one feed and its label: one number, or an array of one per sample."""

    def result(self, warn: Warn = ignore) -> Accuracy:
        """The figures so far."""


def accuracy(
    baseline: Runnable,
    candidate: Runnable,
    samples: Iterable[LabelledFeed],
    metric: str | Metric = "top1",
    output_name: str | None = None,
    *,
    seed: int = 0,
    warn: Warn = ignore,
) -> Accuracy:
    """Runs both models on every (feed, label) and compares them by `metric`.

    Points (0..100) for `top1` and `top5`; `drop` = baseline - candidate, `drop_ci` its 95 % interval by a paired
    bootstrap over samples. Warns when the baseline does no better than guessing, with the likely cause.
    Raises `DataError` for labels that do not fit, `UsageError` when the output holds no class scores.
    """
    meter = meter_for(parse_metric(metric) if isinstance(metric, str) else metric, output_name, seed=seed)
    for feed, label in samples:
        meter.update(baseline.run(feed), candidate.run(feed), label)
    return meter.result(warn)


def meter_for(metric: Metric, output_name: str | None = None, *, seed: int = 0) -> AccuracyMeter:
    """The meter of a metric."""
    return TopKMeter(metric, output_name, seed=seed) if isinstance(metric, TopK) else CustomMeter(metric, seed=seed)


class TopKMeter:
    """Counts labels among the k highest scores. Keeps a few integers per sample."""

    def __init__(self, metric: TopK, output_name: str | None = None, *, seed: int = 0) -> None:
        self._metric = metric
        self._output_name = output_name
        self._seed = seed
        self._classes = 0
        self._labels: list[Indices] = []
        self._guesses: list[tuple[Indices, Indices]] = []
        self._hits: list[tuple[Indices, Indices]] = []

    def update(self, baseline: Mapping[str, Array], candidate: Mapping[str, Array], label: Any) -> None:
        labels = _class_labels(label)
        ours, theirs = (self._scores(outputs, labels.size) for outputs in (baseline, candidate))
        if ours.shape != theirs.shape:
            raise UsageError(
                f"the candidate scores {theirs.shape[1]} classes, the baseline {ours.shape[1]}",
                hint="the models must be versions of one another",
            )
        self._classes = max(self._classes, ours.shape[1])
        if labels.size and not (labels.min() >= 0 and labels.max() < ours.shape[1]):
            raise DataError(
                f"label {int(labels.min() if labels.min() < 0 else labels.max())} is none of the model's "
                f"{ours.shape[1]} classes (0..{ours.shape[1] - 1})",
                hint="check the order of the classes, and whether the model counts a background class",
            )
        self._labels.append(labels)
        self._guesses.append((predictions(ours), predictions(theirs)))
        self._hits.append((_hits(ours, labels, self._metric.k), _hits(theirs, labels, self._metric.k)))

    def result(self, warn: Warn = ignore) -> Accuracy:
        if not self._labels:
            raise _no_samples()
        labels = np.concatenate(self._labels)
        ours, theirs = (np.concatenate(column) for column in zip(*self._hits, strict=True))
        guesses, changed = (np.concatenate(column) for column in zip(*self._guesses, strict=True))
        for suspicion in suspicions(labels, guesses, int(ours.sum()), self._classes, self._metric.k):
            warn(suspicion)
        return Accuracy(
            metric=self._metric.name,
            samples=int(labels.size),
            baseline=100 * int(ours.sum()) / labels.size,
            candidate=100 * int(theirs.sum()) / labels.size,
            drop=100 * int((ours - theirs).sum()) / labels.size,
            drop_ci=_drop_interval(ours - theirs, np.random.default_rng(self._seed)),
            flips=int((guesses != changed).sum()),
        )

    def _scores(self, outputs: Mapping[str, Array], samples: int) -> Doubles:
        name = class_output(outputs, self._output_name)
        scores = class_scores(outputs[name], samples, certain=True)
        if scores is None:
            raise UsageError(
                f"output {name!r} of shape {np.shape(outputs[name])} does not hold class scores for {samples} label(s)",
                where=name,
                hint="name the output with --output-name, or judge it with --metric file.py:function",
            )
        return scores


class CustomMeter:
    """Keeps all outputs and labels for a user's function. Memory grows with the samples: the function asks for it."""

    def __init__(self, metric: CustomMetric, *, seed: int = 0) -> None:
        self._metric = metric
        self._seed = seed
        self._baseline: list[dict[str, Array]] = []
        self._candidate: list[dict[str, Array]] = []
        self._labels: list[Any] = []

    def update(self, baseline: Mapping[str, Array], candidate: Mapping[str, Array], label: Any) -> None:
        self._baseline.append(dict(baseline))
        self._candidate.append(dict(candidate))
        self._labels.append(label)

    def result(self, warn: Warn = ignore) -> Accuracy:
        """As for `top1`, in the metric's own unit and without `flips`.

        The interval is bootstrapped over feeds when the function takes less than `CHEAP_SECONDS` and bears samples
        that repeat; otherwise it is (drop, drop), and a warning says that the uncertainty is unknown.
        """
        if not self._labels:
            raise _no_samples()
        start = time.perf_counter()
        ours = self._metric(self._baseline, self._labels)
        seconds = time.perf_counter() - start
        theirs = self._metric(self._candidate, self._labels)
        interval = self._interval() if seconds <= CHEAP_SECONDS else None
        if interval is None:
            warn(f"the uncertainty of the drop is unknown: {self._metric.name} is too slow or too delicate to resample")
        return Accuracy(
            metric=self._metric.name,
            samples=sum(max(1, np.size(label)) if np.ndim(label) else 1 for label in self._labels),
            baseline=ours,
            candidate=theirs,
            drop=ours - theirs,
            drop_ci=interval or (ours - theirs, ours - theirs),
            flips=None,
        )

    def _interval(self) -> tuple[float, float] | None:
        rng = np.random.default_rng(self._seed)
        drops = np.empty(CUSTOM_RESAMPLES)
        for turn in range(CUSTOM_RESAMPLES):
            drawn = rng.integers(0, len(self._labels), size=len(self._labels))
            labels = [self._labels[i] for i in drawn]
            try:
                ours = self._metric([self._baseline[i] for i in drawn], labels)
                theirs = self._metric([self._candidate[i] for i in drawn], labels)
            except UsageError:  # such as a correlation over samples that are all the same
                return None
            drops[turn] = ours - theirs
        return _tails(drops)


def _hits(scores: Doubles, labels: Indices, k: int) -> Indices:
    return (ranks(scores, labels) < k).astype(np.int64)


def _class_labels(label: Any) -> Indices:
    """One label or an array of them as int64 of shape (samples,)."""
    labels = np.asarray(label).reshape(-1)
    if labels.dtype.kind in "iub" or (labels.dtype.kind == "f" and bool((labels == np.floor(labels)).all())):
        return labels.astype(np.int64)
    raise DataError(
        f"labels must be whole numbers, the places of the classes, not {labels.dtype}",
        hint="give class indices, or judge the outputs with --metric file.py:function",
    )


def _drop_interval(differences: Indices, rng: np.random.Generator) -> tuple[float, float]:
    """Paired bootstrap of 100 * mean(differences), where each difference is -1, 0 or 1.

    Drawing n samples anew and counting the three values is one multinomial draw, so no sample is drawn at all.
    """
    size = differences.size
    shares = np.array([(differences == value).sum() for value in (-1, 0, 1)]) / size
    counts = rng.multinomial(size, shares, size=RESAMPLES)
    return _tails(100 * (counts[:, 2] - counts[:, 0]) / size)


def _tails(values: Doubles) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return (float(low), float(high))


def _no_samples() -> DataError:
    return DataError("there is no labelled sample to judge the models on", hint="the evaluation source yielded nothing")
