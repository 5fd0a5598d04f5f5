"""The whole of quantization on one normalised model, each step in a module of its own.

draft (exact rewrites, annotation) -> outlook (how fast integers would be, with made-up scales) -> calibrate what is
worth it (`preparation`) -> decide, by the clock or by a table (`placement`) -> build (`candidate`: parameters, weights
at rest, insertion) and verify.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import onnx_ir as ir
from threadpoolctl import threadpool_limits

from onnxqp.calibrate.collect import Progress
from onnxqp.calibrate.ranges import Range
from onnxqp.calibrate.statistics import Statistics, observe
from onnxqp.errors import UnsupportedError
from onnxqp.graph import iterate, tensor_bytes
from onnxqp.measurements import Measurements
from onnxqp.normalize.precision import float32_form
from onnxqp.ops import rule_for
from onnxqp.options import QuantizeOptions
from onnxqp.plan import QuantizationPlan
from onnxqp.quantize.annotate import annotate
from onnxqp.quantize.budget import Tried, keep
from onnxqp.quantize.calibrated import Calibrated
from onnxqp.quantize.candidate import Candidate, Material
from onnxqp.quantize.costs import Costs
from onnxqp.quantize.decide import decide
from onnxqp.quantize.draft import checked, observable, rewritten
from onnxqp.quantize.outlook import Outlook, look_ahead, with_integer_recurrences
from onnxqp.quantize.placement import Placement, Trial, place, place_by_table, place_float
from onnxqp.quantize.planning import make_plan
from onnxqp.quantize.preparation import FEW, Preparation, evenly, in_equal_scales
from onnxqp.quantize.quality import Probe
from onnxqp.report.records import Quantization
from onnxqp.specs import Feed
from onnxqp.targets import resolve

PROBE_FEEDS = 8  # samples by which candidates are compared
TRIED_NODES = 4000  # of a model that is tried out
SEARCHED_UNITS = 2000  # candidates for integers: for more, every candidate takes seconds to build and to open
TRIED_BYTES = (
    200 * 10**6
)  # weights of a model that is tried out; above, int8 pays beyond doubt and trying costs memory;
# and small matrices want one thread of BLAS: several wait for each other, and for those of onnxruntime


@dataclass(frozen=True)
class QuantizeResult:
    """The quantized model and how it was made, what calibration found, and what other candidates could be made from."""

    candidate: Candidate
    statistics: Statistics
    trial: Trial
    warnings: list[str] = field(default_factory=list)
    tried: list[Tried] = field(default_factory=list)

    @property
    def model(self) -> ir.Model:
        return self.candidate.model

    @property
    def ranges(self) -> Mapping[str, Range]:
        """Of the activations, by name."""
        return self.candidate.ranges

    @functools.cached_property
    def quantization(self) -> Quantization:
        """The report's section; opens the model to see what the runtime makes of it."""
        return self.candidate.record()

    @property
    def refused(self) -> QuantizeResult | None:
        """The same with the fastest integers that there are, where all is in float because of what these cost."""
        placement = self.trial.placement.refused
        if placement is None:
            return None
        return replace(self, candidate=placement.candidate, trial=replace(self.trial, placement=placement))

    def within(self, keeps: Callable[[ir.Model], bool]) -> QuantizeResult:
        """With blocks returned to float until `keeps` holds for the model; itself, and all that was tried, if never."""
        found, tried = keep(self.trial, keeps)
        return replace(self, candidate=found or self.candidate, tried=tried)


def plan_quantization(model: ir.Model, options: QuantizeOptions) -> QuantizationPlan:
    """What would be done to a normalised model, by the target's table and without data.

    A model that is quantized already has a plan in which every node is left alone.
    """
    target = resolve(options.target)
    model, _ = float32_form(model)
    work = model if any(rule_for(node).quantized for node in iterate(model)) else rewritten(model, options)
    annotation = annotate(work, target, options.selection)
    return make_plan(annotation, decide(annotation, Costs(target)), target)


def observe_model(
    model: ir.Model,
    samples: Iterable[Feed],
    options: QuantizeOptions,
    *,
    few: Iterable[Feed] | None = None,
    progress: Progress | None = None,
) -> Statistics:
    """Statistics of every value that quantizing this normalised model may want, whatever the target.

    `samples` may be iterated several times. `few`, from all shards where they are one of several, serve what needs no
    more: equal scales.
    """
    repeatable = list(samples) if isinstance(samples, Iterator) else samples
    model, scales = in_equal_scales(checked(model), repeatable if few is None else few, options, None)
    work = rewritten(model, options)
    found = observe(work, repeatable, *observable(work, options), progress=progress)
    found.scales = scales
    return found


