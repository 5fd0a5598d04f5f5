"""What `compress` does with a job: more samples than usual, divided in two, and the search."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from onnxqp.compress import Found, HeldBack, Pace, Search, goal_of, rare_kinds, split
from onnxqp.gather import Feeds, Inputs, as_options, spread
from onnxqp.job import TRIAL_FEEDS, Job
from onnxqp.options import CompressOptions, DataOptions, Gates, PruneOptions
from onnxqp.prune import plan as plan_pruning
from onnxqp.quantize import FEW, plan_quantization
from onnxqp.quantize.quality import Probe
from onnxqp.recover import Pruner, recovery_kind, settled
from onnxqp.recover.reconstruct import BUDGET
from onnxqp.recover.sampling import affordable
from onnxqp.report.records import Calibration, Pruning, Quantization
from onnxqp.steps import count_macs
from onnxqp.targets import resolve

_PROBED = 4  # samples that show whether an output is an image


def with_ratios(gates: Gates, options: CompressOptions) -> Gates:
    """The gates, with the shares to keep of time and bytes as gates too."""
    speedup, size = gates.min_speedup, gates.min_size_ratio
    if options.latency_ratio is not None:
        speedup = max(speedup or 0.0, 1 / options.latency_ratio)
    if options.size_ratio is not None:
        size = max(size or 0.0, 1 / options.size_ratio)
    return replace(gates, min_speedup=speedup, min_size_ratio=size)


def with_more_samples(job: Job) -> Job:
    """Draws twice as many samples: those that make the candidates do not choose among them."""
    if not isinstance(job.data, DataOptions | str | Path):
        return job
    asked, _ = as_options(job.data)
    return replace(job, data=replace(asked, samples=2 * asked.samples))


def plan_compression(model: ir.Model, options: CompressOptions) -> tuple[Quantization, Pruning]:
    """What could be done to a normalised model: by how much it would be pruned shows only where an amount is given."""
    amount = options.prune if options.prune.asked else replace(options.prune, ratio=0.0)
    pruning = plan_pruning(model, amount, step=resolve(options.target).channel_step).record
    return plan_quantization(model, options.quantize).record(), pruning


def search(job: Job, inputs: Inputs, options: CompressOptions) -> tuple[Found, Calibration]:
    """Find the candidate that fits the gates best, on calibration samples that are held back from making it."""
    run, data, threads = job.run, job.data_options, job.measure.threads
    source = inputs.calibration.source
    kinds = rare_kinds(job.normal, inputs.calibration)
    making, choosing = split(inputs.calibration, data.samples, data.seed, kinds)
    record = Calibration(source, len(making), inputs.held_back + len(choosing), options.quantize.method)
    feeds = Feeds(making, data.batch_size)
    likeness = inputs.calibration.likeness
    prune = settled(options.prune, likeness)
    pruner = Pruner(
        job.normal,
        inputs.some(TRIAL_FEEDS),
        affordable(feeds, BUDGET),
        recovery_kind(prune.recover, likeness),
        likeness,
        resolve(job.measured.resolved(options.target)).channel_step,
        data.seed,
        threads,
        job.measured,
        run.advance("prune"),
        doubts=False,  # what was not seen judges in the end
    )
    held = HeldBack(
        job.normal,
        Feeds(choosing, data.batch_size),
        job.measure.output_name,
        threads,
        measured=job.measured,
        baseline=job.timed_baseline(),
    )
    few = Feeds(spread(making, FEW))
    asked = job.gates.max_drop is not None or job.gates.min_agreement is not None
    held.classes = inputs.labelled or asked or held.holds_classes()
    classes = held.closeness(held.session).agreement is not None
    enough = Probe(job.normal, list(Feeds(spread(choosing, _PROBED)))).enough_db
    goal = goal_of(
        job.gates,
        classes=classes,
        labelled=inputs.labelled,
        enough_db=enough,
        samples=len(choosing),
        original=job.subject.bytes(),
    )
    made_up = source != "data"
    way = Search(
        held,
        goal,
        pruner,
        prune,
        options.quantize,
        feeds,
        few,
        job.subject.bytes(),
        threads,
        run.warn,
        run.advance("search"),
        typical=not made_up and not kinds,
        pace=Pace(job.measured, timed=options.target == "auto"),
    )
    found = way.once(prune) if prune.asked else way.run(pruning=_may_prune(job, prune, made_up))
    for warning in found.candidate.stage.warnings:
        run.warn(warning)
    return found, record


def _may_prune(job: Job, prune: PruneOptions, made_up: bool) -> bool:
    """Whether there is anything to prune, and anything to judge it by."""
    if not count_macs(job.normal):
        return False
    asked = job.gates.min_speedup, job.gates.min_size_ratio, job.gates.max_size
    if made_up and asked == (None, None, None):
        job.run.warn("nothing was pruned: made-up inputs do not show what that would cost; give --data")
        return False
    return True
