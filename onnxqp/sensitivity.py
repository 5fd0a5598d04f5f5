"""How much each part of a model costs when it alone is compressed: layers in int8, channel groups cut in half.

Every region makes a model of its own, which is judged against the original on the same samples: by the metric where
they have labels, else by the error of the outputs. Nothing is recovered: what a region costs is what recovery has to
give back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from onnxqp.errors import OnnxqpError, UnsupportedError
from onnxqp.evaluate.assessment import Assessment, assess
from onnxqp.evaluate.runnable import Runnable
from onnxqp.gather import Feeds, Inputs, spread
from onnxqp.judge import labelled_feeds
from onnxqp.options import DataOptions, MeasureOptions, PruneOptions, QuantizeOptions
from onnxqp.prune import plan
from onnxqp.prune.apply import cut_model
from onnxqp.quantize import FEW
from onnxqp.quantize.regions import integer_regions
from onnxqp.recover import channel_scorer, settled
from onnxqp.report.records import Region
from onnxqp.runtime import Session
from onnxqp.specs import Feed
from onnxqp.steps import Run

SHARE = 0.5  # of the channels of a group
NOISE = "relative squared error"
POINTS = ("top1", "top5")
KEPT = 256 * 2**20  # bytes of samples and outputs that are held for all regions
NOISELESS_DB = 300.0

Advance: TypeAlias = Callable[[int, int | None], None]
Sample: TypeAlias = tuple[Feed, Any]


@dataclass(frozen=True)
class Variant:
    """The model with one region compressed."""

    id: str
    members: Sequence[str]
    model: ir.Model


@dataclass
class Remembered:
    """The original, which runs once on every sample, however many candidates are held against it."""

    session: Session
    outputs_of: dict[int, Feed] = field(default_factory=dict)

    def run(self, feed: Feed, names: Sequence[str] | None = None, /) -> Feed:
        """The outputs for a sample, which must be the same object each time."""
        if id(feed) not in self.outputs_of:
            self.outputs_of[id(feed)] = self.session.run(feed, names)
        return self.outputs_of[id(feed)]


def measure_regions(
    run: Run, model: ir.Model, baseline: Session, inputs: Inputs, measure: MeasureOptions, data: DataOptions
) -> list[Region]:
    """The regions of a normalised model, the dearest first. Raises UnsupportedError where it has none."""
    samples = _held(inputs, data)
    original = Remembered(baseline)
    advance = run.advance("sensitivity")
    found: list[Region] = []
    for count, variants in (_integers(run, model, inputs, data), _groups(run, model, inputs, data)):
        for number, variant in enumerate(variants):
            advance(number, count)
            try:
                candidate = Session(variant.model, threads=measure.threads, brief=True)
                found.append(_judged(variant, original, candidate, samples, measure, data.seed))
            except OnnxqpError as error:
                run.warn(f"{variant.id} is left out: {error.message}")
    if not found:
        raise UnsupportedError(
            "nothing in this model can be quantized or pruned", hint="`onnxqp inspect --groups` says why"
        )
    return sorted(found, key=lambda region: (region.cost, -_decibels(region)), reverse=True)


def _decibels(region: Region) -> float:
    return NOISELESS_DB if region.sqnr_db is None else region.sqnr_db


def _judged(
    variant: Variant,
    original: Runnable,
    candidate: Session,
    samples: Sequence[Sample],
    measure: MeasureOptions,
    seed: int,
) -> Region:
    found: Assessment = assess(original, candidate, samples, measure.metric, measure.output_name, seed=seed)
    sqnr = found.fidelity.sqnr_db
    if found.accuracy is not None:
        name = found.accuracy.metric
        unit = f"points of {name}" if name in POINTS else name
        return Region(variant.id, list(variant.members), found.accuracy.drop, unit, sqnr)
    return Region(variant.id, list(variant.members), 0.0 if sqnr is None else 10 ** (-sqnr / 10), NOISE, sqnr)


def _held(inputs: Inputs, data: DataOptions) -> list[Sample]:
    """At most `--samples` of the evaluation samples, from all over, as far as memory allows."""
    chosen = Inputs(inputs.calibration, spread(inputs.evaluation, data.samples), inputs.held_back, inputs.labelled)
    samples: list[Sample] = []
    size = 0
    for feed, label in labelled_feeds(chosen, data.batch_size):
        size += sum(np.asarray(array).nbytes for array in feed.values())
        if samples and size > KEPT:
            break
        samples.append((feed, label))
    return samples


def _integers(run: Run, model: ir.Model, inputs: Inputs, data: DataOptions) -> tuple[int, Iterator[Variant]]:
    feeds, few = Feeds(inputs.calibration, data.batch_size), Feeds(inputs.few(FEW))
    try:
        count, regions = integer_regions(model, feeds, QuantizeOptions(), few=few)
    except UnsupportedError as error:
        run.warn(f"no region is quantized: {error.message}")
        return 0, iter(())
    return count, (Variant(f"quantize:{region.nodes[0]}", region.nodes, region.model) for region in regions)


def _groups(run: Run, model: ir.Model, inputs: Inputs, data: DataOptions) -> tuple[int, Iterator[Variant]]:
    """Each channel group alone, cut by `SHARE`: the channels go that `prune` would take."""
    options = settled(PruneOptions(ratio=SHARE, round_to=1), inputs.calibration.likeness)
    scorer = channel_scorer(options, list(Feeds(inputs.calibration, data.batch_size)), data.seed)
    made = plan(model, options, step=1, scorer=scorer)

    def build() -> Iterator[Variant]:
        for place, (group, bundles) in enumerate(zip(made.grouping.groups, made.chosen, strict=True)):
            if not bundles:
                continue
            try:
                cut = cut_model(made.model, made.labels, made.cut_of([place]))
            except (ValueError, IndexError, KeyError) as error:  # as `prune` has it: such a group would be left alone
                run.warn(f"prune:{group.id} is left out: the graph could not be rewritten: {error}")
                continue
            yield Variant(f"prune:{group.id}", group.members, cut)

    return len(made.grouping.groups), build()
