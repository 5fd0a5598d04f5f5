"""Quantization, and the statistics that it reads."""

from __future__ import annotations

from pathlib import Path

from onnxqp import calibration
from onnxqp.errors import UsageError
from onnxqp.frontier import within_budget
from onnxqp.gather import DataLike, Feeds, as_options
from onnxqp.job import Job, Result, arguments, normalised
from onnxqp.options import CalibrateOptions, DataOptions, Gates, MeasureOptions, QuantizeOptions, WriteOptions
from onnxqp.quantize import FEW, plan_quantization, quantize_model
from onnxqp.steps import ModelLike, Progress, Run, count_macs, open_subject


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
