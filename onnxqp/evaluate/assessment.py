"""Fidelity and accuracy together: each model runs once per sample."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from onnxqp.errors import DataError
from onnxqp.evaluate.accuracy import meter_for
from onnxqp.evaluate.fidelity import FidelityMeter, Warn, declared_shapes, ignore
from onnxqp.evaluate.metric import Metric, parse_metric
from onnxqp.evaluate.runnable import Runnable
from onnxqp.report.records import Accuracy, Fidelity
from onnxqp.specs import Feed


@dataclass(frozen=True)
class Assessment:
    """What the candidate is worth beside the baseline; `accuracy` is None for data without labels."""

    accuracy: Accuracy | None
    fidelity: Fidelity


def assess(
    baseline: Runnable,
    candidate: Runnable,
    samples: Iterable[tuple[Feed, Any]],
    metric: str | Metric = "top1",
    output_name: str | None = None,
    *,
    seed: int = 0,
    warn: Warn = ignore,
) -> Assessment:
    """Runs both models once on every (feed, label) and returns accuracy and fidelity over the same samples.

    A label of None, or a list of them for a batch, is none; without any there is no accuracy. Raises what `accuracy`
    and `fidelity` raise, and `DataError` when only some of the samples have a label.
    """
    closeness = FidelityMeter(output_name, declared=declared_shapes(baseline))
    parsed = parse_metric(metric) if isinstance(metric, str) else metric
    quality = meter_for(parsed, output_name, seed=seed)
    labelled = total = 0
    for feed, label in samples:
        ours, theirs = baseline.run(feed), candidate.run(feed)
        closeness.update(feed, ours, theirs)
        total += 1
        if _given(label):
            quality.update(ours, theirs, label)
            labelled += 1
    if 0 < labelled < total:
        raise DataError(
            f"{total - labelled} of {total} evaluation samples have no label",
            hint="label all of them, or none",
        )
    return Assessment(quality.result(warn) if labelled else None, closeness.result(warn))


def _given(label: Any) -> bool:
    return label is not None and not (isinstance(label, list) and all(each is None for each in label))
