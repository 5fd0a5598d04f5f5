"""Commands that write a model, and the statistics that one of them reads."""

from __future__ import annotations

from pathlib import Path

from onnxqp import calibration
from onnxqp.compression import plan_compression, search, with_more_samples, with_ratios
from onnxqp.errors import UsageError
from onnxqp.frontier import within_budget
from onnxqp.gather import DataLike, Feeds, as_options
from onnxqp.job import TRIAL_FEEDS, Job, Result, arguments, normalised
from onnxqp.normalize.tied import share_transposed
from onnxqp.options import (
    SAMPLED,
    CalibrateOptions,
    CompressOptions,
    DataOptions,
    Gates,
    MeasureOptions,
    PruneOptions,
    QuantizeOptions,
    WriteOptions,
)
from onnxqp.prune import check_pattern
from onnxqp.prune import plan as plan_pruning
from onnxqp.quantize import FEW, plan_quantization, quantize_model
from onnxqp.recover import may_perforate, plan_with_samples, prune_and_recover, recovery_kind, settled
from onnxqp.steps import (
    ModelLike,
    Progress,
    Run,
    count_macs,
    one_of,
    open_subject,
)
from onnxqp.targets import resolve


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
        needs = tried or options.latency_ratio is not None or options.criterion in (*SAMPLED, "auto")
        if job.write.dry_run and not job.has_data and not needs:
            with job.subject.blamed():
                record = plan_pruning(job.normal, options, step=step).record
                return Result(None, run.report(input=job.summary(), pruning=record))
        inputs = job.inputs()
        likeness = inputs.calibration.likeness
        options, kind = settled(options, likeness), recovery_kind(options.recover, likeness)
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
        share_transposed(done.model)
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
            frontier=found.points,
            choice=found.choice,
        )
