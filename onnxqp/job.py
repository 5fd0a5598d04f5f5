"""What every rewriting command shares: the model as asked for, its normalised copy, and the way to a written result."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import onnx_ir as ir

from onnxqp import model as files
from onnxqp import outputs, profile, soundness
from onnxqp.debugging import trace, with_shapes
from onnxqp.errors import OnnxqpError
from onnxqp.evaluate.latency import is_slower
from onnxqp.gather import DataLike, Feeds, Inputs, as_options, gather, spread
from onnxqp.judge import Verdict, judge, require, require_finite
from onnxqp.measurements import Measurements
from onnxqp.normalize import normalize
from onnxqp.normalize.precision import float32_form, has_bfloat16
from onnxqp.options import (
    CompressOptions,
    DataOptions,
    Gates,
    MeasureOptions,
    PruneOptions,
    QuantizeOptions,
    WriteOptions,
)
from onnxqp.quantize.naming import shorten_names
from onnxqp.report.records import ModelSummary, Quantization, Report, Size, TensorError
from onnxqp.runtime import RunningNode, Session
from onnxqp.steps import (
    ModelLike,
    Progress,
    Run,
    Subject,
    count_macs,
    deliver,
    open_subject,
    output_path,
    prove_runs,
)

TRIAL_FEEDS = 2

Look: TypeAlias = Callable[[Sequence[RunningNode]], Quantization]  # what is said of a graph as it really runs
_TRACED_SAMPLES = 8  # 3 to 12 % of the time that quantize takes


@dataclass(frozen=True)
class Result:
    """`model` is the new model, or None where none was made (inspect, bench, validate, a dry run)."""

    model: ir.Model | None
    report: Report


class _GateMissed(Exception):
    """Stops a file from getting its final name; never leaves this module."""


@dataclass(frozen=True)
class Job:
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
    measured: Measurements

    @classmethod
    def start(
        cls,
        command: str,
        product: str,
        model: ModelLike,
        options: QuantizeOptions | PruneOptions | CompressOptions,
        data: DataLike | None,
        measure: MeasureOptions | None,
        gates: Gates | None,
        write: WriteOptions | None,
        progress: Progress | None,
    ) -> Job:
        measure, gates, write = measure or MeasureOptions(), gates or Gates(), write or WriteOptions()
        data = data if data is not None else DataOptions()
        data_options, _ = as_options(data)
        run = Run(
            command,
            arguments(options, measure, gates, data_options, write, model=model),
            threads=measure.threads,
            target=options.target,
            progress=progress,
        )
        subject = open_subject(model)
        path = output_path(subject, write.output, product)
        if not write.dry_run:
            known = [subject.path, *_data_files(data_options)]
            if path is not None:
                outputs.check(path, force=write.force, inputs=known)
            profile.check(measure, write.force, [*known, path])
        measured = profile.measurements(measure, subject)
        normal = normalised(run, subject)
        if command == "quantize" or has_bfloat16(normal):  # else what is pruned stays in its own precision
            normal, notes = float32_form(normal)
            for note in notes:
                run.warn(f"{note.subject}: {note.reason}")
        for rule in options.selection.idle((node.name or "", node.op_type) for node in normal.graph):
            run.warn(f"{rule} fits no node: `onnxqp inspect -v` lists their names and types")
        soundness.check_sizes(normal, subject.path)
        optimize = measure.validate and not write.dry_run
        with run.stage("open"):
            baseline = open_baseline(run, subject, normal, measure.threads, optimize=optimize)
            soundness.check_weights(normal, subject.path)
        return cls(run, subject, normal, path, baseline, data, data_options, measure, gates, write, measured)

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

    def timed_baseline(self) -> Session:
        """The baseline as fast as it runs: without validation it is open as it is opened soonest."""
        if self.measure.validate:
            return self.baseline
        return open_baseline(self.run, self.subject, self.normal, self.measure.threads)

    def finish(
        self,
        inputs: Inputs,
        model: ir.Model,
        *,
        macs: int | None = None,
        before: ir.Model | None = None,
        look: Look | None = None,
        **sections: Any,
    ) -> Result:
        """Prove that the candidate runs, judge it, and let it have its name unless a gate is missed.

        `macs` of the candidate, where they are known; `before`: the model in float that it was quantized from, where
        that is not the normalised one; `look` makes the section on quantization.
        """
        profile.save(self.measured, self.measure, self.subject)
        if look is not None or sections.get("quantization") is not None:
            shorten_names(model, self.normal)
        outcome: dict[str, Any] = {}
        feeds = inputs.some(TRIAL_FEEDS)

        def seen(running: Sequence[RunningNode]) -> None:
            sections["quantization"] = look(running) if look is not None else None

        def verify(candidate: Path | ir.Model) -> None:
            with self.run.stage("verify"):
                timed = self.measure.validate
                shown, threads = seen if look is not None else None, self.measure.threads
                session = prove_runs(candidate, feeds, threads=threads, optimize=timed, look=shown)
                require_finite(self.baseline, session, feeds)
                written = files.written_bytes(candidate) if isinstance(candidate, Path) else len(files.to_bytes(model))
                size = size_of(self.subject.bytes(), written)
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
        if sections.get("pruning") is not None and verdict.latency is not None and is_slower(verdict.latency):
            self.run.warn(
                f"the result is {verdict.latency.speedup:.2f} times as fast as the original: less arithmetic, in sizes "
                "that kernels do not like (--latency-ratio asks for less time, --round-to for other sizes)"
            )
        if self.measure.trace and self.measure.validate and sections.get("quantization") is not None:
            sections["tensors"] = self._traced(before or self.normal, model, inputs)
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

    def _traced(self, before: ir.Model, candidate: ir.Model, inputs: Inputs) -> list[TensorError] | None:
        """The error of every value that quantization kept, on a few inputs."""
        feeds = Feeds(spread(inputs.evaluation, _TRACED_SAMPLES), self.data_options.batch_size)
        try:
            with self.run.stage("trace"):
                ours, theirs = with_shapes(before), with_shapes(candidate)
                return trace(ours, theirs, feeds, threads=self.measure.threads).tensors
        except OnnxqpError as err:  # no more than a picture is lost
            self.run.warn(f"the report does not say where the error is made: {err.message}")
            return None


def _count_macs(model: ir.Model) -> int:
    """Multiply-accumulates of a model that was rewritten."""
    normal = files.clone(model)
    normalize(normal)
    return count_macs(normal)


def normalised(run: Run, subject: Subject) -> ir.Model:
    with run.stage("normalize"), subject.blamed():
        soundness.check_nodes(subject.model, subject.path)
        normal = files.clone(subject.model)
        for note in normalize(normal):
            run.warn(f"{note.subject}: {note.reason}")
        soundness.check_nodes(normal, subject.path)  # more shapes are known now
    for dropped in normal.meta.get("dropped", ()):
        run.warn(f"the result has no {dropped}: it is for inference")
    return normal


def open_baseline(run: Run, subject: Subject, normal: ir.Model, threads: int, *, optimize: bool = True) -> Session:
    """The model as given; where the runtime refuses it but runs it cleaned up, that one, and say so.

    One that a child process has opened is opened here once it runs. Without `optimize` that takes half the time and
    memory, for a baseline whose speed nobody asks for.
    """
    try:
        return Session(subject.source, threads=threads, optimize=optimize, signature=subject.signature)
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


def size_of(baseline: int, candidate: int) -> Size:
    return Size(baseline, candidate, baseline / candidate)


def name_of(model: ModelLike) -> str:
    return str(model) if isinstance(model, str | Path) else "model in memory"


def arguments(*records: Any, **models: Any) -> dict[str, Any]:
    """What was asked, flat, under the names of the options; what is at its default of None or empty is left out."""
    found: dict[str, Any] = {}
    for key, value in models.items():
        if value is not None and value is not False:
            found[key] = name_of(value) if not isinstance(value, bool | list) else value
    for record in records:
        if dataclasses.is_dataclass(record) and not isinstance(record, type):
            found.update(_flat(dataclasses.asdict(record)))
    return found


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in fields.items():
        if key in ("selection", "prune", "quantize"):
            flat.update(_flat(value))
        elif key != "trace" and value is not None and value not in ((), {}, False):  # asked for by no option
            flat[key] = list(value) if isinstance(value, tuple) else value
    return flat
