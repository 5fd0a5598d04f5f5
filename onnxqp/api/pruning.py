"""Commands that prune: alone, or together with quantization under one set of budgets."""

from __future__ import annotations

from onnxqp.compression import plan_compression, search, with_more_samples, with_ratios
from onnxqp.gather import DataLike, Feeds
from onnxqp.job import TRIAL_FEEDS, Job, Result
from onnxqp.normalize.tied import share_transposed
from onnxqp.options import (
    SAMPLED,
    CompressOptions,
    Gates,
    MeasureOptions,
    PruneOptions,
    WriteOptions,
)
from onnxqp.prune import check_pattern
from onnxqp.prune import plan as plan_pruning
from onnxqp.recover import places_count, plan_with_samples, prune_and_recover, recovery_kind, settled
from onnxqp.steps import ModelLike, Progress, one_of
from onnxqp.targets import resolve


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
        tried = tried or places_count(job.normal, options, kind, likeness)
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
                likeness=likeness,
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