def quantize_model(
    model: ir.Model,
    samples: Iterable[Feed],
    options: QuantizeOptions,
    *,
    few: Iterable[Feed] | None = None,
    statistics: Statistics | None = None,
    typical: bool = True,
    hopeless: bool = False,
    threads: int = 1,
    measured: Measurements | None = None,
    progress: Progress | None = None,
) -> QuantizeResult:
    """Quantize a copy of a normalised model; `samples` may be iterated several times.

    `few` of them, `FEW` or so from all over, serve what needs no more: equal scales, rounding, trying candidates.
    `statistics`, from an earlier run, take the place of calibrating on the samples. With `options.save_calibration`
    those that the result holds are of every value that another run may want. Samples that are not `typical` of what the
    model will see, beside statistics that are, only run it: weights then go to the nearest integers. With `hopeless`,
    integers that are fast are calibrated though they cost too much: `QuantizeResult.refused` has them. With the target
    `auto` this machine is measured, with that many `threads`, to decide what runs on integers; `measured` keeps what
    the clock said, or gives back what it said in an earlier run.

    Raises UnsupportedError for a model that is quantized already or in which nothing can be, ModelError for weights
    that are not finite, DataError for samples that do not fit.
    """
    repeatable = list(samples) if isinstance(samples, Iterator) else samples
    few = evenly(repeatable, FEW) if few is None else few
    measured = measured or Measurements()
    model, table = checked(model), resolve(measured.resolved(options.target))
    with threadpool_limits(1 if _bytes(model) <= TRIED_BYTES else None, user_api="blas"):
        if _too_much(model, options):
            make = Preparation(model, table, options, repeatable, few, statistics, typical, progress)
            made = make.whole()
            probe = Probe(made.material.model, evenly(few, PROBE_FEEDS), measured)
            probe.know(make.outputs(PROBE_FEEDS))
            few_units = len(made.material.annotation.units) <= SEARCHED_UNITS
            placement = place_by_table(made.material, make.draft.costs, probe, search=few_units)
        else:
            probe = Probe(model, evenly(few, PROBE_FEEDS), measured)
            model, recurrences = with_integer_recurrences(model, table, options, probe, threads=threads)
            make = Preparation(model, table, options, repeatable, few, statistics, typical, progress, recurrences)
            sketch = make.sketch()
            if recurrences is None:
                probe.know(make.outputs(PROBE_FEEDS))
            outlook = look_ahead(sketch, make.draft.costs, probe, threads=threads)
            del sketch  # and how its weights were rounded, several times as large as they are
            made, placement = _by_clock(make, outlook, probe, threads, hopeless=hopeless)
        if not placement.candidate.changed:
            raise _nothing(placement.candidate.plan)
        return QuantizeResult(
            placement.candidate, made.statistics, Trial(made.material, probe, placement), list(made.warnings)
        )


def _by_clock(
    make: Preparation, outlook: Outlook, probe: Probe, threads: int, *, hopeless: bool
) -> tuple[Calibrated, Placement]:
    """Calibrate what is worth it, and choose; where the sketch says that integers are not, weights alone."""
    kept = outlook.worthwhile(probe, scalable=make.scalable)
    if hopeless:
        kept = kept or outlook.fast
    if not kept:
        made = make.of([])
        plain = place_float(made.material, outlook, probe)
        kept = outlook.worthwhile(probe, plain.noise, scalable=make.scalable)
        if not kept:
            return made, plain
    made = make.of([unit for rival in kept for unit in rival.decision.integer])
    return made, place(made.material, replace(outlook, rivals=tuple(kept)), probe, threads=threads)


def prepared(
    model: ir.Model, samples: Iterable[Feed], options: QuantizeOptions, *, few: Iterable[Feed]
) -> tuple[Material, Costs]:
    """What candidates for integers are made from, all of it calibrated, and what they cost by the table.

    Raises what `quantize_model` raises.
    """
    make = Preparation(checked(model), resolve(options.target), options, samples, few)
    return make.whole().material, make.draft.costs


def _too_much(model: ir.Model, options: QuantizeOptions) -> bool:
    """Whether a table decides: for another machine, for what the user named, and for what is too large to try out."""
    named = bool(options.selection.include or options.selection.op_types)
    return options.target != "auto" or named or _bytes(model) > TRIED_BYTES or len(model.graph) > TRIED_NODES


def _bytes(model: ir.Model) -> int:
    """Of its weights."""
    return sum(tensor_bytes(value) for graph in model.graphs() for value in graph.initializers.values())


def _nothing(plan: QuantizationPlan) -> UnsupportedError:
    reasons = Counter(node.reason for node in plan.nodes if node.reason)
    most = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
    return UnsupportedError(
        f"nothing in this model can be quantized: {most or 'it has no arithmetic'}",
        hint="`onnxqp inspect` lists every node with its reason",
    )
