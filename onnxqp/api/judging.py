"""Commands that run models and tell what they are worth."""

from __future__ import annotations

from collections.abc import Sequence

from onnxqp import model as files
from onnxqp.debugging import closest, trace, with_shapes
from onnxqp.errors import UsageError
from onnxqp.evaluate import latency as stopwatch
from onnxqp.evaluate.runnable import require_same_signature
from onnxqp.gather import DataLike, Feeds, as_options, gather, gather_to_judge
from onnxqp.job import Result, arguments, name_of, normalised, open_baseline, size_of
from onnxqp.judge import judge, require
from onnxqp.normalize import normalize
from onnxqp.options import (
    DataOptions,
    Gates,
    MeasureOptions,
)
from onnxqp.report.records import ModelLatency
from onnxqp.runtime import Session
from onnxqp.sensitivity import measure_regions
from onnxqp.steps import (
    ModelLike,
    Progress,
    Run,
    count_macs,
    open_subject,
)


def validate(
    baseline: ModelLike,
    candidate: ModelLike,
    *,
    data: DataLike | None = None,
    measure: MeasureOptions | None = None,
    gates: Gates | None = None,
    progress: Progress | None = None,
) -> Result:
    """Latency, accuracy or fidelity, and size of a candidate beside its baseline, on the CPU execution provider."""
    measure, gates, data = measure or MeasureOptions(), gates or Gates(), data if data is not None else DataOptions()
    run = Run(
        "validate",
        arguments(measure, gates, data, baseline=baseline, candidate=candidate),
        threads=measure.threads,
        progress=progress,
    )
    with run.memory:
        first, second = open_subject(baseline), open_subject(candidate)
        with run.stage("open"):
            normal, other = files.clone(first.model), files.clone(second.model)
            normalize(normal)
            normalize(other)
            ours = open_baseline(run, first, normal, measure.threads)
            theirs = Session(second.source, threads=measure.threads)
            require_same_signature(ours, theirs)
        inputs = gather_to_judge(run, normal, ours, data, measure.output_name)
        require(gates, ours, inputs, measure)
        options, _ = as_options(data)
        verdict = judge(
            run,
            ours,
            theirs,
            inputs,
            size=size_of(first.bytes(), second.bytes()),
            measure=measure,
            gates=gates,
            batch_size=options.batch_size,
            seed=options.seed,
        )
        report = run.report(
            passed=verdict.passed,
            input=first.summary(count_macs(normal)),
            output=second.summary(count_macs(other)),
            **verdict.sections(),
        )
    return Result(None, report)


def bench(
    models: Sequence[ModelLike],
    *,
    data: DataLike | None = None,
    measure: MeasureOptions | None = None,
    progress: Progress | None = None,
) -> Result:
    """Interleaved latency of one or more models, each on inputs of its own signature."""
    if not models:
        raise UsageError("no model to measure", hint="give one or more .onnx files")
    measure, data = measure or MeasureOptions(), data if data is not None else DataOptions()
    run = Run(
        "bench",
        arguments(measure, data, models=[name_of(model) for model in models]),
        threads=measure.threads,
        progress=progress,
    )
    options, _ = as_options(data)
    entries = []
    with run.memory:
        subjects = [open_subject(model) for model in models]
        for subject in subjects:
            session = Session(subject.source, threads=measure.threads)
            normal = files.clone(subject.model)
            normalize(normal)
            inputs = gather_to_judge(run, normal, session, data, measure.output_name)
            feeds = [feed for feed, _ in inputs.evaluation.batches(options.batch_size)][:4]
            entries.append((session, feeds))
        with run.stage("latency"):
            run.memory.pause()
            times = stopwatch.measure_each(entries, progress=run.advance("latency"))
            run.memory.resume()
    found = stopwatch.distributions(times)
    rows = [ModelLatency(subject.name, each) for subject, each in zip(subjects, found, strict=True)]
    return Result(None, run.report(models=rows))


def debug(
    baseline: ModelLike,
    candidate: ModelLike,
    *,
    data: DataLike | None = None,
    measure: MeasureOptions | None = None,
    progress: Progress | None = None,
) -> Result:
    """The error of every value that a candidate shares with its baseline by name, worst first, and its cause."""
    measure, data = measure or MeasureOptions(), data if data is not None else DataOptions()
    asked, _ = as_options(data)
    run = Run(
        "debug",
        arguments(measure, asked, baseline=baseline, candidate=candidate),
        threads=measure.threads,
        progress=progress,
    )
    with run.memory:
        first, second = open_subject(baseline), open_subject(candidate)
        normal = normalised(run, first)
        with run.stage("open"):
            ours = open_baseline(run, first, normal, measure.threads)
            require_same_signature(ours, Session(second.source, threads=measure.threads))
        inputs = gather_to_judge(run, normal, ours, data)
        with run.stage("debug"):
            feeds, advance = Feeds(inputs.evaluation, asked.batch_size), run.advance("debug")
            other = with_shapes(second.model)
            form = closest(normal, with_shapes(first.model), other)
            found = trace(form, other, feeds, threads=measure.threads, progress=advance)
        for warning in found.warnings:
            run.warn(warning)
        report = run.report(input=first.summary(None), output=second.summary(None), tensors=found.tensors)
    return Result(None, report)


def sensitivity(
    model: ModelLike,
    *,
    data: DataLike | None = None,
    measure: MeasureOptions | None = None,
    progress: Progress | None = None,
) -> Result:
    """What each region of layers costs in int8, and each channel group cut in half, alone; the dearest first."""
    measure, data = measure or MeasureOptions(), data if data is not None else DataOptions()
    asked, _ = as_options(data)
    run = Run("sensitivity", arguments(measure, asked, model=model), threads=measure.threads, progress=progress)
    with run.memory:
        subject = open_subject(model)
        normal = normalised(run, subject)
        with run.stage("open"):
            baseline = open_baseline(run, subject, normal, measure.threads, optimize=True)
        inputs = gather(run, normal, baseline, data, measure.output_name)
        with run.stage("sensitivity"), subject.blamed():
            found = measure_regions(run, normal, baseline, inputs, measure, asked)
        summary = subject.summary(count_macs(normal))
    return Result(None, run.report(input=summary, regions=found))
