"""The public functions: one per command, each from models and options to a report.

    result = onnxqp.quantize("model.onnx", data="calib.npz")
    result.model    the new model (an onnx_ir.Model), already verified
    result.report   what was done and what it is worth

A model is a path, an `onnx_ir.Model` or an `onnx.ModelProto`. Given a path, `quantize` and `prune` write their result
beside it (or to `write.output`); given a model in memory and no output, they write nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxqp import calibration, inventory, ops, soundness
from onnxqp import model as files
from onnxqp.debugging import closest, trace, with_shapes
from onnxqp.errors import ModelError, OnnxqpError, UsageError
from onnxqp.evaluate import latency as stopwatch
from onnxqp.evaluate.runnable import require_same_signature
from onnxqp.frontier import within_budget
from onnxqp.gather import DataLike, Feeds, Inputs, as_options, gather, gather_to_judge
from onnxqp.judge import Verdict, judge, require, require_finite
from onnxqp.normalize import normalize
from onnxqp.normalize.precision import float32_form
from onnxqp.options import (
    CalibrateOptions,
    DataOptions,
    Gates,
    MeasureOptions,
    PruneOptions,
    QuantizeOptions,
    TargetName,
    WriteOptions,
)
from onnxqp.prune import plan as plan_pruning
from onnxqp.quantize import FEW, plan_quantization, quantize_model
from onnxqp.recover import plan_with_samples, prune_and_recover, recovery_kind, settled
from onnxqp.report.records import ModelLatency, ModelSummary, Report, Size
from onnxqp.runtime import Session, ceilings, cpu, versions
from onnxqp.steps import (
    ModelLike,
    Progress,
    Run,
    Subject,
    check_output,
    count_macs,
    deliver,
    one_of,
    open_subject,
    output_path,
    prove_runs,
)
from onnxqp.targets import resolve

_TRIAL_FEEDS = 2


@dataclass(frozen=True)
class Result:
    """`model` is the new model, or None where none was made (inspect, bench, validate, a dry run)."""

    model: ir.Model | None
    report: Report


class _GateMissed(Exception):
    """Stops a file from getting its final name; never leaves this module."""


def inspect(
    model: ModelLike, other: ModelLike | None = None, *, groups: bool = False, target: TargetName = "auto"
) -> Result:
    """What a model is made of, which nodes can be quantized or why not, and with `groups` which channels can be cut.

    With `other`, that model's summary stands as the report's output, for comparison.
    """
    run = Run("inspect", _arguments(model=model, other=other, groups=groups), target=target)
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
            sections["size"] = _size(subject.bytes(), second.bytes())
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
    job = _Job.start("quantize", "int8", model, options, data, measure, gates, write, progress)
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
            quantization=done.quantization,
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
    run = Run("calibrate", _arguments(options, as_options(data)[0], model=model), progress=progress)
    calibration.check(options, data, [model if isinstance(model, str | Path) else None])
    summary = None
    with run.memory:
        subject = None if model is None else open_subject(model)
        if options.merge:
            statistics = calibration.merged(run, subject, options)
        elif subject is None:
            raise UsageError("no model to calibrate", hint="give an .onnx file, or files to merge")
        else:
            normal = _normalised(run, subject)
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
    one_of(**{name.replace("-", "_"): value for name, value in options.amounts.items()})
    job = _Job.start("prune", "pruned", model, options, data, measure, gates, write, progress)
    run, seed = job.run, job.data_options.seed
    step = resolve(options.target).channel_step
    with run.memory:
        if job.write.dry_run and not job.has_data and options.latency_ratio is None:
            with job.subject.blamed():
                record = plan_pruning(job.normal, options, step=step).record
                return Result(None, run.report(input=job.summary(), pruning=record))
        inputs = job.inputs()
        source = inputs.calibration.source
        options, kind = settled(options, source), recovery_kind(options.recover, source)
        feeds = Feeds(inputs.calibration, job.data_options.batch_size)
        if job.write.dry_run:
            record = plan_with_samples(job.normal, feeds, options, step=step, seed=seed, threads=job.measure.threads)
            return Result(None, run.report(input=job.summary(), pruning=record))
        with run.stage("prune"):
            trial, advance = inputs.some(_TRIAL_FEEDS), run.advance("prune")
            done = prune_and_recover(
                job.normal,
                trial,
                feeds,
                options,
                kind=kind,
                step=step,
                seed=seed,
                threads=job.measure.threads,
                progress=advance,
            )
        for warning in done.warnings:
            run.warn(warning)
        calibration = inputs.calibration_record(kind) if kind is not None else None
        return job.finish(inputs, done.model, pruning=done.pruning, calibration=calibration)


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
        _arguments(measure, gates, data, baseline=baseline, candidate=candidate),
        threads=measure.threads,
        progress=progress,
    )
    with run.memory:
        first, second = open_subject(baseline), open_subject(candidate)
        with run.stage("open"):
            normal, other = files.clone(first.model), files.clone(second.model)
            normalize(normal)
            normalize(other)
            ours = _open_baseline(run, first, normal, measure.threads)
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
            size=_size(first.bytes(), second.bytes()),
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
    models: Sequence[ModelLike], *, data: DataLike | None = None, measure: MeasureOptions | None = None
) -> Result:
    """Interleaved latency of one or more models, each on inputs of its own signature."""
    if not models:
        raise UsageError("no model to measure", hint="give one or more .onnx files")
    measure, data = measure or MeasureOptions(), data if data is not None else DataOptions()
    run = Run("bench", _arguments(measure, data, models=[_name(model) for model in models]), threads=measure.threads)
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
            times = stopwatch.measure_each(entries)
            run.memory.resume()
    rows = [ModelLatency(s.name, stopwatch.stats(each)) for s, each in zip(subjects, times, strict=True)]
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
        _arguments(measure, asked, baseline=baseline, candidate=candidate),
        threads=measure.threads,
        progress=progress,
    )
    with run.memory:
        first, second = open_subject(baseline), open_subject(candidate)
        normal = _normalised(run, first)
        with run.stage("open"):
            ours = _open_baseline(run, first, normal, measure.threads)
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


# ---- what quantize and prune share ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """A rewriting command: what was asked, the model, and its normalised copy."""

    run: Run
    subject: Subject
    normal: ir.Model
    path: Path | None
    baseline: Session
    data: DataLike
    data_options: DataOptions
    measure: MeasureOptions
    gates: Gates
    write: WriteOptions

    @classmethod
    def start(
        cls,
        command: str,
        product: str,
        model: ModelLike,
        options: QuantizeOptions | PruneOptions,
        data: DataLike | None,
        measure: MeasureOptions | None,
        gates: Gates | None,
        write: WriteOptions | None,
        progress: Progress | None,
    ) -> _Job:
        measure, gates, write = measure or MeasureOptions(), gates or Gates(), write or WriteOptions()
        data = data if data is not None else DataOptions()
        data_options, _ = as_options(data)
        run = Run(
            command,
            _arguments(options, measure, gates, data_options, write, model=model),
            threads=measure.threads,
            target=options.target,
            progress=progress,
        )
        subject = open_subject(model)
        path = output_path(subject, write.output, product)
        if not write.dry_run:
            check_output(path, write.force, [subject.path, *_data_files(data_options)])
        normal = _normalised(run, subject)
        if command == "quantize":  # a command's name, not its product: what is pruned stays in its own precision
            normal, notes = float32_form(normal)
            for note in notes:
                run.warn(f"{note.subject}: {note.reason}")
        soundness.check_sizes(normal, subject.path)
        with run.stage("open"):
            baseline = _open_baseline(run, subject, normal, measure.threads, optimize=measure.validate)
            soundness.check_weights(normal, subject.path)
        return cls(run, subject, normal, path, baseline, data, data_options, measure, gates, write)

    @property
    def has_data(self) -> bool:
        """Whether inputs were given, and need not be made up."""
        return self.data_options.data is not None or not isinstance(self.data, DataOptions | str | Path)

    def summary(self) -> ModelSummary | None:
        return self.subject.summary(count_macs(self.normal))

    def inputs(self) -> Inputs:
        found = gather(self.run, self.normal, self.baseline, self.data, self.measure.output_name)
        require(self.gates, self.baseline, found, self.measure)
        self.baseline.close()  # until it is judged: what quantizes or prunes opens sessions of its own
        return found

    def finish(self, inputs: Inputs, model: ir.Model, *, macs: int | None = None, **sections: Any) -> Result:
        """Prove that the candidate runs, judge it, and let it have its name unless a gate is missed.

        `macs` of the candidate, where they are known.
        """
        outcome: dict[str, Any] = {}
        feeds = inputs.some(_TRIAL_FEEDS)

        def verify(candidate: Path | ir.Model) -> None:
            with self.run.stage("verify"):
                session = prove_runs(candidate, feeds, threads=self.measure.threads)
                require_finite(self.baseline, session, feeds)
                written = files.written_bytes(candidate) if isinstance(candidate, Path) else len(files.to_bytes(model))
                size = _size(self.subject.bytes(), written)
                if size.ratio < 1:
                    more = size.candidate_bytes - size.baseline_bytes
                    self.run.warn(f"the result is {more} bytes larger than the input: its nodes outweigh its weights")
            outcome["verdict"] = self._judge(session, inputs, size)
            if isinstance(candidate, Path):
                count = _count_macs(model) if macs is None else macs
                outcome["output"] = files.summarize(model, candidate, name=str(self.path), macs=count, size=written)
            if not outcome["verdict"].passed and not self.write.keep_failed:
                raise _GateMissed

        try:
            deliver(model, self.path, force=self.write.force, verify=verify)
        except _GateMissed:
            self.run.warn("a gate was missed: nothing was written")
        verdict: Verdict = outcome["verdict"]
        report = self.run.report(
            passed=verdict.passed,
            input=self.summary(),
            output=outcome.get("output"),
            **verdict.sections(),
            **sections,
        )
        return Result(model, report)

    def _judge(self, candidate: Session, inputs: Inputs, size: Size) -> Verdict:
        return judge(
            self.run,
            self.baseline,
            candidate,
            inputs,
            size=size,
            measure=self.measure,
            gates=self.gates,
            batch_size=self.data_options.batch_size,
            seed=self.data_options.seed,
        )


def _count_macs(model: ir.Model) -> int:
    """Multiply-accumulates of a model that was rewritten."""
    normal = files.clone(model)
    normalize(normal)
    return count_macs(normal)


def _normalised(run: Run, subject: Subject) -> ir.Model:
    with run.stage("normalize"), subject.blamed():
        soundness.check_nodes(subject.model, subject.path)
        normal = files.clone(subject.model)
        for note in normalize(normal):
            run.warn(f"{note.subject}: {note.reason}")
        soundness.check_nodes(normal, subject.path)  # more shapes are known now
    for dropped in normal.meta.get("dropped", ()):
        run.warn(f"the result has no {dropped}: it is for inference")
    return normal


def _inspectable(run: Run, subject: Subject) -> ir.Model:
    """The normalised model. One that onnxruntime cannot run can still be looked at; one that is invalid cannot."""
    normal = _normalised(run, subject)
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


def _open_baseline(run: Run, subject: Subject, normal: ir.Model, threads: int, *, optimize: bool = True) -> Session:
    """The model as given; where the runtime refuses it but runs it cleaned up, that one, and say so.

    Without `optimize` it opens in half the time and memory, for a baseline whose speed nobody asks for.
    """
    try:
        return Session(subject.source, threads=threads, optimize=optimize)
    except OnnxqpError as refusal:
        with contextlib.suppress(OnnxqpError), subject.blamed():
            session = Session(normal, threads=threads, optimize=optimize)
            run.warn(f"the baseline is the model after clean-up (names, opset); as it is, {refusal.message}")
            return session
        raise


def _data_files(data: DataOptions) -> list[str]:
    """Those specifications that name one existing file."""
    return [spec for spec in (data.data, data.eval) if spec is not None and _is_file(spec)]


def _is_file(spec: str) -> bool:
    try:
        return Path(spec).is_file()
    except (OSError, ValueError):  # no name that a file could have
        return False


def _size(baseline: int, candidate: int) -> Size:
    return Size(baseline, candidate, baseline / candidate)


def _name(model: ModelLike) -> str:
    return str(model) if isinstance(model, str | Path) else "model in memory"


def _arguments(*records: Any, **models: Any) -> dict[str, Any]:
    """What was asked, flat, under the names of the options; what is at its default of None or empty is left out."""
    found: dict[str, Any] = {}
    for key, value in models.items():
        if value is not None and value is not False:
            found[key] = _name(value) if not isinstance(value, bool | list) else value
    for record in records:
        if dataclasses.is_dataclass(record) and not isinstance(record, type):
            found.update(_flat(dataclasses.asdict(record)))
    return found


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in fields.items():
        if key == "selection":
            flat.update(_flat(value))
        elif value is not None and value not in ((), {}, False):
            flat[key] = list(value) if isinstance(value, tuple) else value
    return flat
