"""The steps that commands share on the way to a report: open, gather inputs, deliver, judge.

`api` strings them together. A `Run` collects what every report holds: warnings, seconds per stage, peak memory.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import onnx
import onnx_ir as ir

from onnxqp import integrity, ops, probe
from onnxqp import model as files
from onnxqp.errors import OnnxqpError, UsageError
from onnxqp.graph import iterate
from onnxqp.memory import PeakMemory
from onnxqp.report.records import Machine, ModelSummary, Report
from onnxqp.runtime import RunningNode, Session, Signature, cpu, doubtful, open_and_look, refused, versions
from onnxqp.specs import Feed
from onnxqp.targets import resolve

ModelLike: TypeAlias = str | Path | ir.Model | onnx.ModelProto
Progress: TypeAlias = Callable[[str, int, int | None], None]


@dataclass
class Run:
    """One command under way."""

    command: str
    arguments: dict[str, Any]
    threads: int = 1
    target: str = "auto"
    progress: Progress | None = None
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    memory: PeakMemory = field(default_factory=PeakMemory)

    def warn(self, message: str) -> None:
        """Once is enough, however often it is found."""
        if message not in self.warnings:
            self.warnings.append(message)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a stage, and says that it has begun."""
        if self.progress is not None:
            self.progress(name, 0, None)
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - begun, 3)

    def advance(self, stage: str) -> Callable[[int, int | None], None]:
        """What a pass calls to say how far it is."""

        def tell(done: int, total: int | None) -> None:
            if self.progress is not None:
                self.progress(stage, done, total)

        return tell

    def report(self, *, passed: bool = True, **sections: Any) -> Report:
        """The report so far; `sections` are fields of `Report`."""
        processor = cpu()
        return Report(
            command=self.command,
            arguments=self.arguments,
            passed=passed,
            warnings=list(self.warnings),
            seconds=dict(self.seconds),
            versions=versions(),
            machine=Machine(processor.name, sorted(processor.features), self.threads, resolve(self.target).name),
            peak_memory_bytes=self.memory.peak,
            **sections,
        )


@dataclass(frozen=True)
class Subject:
    """A model as the user gave it: a file, or one in memory."""

    model: ir.Model
    path: Path | None
    name: str
    refusal: OnnxqpError | None = None  # what onnxruntime says when it does not open the file as it is
    doubt: OnnxqpError | None = None  # what it says when it opens the file and does not run it
    sha256: str | None = None  # of the file
    signature: Signature | None = None  # of a file that onnxruntime opens as it is

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """What goes wrong unforeseen with a model that does not even run is the model's fault, not a bug of ours."""
        try:
            yield
        except (OnnxqpError, MemoryError):
            raise
        except Exception as err:
            fault = self.refusal or self.doubt
            if fault is None:
                raise
            raise fault from err

    @property
    def source(self) -> Path | ir.Model:
        """What a session opens: the file itself where there is one."""
        return self.path if self.path is not None else self.model

    def bytes(self) -> int:
        return len(files.to_bytes(self.model)) if self.path is None else files.file_bytes(self.path, self.model)

    def summary(self, macs: int | None) -> ModelSummary | None:
        if self.path is None:
            return None
        return files.summarize(self.model, self.path, name=self.name, macs=macs, sha256=self.sha256)


def open_subject(given: ModelLike) -> Subject:
    """Read and check a model; a file is opened by a child process first. A path keeps the words of the user."""
    if isinstance(given, ir.Model):
        return Subject(given, None, given.graph.name or "model")
    if isinstance(given, onnx.ModelProto):
        integrity.check(given)
        return Subject(files.from_proto(given), None, given.graph.name or "model")
    path = Path(given)
    probe.warm()
    model = files.load(path)
    with ThreadPoolExecutor(1) as beside:  # while the child looks
        sha256 = beside.submit(files.file_hash, path)
        found = probe.examine(path, files.file_bytes(path, model))
    refusal = None if found.refusal is None else refused(found.refusal, str(path))
    doubt = None if found.doubt is None else doubtful(found.doubt, str(path))
    return Subject(model, path, str(given), refusal, doubt, sha256.result(), found.signature)


def count_macs(model: ir.Model) -> int:
    """Multiply-accumulates of one inference of a normalised model, at batch 1 where the batch is symbolic."""
    return sum(ops.rule_for(node).macs(node) for node in iterate(model))


def output_path(subject: Subject, output: str | None, product: str) -> Path | None:
    """Where the result goes: as asked, or `STEM.product.onnx` beside the input; None for a model in memory."""
    if output is not None:
        return Path(output)
    if subject.path is None:
        return None
    return subject.path.with_name(f"{subject.path.stem}.{product}.onnx")


def prove_runs(
    candidate: Path | ir.Model,
    feeds: Sequence[Feed],
    *,
    threads: int = 1,
    optimize: bool = True,
    look: Callable[[Sequence[RunningNode]], None] | None = None,
) -> Session:
    """Open the candidate and run it on every feed; raises what the runtime says when it cannot.

    Without `optimize` it opens in half the time and memory, where nobody asks for its speed. `look` is shown the
    nodes that really run, optimised: a large model takes a minute to open, and once is enough.
    """
    if look is None:
        session = Session(candidate, threads=threads, optimize=optimize)
    else:
        session, running = open_and_look(candidate, threads=threads)
        look(running)
    for feed in feeds:
        session.run(feed)
    return session


def deliver(model: ir.Model, path: Path | None, *, force: bool, verify: Callable[[Path | ir.Model], None]) -> None:
    """Write the result atomically once `verify` has accepted it; a model without a path is only verified."""
    if path is None:
        verify(model)
        return
    files.save(model, path, force=force, verify=verify)


def one_of(**choices: object) -> None:
    """Exactly one of the options must be given; raises UsageError that names them."""
    given = [name for name, value in choices.items() if value is not None]
    if len(given) != 1:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in choices)
        problem = "none is given" if not given else f"{' and '.join('--' + name for name in given)} are given"
        raise UsageError(f"exactly one of {names} is needed; {problem}", hint="for example --ratio 0.5")
