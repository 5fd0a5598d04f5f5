"""Inputs for a run: read, or synthesised with a warning, and split into those to calibrate on and those to judge by."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import onnx_ir as ir

from onnxqp import ops
from onnxqp.data import SampleSet, from_feeds, hold_back, overlap, parse_preprocessing, read, synthesize
from onnxqp.errors import DataError, UsageError
from onnxqp.evaluate.scores import may_hold_classes
from onnxqp.options import DataOptions
from onnxqp.report.records import Calibration
from onnxqp.runtime import Session
from onnxqp.specs import Feed, InputSpec
from onnxqp.steps import Run

DataLike: TypeAlias = DataOptions | str | Path | Iterable[Feed]

_SYNTHETIC_SAMPLES = 64  # they teach little: more of them would only cost time
_LENGTHS = (32, 64, 128, 256, 512, 576, 1024, 4096, 16000)  # of sequences and sounds, when the default does not run


@dataclass(frozen=True)
class Feeds:
    """The feeds of a sample set, `batch_size` samples at once, as often as somebody asks for them."""

    samples: SampleSet
    batch_size: int = 1

    @property
    def total(self) -> int:
        """How many samples."""
        return len(self.samples)

    def __iter__(self) -> Iterator[Feed]:
        return (feed for feed, _ in self.samples.batches(self.batch_size))

    def at(self, places: Sequence[int]) -> Feeds:
        """Those of some samples: the others are not read."""
        return Feeds(self.samples.subset(places), self.batch_size)


@dataclass(frozen=True)
class Inputs:
    """`evaluation` judges the result; its labels count only when it was named as evaluation data."""

    calibration: SampleSet
    evaluation: SampleSet
    held_back: int
    labelled: bool

    def calibration_record(self, method: str) -> Calibration:
        return Calibration(self.calibration.source, len(self.calibration), self.held_back, method)

    def few(self, count: int) -> SampleSet:
        """So many calibration samples at most, from all over: sources are often sorted."""
        return spread(self.calibration, count)

    def some(self, count: int) -> list[Feed]:
        """The first feeds of the evaluation set, for a trial run or a stopwatch."""
        return list(itertools.islice(self.evaluation.feeds(), count))


def spread(samples: SampleSet, count: int) -> SampleSet:
    """At most `count` samples, evenly spaced."""
    total = len(samples)
    return samples if total <= count else samples.subset([place * total // count for place in range(count)])


def as_options(data: DataLike) -> tuple[DataOptions, list[Feed] | None]:
    """What a caller of the library gives: options, a specification, or the feeds themselves."""
    if isinstance(data, DataOptions):
        return data, None
    if isinstance(data, str | Path):
        return DataOptions(data=str(data)), None
    feeds = list(data)
    return DataOptions(samples=max(1, len(feeds))), feeds


def gather(run: Run, model: ir.Model, session: Session, data: DataLike, output_name: str | None = None) -> Inputs:
    """Inputs to calibrate on and to judge by, for the model that `session` runs; `model` is the same, normalised."""
    options, feeds = as_options(data)
    with run.stage("data"):
        drawn = _drawn(model, session, options, feeds)
        evaluation = _evaluation(session, options, output_name)
        if evaluation is None:
            calibration, evaluation = hold_back(drawn, seed=options.seed)
            held, labelled = len(drawn) - len(calibration), False
        else:
            calibration, held, labelled = drawn, 0, evaluation.labels is not None
            _warn_overlap(run, drawn, evaluation)
        _tell(run, drawn, calibration, evaluation)
    return Inputs(calibration, evaluation, held, labelled)


def gather_to_judge(
    run: Run, model: ir.Model, session: Session, data: DataLike, output_name: str | None = None
) -> Inputs:
    """Inputs where nothing is calibrated: evaluation data, else whatever there is, without labels."""
    options, feeds = as_options(data)
    with run.stage("data"):
        evaluation = _evaluation(session, options, output_name)
        labelled = evaluation is not None and evaluation.labels is not None
        if evaluation is None:
            evaluation = _drawn(model, session, options, feeds)
        _tell(run, evaluation)
    return Inputs(evaluation, evaluation, 0, labelled)


def _drawn(model: ir.Model, session: Session, options: DataOptions, feeds: list[Feed] | None) -> SampleSet:
    if feeds is not None:
        inputs = fix_shapes(session.inputs, options)
        return from_feeds(feeds, inputs, samples=None, labelled=False, name="data")
    if options.data is not None:
        return _read(options.data, session, options, options.samples, None, labelled=False)
    return _synthetic(model, session, options)


def _evaluation(session: Session, options: DataOptions, output_name: str | None) -> SampleSet | None:
    return None if options.eval is None else _read(options.eval, session, options, None, output_name)


def _tell(run: Run, *sets: SampleSet) -> None:
    for warning in dict.fromkeys(warning for samples in sets for warning in samples.warnings):
        run.warn(warning)


def fix_shapes(inputs: Sequence[InputSpec], options: DataOptions) -> tuple[InputSpec, ...]:
    """The inputs with the sizes of `--shape` in place of symbolic ones; the leading axis stays open for batches."""
    unknown = sorted(set(options.shapes) - {spec.name for spec in inputs})
    if unknown:
        names = ", ".join(spec.name for spec in inputs)
        raise UsageError(f"--shape names {unknown[0]!r}, which is no input of the model", hint=f"its inputs: {names}")
    fixed = []
    for spec in inputs:
        shape = options.shapes.get(spec.name)
        if shape is not None and spec.shape:
            spec = replace(spec, shape=(spec.shape[0], *shape[1:]))
        fixed.append(spec)
    return tuple(fixed)


def _read(
    spec: str,
    session: Session,
    options: DataOptions,
    samples: int | None,
    output_name: str | None,
    *,
    labelled: bool = True,
) -> SampleSet:
    preprocess = None if options.preprocess is None else parse_preprocessing(options.preprocess)
    return read(
        spec,
        fix_shapes(session.inputs, options),
        preprocess=preprocess,
        samples=samples,
        seed=options.seed,
        classes=class_count(session.outputs, output_name),
        labelled=labelled,
    )


def class_count(outputs: Sequence[InputSpec], output_name: str | None) -> int | None:
    """How many classes the judged output scores, where its declared shape says so."""
    spec = next((spec for spec in outputs if output_name in (None, spec.name)), None)
    if spec is None or not spec.shape or may_hold_classes(outputs, output_name) is not True:
        return None
    return next((size for size in spec.shape[1:] if isinstance(size, int) and size > 1), None)


def _synthetic(model: ir.Model, session: Session, options: DataOptions) -> SampleSet:
    """Made-up inputs on which the model runs: where the default sizes do not fit, others are tried."""
    samples, limits, failure = min(options.samples, _SYNTHETIC_SAMPLES), index_limits(model), None
    for length in (None, *_LENGTHS):
        shapes = dict(options.shapes) if length is None else _stretched(session.inputs, options.shapes, length)
        drawn = synthesize(session.inputs, samples=samples, seed=options.seed, shapes=shapes, limits=limits)
        try:
            session.run(next(drawn.feeds()))
        except DataError as err:
            failure = failure or err
            continue
        return drawn
    raise failure or DataError("no inputs can be made up for this model", hint="give --data")


def _stretched(
    inputs: Sequence[InputSpec], given: Mapping[str, tuple[int, ...]], length: int
) -> dict[str, tuple[int, ...]]:
    """Every symbolic size as `length`, but 1 on leading axes and between fixed ones, where a state has its batch."""
    shapes = dict(given)
    for spec in inputs:
        if spec.name in shapes or not spec.shape:
            continue
        sizes = []
        for axis, size in enumerate(spec.shape):
            inside = 0 < axis < len(spec.shape) - 1
            fixed = inside and all(isinstance(other, int) for other in (*spec.shape[:axis], *spec.shape[axis + 1 :]))
            sizes.append(size if isinstance(size, int) else 1 if axis == 0 or fixed else length)
        shapes[spec.name] = tuple(sizes)
    return shapes


def index_limits(model: ir.Model) -> dict[str, int]:
    """How many different integers each integer input may take: the rows of the embedding that it selects from."""
    limits: dict[str, int] = {}
    for source in model.graph.inputs:
        reached, seen = [source], {source}
        while reached:
            value = reached.pop()
            for node, index in value.uses():
                limit = ops.rule_for(node).index_limit(node, index)
                if limit is not None and source.name is not None:
                    limits[source.name] = min(limit, limits.get(source.name, limit))
                for output in node.outputs:
                    if output.dtype in (ir.DataType.INT32, ir.DataType.INT64) and output not in seen:
                        seen.add(output)
                        reached.append(output)
    return limits


def _warn_overlap(run: Run, calibration: SampleSet, evaluation: SampleSet) -> None:
    shared = overlap(calibration, evaluation) if calibration.source == "data" else 0
    if shared:
        run.warn(f"{shared} samples are in both --data and --eval: the result looks better than it is")
