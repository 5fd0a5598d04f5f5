"""The public functions: one per command, each from models and options to a report.

    result = onnxqp.quantize("model.onnx", data="calib.npz")
    result.model    the new model (an onnx_ir.Model), already verified
    result.report   what was done and what it is worth

A model is a path, an `onnx_ir.Model` or an `onnx.ModelProto`. Given a path, `quantize` and `prune` write their result
beside it (or to `write.output`); given a model in memory and no output, they write nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxqp import calibration, inventory, ops
from onnxqp import model as files
from onnxqp.compression import plan_compression, search, with_more_samples, with_ratios
from onnxqp.debugging import closest, trace, with_shapes
from onnxqp.errors import ModelError, OnnxqpError, UsageError
from onnxqp.evaluate import latency as stopwatch
from onnxqp.evaluate.runnable import require_same_signature
from onnxqp.frontier import within_budget
from onnxqp.gather import DataLike, Feeds, as_options, gather, gather_to_judge
from onnxqp.job import TRIAL_FEEDS, Job, Result, arguments, name_of, normalised, open_baseline, size_of
from onnxqp.judge import judge, require
from onnxqp.normalize import normalize
from onnxqp.options import (
    SAMPLED,
    CalibrateOptions,
    CompressOptions,
    DataOptions,
    Gates,
    MeasureOptions,
    PruneOptions,
    QuantizeOptions,
    TargetName,
    WriteOptions,
)
from onnxqp.prune import check_pattern
from onnxqp.prune import plan as plan_pruning
from onnxqp.quantize import FEW, plan_quantization, quantize_model
from onnxqp.recover import may_perforate, plan_with_samples, prune_and_recover, recovery_kind, settled
from onnxqp.report.records import ModelLatency
from onnxqp.runtime import Session, ceilings, cpu, versions
from onnxqp.sensitivity import measure_regions
from onnxqp.steps import (
    ModelLike,
    Progress,
    Run,
    Subject,
    count_macs,
    one_of,
    open_subject,
)
from onnxqp.targets import resolve


def inspect(
    model: ModelLike, other: ModelLike | None = None, *, groups: bool = False, target: TargetName = "auto"
) -> Result:
    """What a model is made of, which nodes can be quantized or why not, and with `groups` which channels can be cut.

    With `other`, that model's summary stands as the report's output, for comparison.
    """
    run = Run("inspect", arguments(model=model, other=other, groups=groups), target=target)
    with run.memory:
        subject = open_subject(model)
        normal = _inspectable(run, subject)
        with run.stage("plan"), subject.blamed():
            sections: dict[str, Any] = {"input": inventory.detailed(subject, normal)}
            sections["quantization"] = plan_quantization(normal, QuantizeOptions(target=target)).record()
            if groups:
                sections["pruning"] = plan_pruning(normal, PruneOptions(ratio=0.0), step=1).record
        if other is not None:
            second = open_subject(other)
            with second.blamed():
                sections["output"] = inventory.detailed(second, _inspectable(run, second))
            sections["size"] = size_of(subject.bytes(), second.bytes())
    return Result(None, run.report(**sections))


def quantize(
    model: ModelLike,
    *,
    options: QuantizeOptions | None = None,
    data: DataLike | None = None,
    measure: MeasureOptions | None = None,
    gates: Gates | None = None,
    write: WriteOptions | None = None,
    progress: Progress | None = None,
) -> Result:
    """Calibration-based static int8 quantization: normalise, plan, calibrate, insert QDQ, verify, measure, write."""
    options = options or QuantizeOptions()
    job = Job.start("quantize", "int8", model, options, data, measure, gates, write, progress)
    run = job.run
    with run.memory:
        if job.write.dry_run:
            with job.subject.blamed():
                plan = plan_quantization(job.normal, options)
                return Result(None, run.report(input=job.summary(), quantization=plan.record()))
        calibration.check_saved(options, job.write.force, [job.subject.path, job.path])
        stored = calibration.stored(run, job.subject, options)
        inputs = job.inputs()
        with run.stage("quantize"):
            feeds, seed = Feeds(inputs.calibration, job.data_options.batch_size), job.data_options.seed
            advance = run.advance("quantize")
            done = quantize_model(
                job.normal,
                feeds,
                options,
                few=Feeds(inputs.few(FEW)),
                statistics=stored,
                typical=stored is None or inputs.calibration.source == "data",
                threads=job.measure.threads,
                measured=job.measured,
                progress=advance,
            )
        for warning in done.warnings:
            run.warn(warning)
        done, points = within_budget(
            run, done, job.baseline, inputs, gates=job.gates, measure=job.measure, data=job.data_options
        )
        calibration.save(done.statistics, job.subject, inputs, options, seed)
        found = calibration.record(stored, inputs, options.method)
        return job.finish(
            inputs,
            done.model,
            macs=count_macs(job.normal),  # other numbers, the same work
            look=done.candidate.record if done.candidate.integers else None,
            quantization=None if done.candidate.integers else done.quantization,
            calibration=found,
            frontier=points,
        )


def calibrate(
    model: ModelLike | None = None,
    *,
    options: CalibrateOptions,
    data: DataLike | None = None,
    progress: Progress | None = None,
) -> Result:
    """Statistics of a model over samples, to a file that `quantize` reads; or several such files merged into one."""
    data = data if data is not None else DataOptions()
    run = Run("calibrate", arguments(options, as_options(data)[0], model=model), progress=progress)
    calibration.check(options, data, [model if isinstance(model, str | Path) else None])
    summary = None
    with run.memory:
        subject = None if model is None else open_subject(model)
        if options.merge:
            statistics = calibration.merged(run, subject, options)
        elif subject is None:
            raise UsageError("no model to calibrate", hint="give an .onnx file, or files to merge")
        else:
            normal = normalised(run, subject)
            summary = subject.summary(count_macs(normal))
            statistics = calibration.observed(run, subject, normal, data, options)
        record = calibration.write(statistics, options)
    return Result(None, run.report(input=summary, calibration=record))


def prune(
    model: ModelLike,
    *,
    options: PruneOptions,
    data: DataLike | None = None,
    measure: MeasureOptions | None = None,
    gates: Gates | None = None,
    write: WriteOptions | None = None,
    progress: Progress | None = None,
) -> Result:
    """Structured pruning: normalise, group coupled channels, choose, cut, prove, recover, measure, write."""
    if options.drop_layers is None and ":" not in options.pattern:  # these are amounts of their own
        one_of(**{name.replace("-", "_"): value for name, value in options.amounts.items()})
    if options.pattern != "structured":
        check_pattern(options)
    job = Job.start("prune", "pruned", model, options, data, measure, gates, write, progress)
    run, seed = job.run, job.data_options.seed
    step = resolve(job.measured.resolved(options.target)).channel_step
    with run.memory:
        tried = options.drop_layers is not None or options.pattern != "structured"  # known once it is done only
        needs = tried or options.latency_ratio is not None or options.criterion in SAMPLED
        if job.write.dry_run and not job.has_data and not needs:
            with job.subject.blamed():
                record = plan_pruning(job.normal, options, step=step).record
                return Result(None, run.report(input=job.summary(), pruning=record))
        inputs = job.inputs()
        source = inputs.calibration.source
        options, kind = settled(options, source), recovery_kind(options.recover, source)
        tried = tried or may_perforate(job.normal, options, kind)
        feeds = Feeds(inputs.calibration, job.data_options.batch_size)
        if job.write.dry_run and not tried:
            record = plan_with_samples(job.normal, feeds, options, step=step, seed=seed, threads=job.measure.threads)
            return Result(None, run.report(input=job.summary(), pruning=record))
        with run.stage("prune"):
            trial, advance = inputs.some(TRIAL_FEEDS), run.advance("prune")
            done = prune_and_recover(
                job.normal,
                trial,
                feeds,
                options,
                kind=kind,
                step=step,
                seed=seed,
                threads=job.measure.threads,
                measured=job.measured,
                progress=advance,
            )
        for warning in done.warnings:
            run.warn(warning)
        if job.write.dry_run:
            return Result(None, run.report(input=job.summary(), pruning=done.pruning))
        recovered = kind if done.pruning.recovery is not None else None
        calibration = inputs.calibration_record(recovered) if recovered is not None else None
        return job.finish(inputs, done.model, pruning=done.pruning, calibration=calibration)


def compress(
    model: ModelLike,
    *,
    options: CompressOptions | None = None,
    data: DataLike | None = None,
    measure: MeasureOptions | None = None,
    gates: Gates | None = None,
    write: WriteOptions | None = None,
    progress: Progress | None = None,
) -> Result:
    """Prune, recover and quantize in one run: by a given amount, or by as much as the budgets (`gates`) allow."""
    options = options or CompressOptions()
    gates = with_ratios(gates or Gates(), options)
    job = Job.start("compress", "compressed", model, options, data, measure, gates, write, progress)
    run = job.run
    with run.memory:
        if job.write.dry_run:
            with job.subject.blamed():
                quantization, pruning = plan_compression(job.normal, options)
                return Result(None, run.report(input=job.summary(), quantization=quantization, pruning=pruning))
        inputs = with_more_samples(job).inputs()
        with run.stage("search"):
            found, calibrated = search(job, inputs, options)
        taken = found.candidate
        return job.finish(
            inputs,
            taken.model,
            before=taken.stage.model,
            pruning=taken.stage.pruning if taken.stage.records else None,
            quantization=taken.quantization(),
            calibration=calibrated,
            frontier=[each.point(chosen=each is taken) for each in found.judged],
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


def operators(name: str | None = None) -> list[inventory.OperatorFacts]:
    """What is known of every operator, or of the one named: pruning rule, quantization rule, per target."""
    return inventory.operator_facts(name)


def doctor() -> dict[str, Any]:
    """Versions, what the installed onnxruntime reads, and this machine: what a bug report needs."""
    limit, processor = ceilings(), cpu()
    return {
        "versions": versions(),
        "onnxruntime_reads": {"ir_version": limit.ir_version, "opset": limit.opset},
        "machine": {
            "cpu": processor.name,
            "architecture": processor.machine,
            "features": sorted(processor.features),
            "cores": processor.cores,
            "target": resolve("auto").name,
        },
        "operators_known": len(ops.RULES),
    }


def _inspectable(run: Run, subject: Subject) -> ir.Model:
    """The normalised model. One that onnxruntime cannot run can still be looked at; one that is invalid cannot."""
    normal = normalised(run, subject)
    if subject.refusal is not None:
        try:
            with subject.blamed():
                Session(normal)
        except ModelError:
            raise subject.refusal from None
        except OnnxqpError as err:
            run.warn(err.message)
        else:
            run.warn(f"needs the clean-up that quantize and prune do: {subject.refusal.message}")
    return normal
