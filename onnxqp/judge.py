"""Judge a candidate against its baseline: latency, accuracy or fidelity, size, gates."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxqp.errors import VerificationError
from onnxqp.evaluate import gates as limits
from onnxqp.evaluate import latency as stopwatch
from onnxqp.evaluate.assessment import Assessment, assess
from onnxqp.evaluate.runnable import samples_in
from onnxqp.evaluate.scores import may_hold_classes
from onnxqp.gather import Inputs
from onnxqp.options import Gates, MeasureOptions
from onnxqp.report.records import Accuracy, Fidelity, Gate, Latency, Size
from onnxqp.runtime import Session, as_array
from onnxqp.specs import Feed
from onnxqp.steps import Run

_TIMED_FEEDS = 4  # different inputs for the stopwatch: data-dependent speed shows, caches stay realistic


@dataclass(frozen=True)
class Verdict:
    size: Size
    latency: Latency | None
    accuracy: Accuracy | None
    fidelity: Fidelity | None
    gates: list[Gate]

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)

    def sections(self) -> dict[str, Any]:
        """The fields of the report that hold it."""
        return {
            "size": self.size,
            "latency": self.latency,
            "accuracy": self.accuracy,
            "fidelity": self.fidelity,
            "gates": self.gates,
        }


def require(gates: Gates, baseline: Session, inputs: Inputs | None, measure: MeasureOptions) -> None:
    """Refuse gates that nothing here can judge, before the work; raises UsageError."""
    limits.require(
        gates,
        labelled=inputs is not None and inputs.labelled,
        class_output=may_hold_classes(baseline.outputs, measure.output_name),
        measured=measure.validate,
    )


def judge(
    run: Run,
    baseline: Session,
    candidate: Session,
    inputs: Inputs,
    *,
    size: Size,
    measure: MeasureOptions,
    gates: Gates,
    batch_size: int,
    seed: int,
) -> Verdict:
    """Measure what `measure` allows, and check every gate."""
    accuracy, fidelity, latency = None, None, None
    if measure.validate:
        with run.stage("evaluate"):
            assessment = assessed(
                baseline,
                candidate,
                inputs,
                measure=measure,
                batch_size=batch_size,
                seed=seed,
                warn=run.warn,
                progress=run.advance("evaluate"),
            )
            accuracy, fidelity = assessment.accuracy, assessment.fidelity
        feeds = [feed for feed, _ in itertools.islice(inputs.evaluation.batches(batch_size), _TIMED_FEEDS)]
        with run.stage("latency"):
            run.memory.pause()
            latency = stopwatch.compare(
                baseline,
                candidate,
                feeds,
                threads=run.threads,
                batch=samples_in(feeds[0]),
                progress=run.advance("latency"),
            )
            run.memory.resume()
        for caution in stopwatch.cautions(latency):
            run.warn(caution)
    found = limits.check(gates, accuracy=accuracy, fidelity=fidelity, latency=latency, size=size)
    return Verdict(size, latency, accuracy, fidelity, found)


def assessed(
    baseline: Session,
    candidate: Session,
    inputs: Inputs,
    *,
    measure: MeasureOptions,
    batch_size: int,
    seed: int,
    warn: Callable[[str], None],
    progress: Callable[[int, int | None], None] | None = None,
) -> Assessment:
    """Accuracy, where there are labels, and fidelity of a candidate on the evaluation inputs."""
    samples = labelled_feeds(inputs, batch_size, progress)
    return assess(baseline, candidate, samples, measure.metric, measure.output_name, seed=seed, warn=warn)


def keeps_budget(gates: Gates, assessment: Assessment) -> bool:
    """Whether the gates on accuracy, `--max-drop` and `--min-agreement`, are met; the others do not count here."""
    asked = Gates(max_drop=gates.max_drop, min_agreement=gates.min_agreement)
    found = limits.check(asked, accuracy=assessment.accuracy, fidelity=assessment.fidelity, latency=None, size=None)
    return all(gate.passed for gate in found)


def labelled_feeds(
    inputs: Inputs, batch_size: int, progress: Callable[[int, int | None], None] | None = None
) -> Iterator[tuple[Feed, Any]]:
    """Feeds with their labels; labels of data that was only meant to calibrate do not count."""
    done = 0
    for feed, labels in inputs.evaluation.batches(batch_size):
        done += len(labels)
        if progress is not None:
            progress(done, len(inputs.evaluation))
        usable = inputs.labelled and all(label is not None for label in labels)
        label: Any = None
        if usable:
            label = labels[0] if len(labels) == 1 else np.asarray(labels)
        yield feed, label


def require_finite(baseline: Session, candidate: Session, feeds: list[Feed]) -> None:
    """A candidate that says NaN or Inf where its baseline does not is broken; raises VerificationError."""
    for feed in feeds:
        found = {name: as_array(output) for name, output in candidate.run(feed).items()}
        floats = {name: array for name, array in found.items() if np.issubdtype(array.dtype, np.floating)}
        broken = [name for name, array in floats.items() if not np.isfinite(array).all()]
        ours = baseline.run(feed) if broken else {}  # as a rule nothing is: the baseline need not be opened for it
        for name in broken:
            if np.isfinite(as_array(ours.get(name, 0))).all():
                raise VerificationError(
                    f"output {name!r} of the result is not finite",
                    hint="run with --data that is typical of real use; if it is, please report a bug",
                )
