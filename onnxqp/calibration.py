"""Files of calibration statistics: what `calibrate` writes and merges, and what `quantize` reads or keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from onnxqp import outputs
from onnxqp.calibrate import store
from onnxqp.calibrate.ranges import minmax
from onnxqp.calibrate.statistics import Part, Statistics
from onnxqp.errors import UsageError
from onnxqp.gather import DataLike, Feeds, Inputs, as_options, gather_to_judge, spread
from onnxqp.options import CalibrateOptions, QuantizeOptions
from onnxqp.quantize import FEW, observe_model
from onnxqp.report.records import Calibration
from onnxqp.runtime import Session
from onnxqp.steps import Run, Subject

# ---- onnxqp calibrate ---------------------------------------------------------------------------------------


def check(options: CalibrateOptions, data: DataLike, inputs: Sequence[str | Path | None]) -> None:
    """Refuse, before any work, options that contradict each other and an output that cannot be."""
    index, total = options.shard
    if not 1 <= index <= total:
        raise UsageError(f"there is no shard {index}/{total}", hint="shards are numbered from 1: --shard 1/4 to 4/4")
    if options.merge and (options.shard != (1, 1) or as_options(data)[0].data is not None):
        raise UsageError("--merge reads no data", hint="calibrate each shard first, then merge the files")
    check_file(options.output, "--output", options.force, [*inputs, *options.merge])


def observed(run: Run, subject: Subject, normal: ir.Model, data: DataLike, options: CalibrateOptions) -> Statistics:
    """Statistics over the share of the drawn samples that is asked for; `normal` is the model, normalised."""
    asked, _ = as_options(data)
    with run.stage("open"):
        session = Session(normal)
    inputs = gather_to_judge(run, normal, session, replace(asked, eval=None) if data is asked else data)
    drawn, (index, total) = inputs.evaluation, options.shard
    share = drawn.subset(range(index - 1, len(drawn), total))
    if not len(share):
        raise UsageError(
            f"shard {index}/{total} of {len(drawn)} samples is empty", hint="use fewer shards, or more --samples"
        )
    with run.stage("calibrate"):
        feeds = Feeds(share, asked.batch_size)
        few = Feeds(spread(drawn, FEW))
        found = observe_model(normal, feeds, QuantizeOptions(), few=few, progress=run.advance("calibrate"))
    found.model = store.model_hash(subject.model, subject.path)
    found.parts = [Part(len(share), drawn.source, f"{index}/{total}", len(drawn), asked.seed)]
    return found


def merged(run: Run, subject: Subject | None, options: CalibrateOptions) -> Statistics:
    """The statistics of all files together, which must be those of the model, where one is named."""
    with run.stage("merge"):
        first, *others = (store.read(Path(name)) for name in options.merge)
        for other in others:
            first.merge(other)
        if subject is not None:
            first.require_model(store.model_hash(subject.model, subject.path))
    missing = first.missing_shards()
    if missing:
        run.warn(f"shards are missing: {', '.join(missing[:8])}{' and others' if len(missing) > 8 else ''}")
    return first


def write(statistics: Statistics, options: CalibrateOptions) -> Calibration:
    """Save, and say what is in the file: its samples, and what each value ranged over."""
    store.save(statistics, Path(options.output))
    ranges = {name: minmax(histogram) for name, histogram in statistics.histograms.items()}
    return Calibration(statistics.source, statistics.samples, 0, "minmax", ranges)


# ---- onnxqp quantize ----------------------------------------------------------------------------------------


def check_saved(options: QuantizeOptions, force: bool, inputs: Sequence[str | Path | None]) -> None:
    """Refuse, before any work, a `--save-calibration` that cannot be written."""
    if options.save_calibration is None:
        return
    if options.calibration is not None:
        raise UsageError(
            "--calibration and --save-calibration together would only copy a file", hint="give one of them"
        )
    check_file(options.save_calibration, "--save-calibration", force, inputs)


def stored(run: Run, subject: Subject, options: QuantizeOptions) -> Statistics | None:
    """The statistics that `--calibration` names, of this very model; None where it names none."""
    if options.calibration is None:
        return None
    with run.stage("calibration file"):
        found = store.read(Path(options.calibration))
        found.require_model(store.model_hash(subject.model, subject.path))
    return found


def save(statistics: Statistics, subject: Subject, inputs: Inputs, options: QuantizeOptions, seed: int) -> None:
    """Write what a quantization has observed, where `--save-calibration` asks for it."""
    if options.save_calibration is None:
        return
    samples, source = len(inputs.calibration), inputs.calibration.source
    statistics.model = store.model_hash(subject.model, subject.path)
    statistics.parts = [Part(samples, source, drawn=samples, seed=seed)]
    store.save(statistics, Path(options.save_calibration))


def record(statistics: Statistics | None, inputs: Inputs, method: str) -> Calibration:
    """The report's section: where the ranges come from, a file or the samples of this run."""
    if statistics is None:
        return inputs.calibration_record(method)
    return Calibration(statistics.source, statistics.samples, inputs.held_back, method)


def check_file(name: str, option: str, force: bool, inputs: Sequence[str | Path | None]) -> None:
    """Refuse a name that a calibration file cannot be written to."""
    path = Path(name)
    store.check_name(path)
    outputs.check(path, force=force, inputs=inputs, option=option)
