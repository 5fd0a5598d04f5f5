"""The whole of quantization on one normalised model, each step in a module of its own.

prepare (exact rewrites) -> annotate -> calibrate -> decide, by a table or by the clock (`placement`) -> build
(`candidate`: parameters, weights at rest, insertion) and verify.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from onnxqp.calibrate.collect import Progress, collect
from onnxqp.calibrate.observers import Histogram, MinMax
from onnxqp.calibrate.ranges import Range, minmax
from onnxqp.calibrate.statistics import Statistics, observe
from onnxqp.errors import ModelError, UnsupportedError
from onnxqp.graph import constant, dims, iterate, op_name, tensor_bytes
from onnxqp.measurements import Measurements
from onnxqp.model import clone
from onnxqp.normalize.precision import float32_form
from onnxqp.ops import rule_for
from onnxqp.options import QuantizeOptions
from onnxqp.plan import QuantizationPlan
from onnxqp.quantize.annotate import Annotation, annotate
from onnxqp.quantize.budget import Tried, keep
from onnxqp.quantize.candidate import Candidate, Material
from onnxqp.quantize.costs import Costs
from onnxqp.quantize.decide import decide
from onnxqp.quantize.equalize import Exponents, equalized, scale
from onnxqp.quantize.layer_inputs import layer_roundings
from onnxqp.quantize.placement import Trial, place, place_by_table
from onnxqp.quantize.planning import make_plan
from onnxqp.quantize.quality import Probe
from onnxqp.report.records import Quantization
from onnxqp.specs import Compute, Feed
from onnxqp.targets import TARGETS, resolve

EQUALIZED_BY = 16  # samples
FEW = 32  # samples for what needs no more
PROBE_FEEDS = 8  # samples by which candidates are compared
TRIED_UNITS = 2000  # candidates for integers in a model that is tried out
TRIED_BYTES = 200 * 10**6  # weights of a model that is tried out; above, int8 pays beyond doubt and trying costs memory


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

    def within(self, keeps: Callable[[ir.Model], bool]) -> QuantizeResult:
        """With blocks returned to float until `keeps` holds for the model; itself, and all that was tried, if never."""
        found, tried = keep(self.trial, keeps)
        return replace(self, candidate=found or self.candidate, tried=tried)


def plan_quantization(model: ir.Model, options: QuantizeOptions) -> QuantizationPlan:
    """What would be done to a normalised model, by the target's table and without data.

    A model that is quantized already has a plan in which every node is left alone.
    """
    target = resolve(options.target)
    work = clone(float32_form(model)[0])
    if not any(rule_for(node).quantized for node in iterate(work)):
        _prepare(work, options)
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
    _refuse_quantized(model)
    _refuse_not_finite(model)
    model, _ = float32_form(model)
    repeatable = list(samples) if isinstance(samples, Iterator) else samples
    model, scales = _equalized(model, repeatable if few is None else few, options, None)
    work = clone(model)
    _prepare(work, options)
    values, channels = _observable(work, options)
    found = observe(work, repeatable, values, channels, progress=progress)
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
    threads: int = 1,
    measured: Measurements | None = None,
    progress: Progress | None = None,
) -> QuantizeResult:
    """Quantize a copy of a normalised model; `samples` may be iterated several times.

    `few` of them, `FEW` or so from all over, serve what needs no more: equal scales, rounding, trying candidates.
    `statistics`, from an earlier run, take the place of calibrating on the samples. With `options.save_calibration`
    those that the result holds are of every value that another run may want. Samples that are not `typical` of what the
    model will see, beside statistics that are, only run it: weights then go to the nearest integers. With the target
    `auto` this machine is measured, with that many `threads`, to decide what runs on integers; `measured` keeps what
    the clock said, or gives back what it said in an earlier run.

    Raises UnsupportedError for a model that is quantized already or in which nothing can be, ModelError for weights
    that are not finite, DataError for samples that do not fit.
    """
    repeatable = list(samples) if isinstance(samples, Iterator) else samples
    few = _evenly(repeatable, FEW) if few is None else few
    measured = measured or Measurements()
    made = prepared(
        model,
        repeatable,
        options,
        few=few,
        statistics=statistics,
        typical=typical,
        target=measured.resolved(options.target),
        progress=progress,
    )
    material = made.material
    trial = _placed(material, made.costs, Probe(material.model, _evenly(few, PROBE_FEEDS), measured), threads)
    candidate = trial.placement.candidate
    if not candidate.changed:
        raise _nothing(candidate.plan)
    return QuantizeResult(candidate, made.statistics, trial, made.warnings)


@dataclass(frozen=True)
class Prepared:
    """What candidates are made from, what they cost by the table, and what calibration found."""

    material: Material
    costs: Costs
    statistics: Statistics
    warnings: list[str]


def prepared(
    model: ir.Model,
    samples: Iterable[Feed],
    options: QuantizeOptions,
    *,
    few: Iterable[Feed],
    statistics: Statistics | None = None,
    typical: bool = True,
    target: str | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """All that comes before a decision; arguments and errors are those of `quantize_model`.

    `target`, where it is not that of the options: what `auto` was in an earlier run.
    """
    _refuse_quantized(model)
    _refuse_not_finite(model)
    model, _ = float32_form(model)
    table = resolve(target or options.target)
    model, scales = _equalized(model, few, options, statistics)
    work = clone(model)
    _prepare(work, options)
    annotation = annotate(work, table, options.selection)
    elements = _elements(work, annotation, samples, statistics)
    costs = Costs(table, elements)
    values, channels = _observed(annotation), _channels(annotation)
    if statistics is None:
        every = _observable(work, options) if options.save_calibration is not None else (values, channels)
        statistics = observe(work, samples, *every, progress=progress)
        statistics.scales = scales
    statistics.require_values(values, channels)
    histograms = {name: statistics.histograms[name] for name in values}
    _add_moved(annotation, histograms)
    warnings = []
    if broken := {name: None for name, histogram in histograms.items() if histogram.invalid}:
        some = ", ".join(itertools.islice(broken, 3)) + (" and others" if len(broken) > 3 else "")
        warnings.append(f"NaN or infinity in calibration, in {some}: the nodes around stay in float")
        annotation = annotation.without(broken, "holds NaN or infinity in calibration")
    ranges = {name: minmax(histogram) for name, histogram in histograms.items() if not histogram.invalid}
    annotation = annotation.apart({name: high - low for name, (low, high) in ranges.items()})
    corrected = channels if options.bias_correction else ()
    means = {name: mean for name in corrected if (mean := statistics.means[name].mean) is not None}
    roundings = layer_roundings(work, few) if typical else {}
    return Prepared(
        Material(model, work, annotation, table, options, histograms, means, roundings), costs, statistics, warnings
    )


def _placed(material: Material, costs: Costs, probe: Probe, threads: int) -> Trial:
    """The clock decides for this machine, the table for others and for models too large to try out."""
    weights = sum(tensor_bytes(value) for graph in material.model.graphs() for value in graph.initializers.values())
    many = len(material.annotation.units) > TRIED_UNITS
    if material.options.target != "auto" or weights > TRIED_BYTES or many:
        return Trial(material, probe, place_by_table(material, costs, probe, search=not many))
    return Trial(material, probe, place(material, costs, probe, threads=threads))


def _evenly(samples: Iterable[Feed], count: int) -> list[Feed]:
    """So many of the samples at most, from all over: sources are often sorted."""
    kept: list[Feed] = []
    step = 1
    for index, feed in enumerate(samples):
        if index % step == 0:
            kept.append(feed)
        if len(kept) == 2 * count:
            kept, step = kept[::2], 2 * step
    return [kept[place * len(kept) // count] for place in range(count)] if len(kept) > count else kept


# ---- before ------------------------------------------------------------------------------------------------------


def _refuse_quantized(model: ir.Model) -> None:
    for node in iterate(model):
        if rule_for(node).quantized:
            raise UnsupportedError(
                f"already quantized: it holds {op_name(node)} nodes",
                where=f"node {node.name}",
                hint="quantize the float model that this one was made from",
            )


def _refuse_not_finite(model: ir.Model) -> None:
    for graph in model.graphs():
        for value in graph.initializers.values():
            array = constant(value)
            if array is None or array.dtype.kind != "f" or array.ndim < 1 or not array.size:
                continue
            with np.errstate(all="ignore"):
                whole = np.isfinite(array.sum())
            if not whole and np.isnan(array).any():
                raise ModelError(
                    "a weight holds NaN",
                    where=f"initializer {value.name}",
                    hint="the model was saved broken: export it again",
                )


def _prepare(model: ir.Model, options: QuantizeOptions) -> None:
    """Bring chosen nodes into the forms that integer kernels take, by rewrites that change no result."""
    for node in list(model.graph):
        chosen = options.selection.reason_against(node.name or "", op_name(node)) is None
        if chosen and node.graph is model.graph:
            rule_for(node).plain(node)


def _equalized(
    model: ir.Model, samples: Iterable[Feed], options: QuantizeOptions, statistics: Statistics | None
) -> tuple[ir.Model, Exponents | None]:
    """The model with its channels scaled, by the samples or as the statistics have it, and how; None if not asked."""
    if statistics is not None:
        statistics.require_scales(options.equalize)
        return (model if not statistics.scales else scale(model, statistics.scales)), statistics.scales
    return equalized(model, _evenly(samples, EQUALIZED_BY), options.selection) if options.equalize else (model, None)


# ---- calibration ------------------------------------------------------------------------------------------------


def _elements(
    model: ir.Model, annotation: Annotation, samples: Iterable[Feed], statistics: Statistics | None
) -> dict[str, int]:
    """Element counts of one sample, observed where shapes leave them open beyond the first axis; else empty."""
    if all(None not in (dims(value) or (None, None))[1:] for value in annotation.values()):
        return {}
    if statistics is not None:
        return {name: each.count // max(statistics.samples, 1) for name, each in statistics.histograms.items()}
    observers = {value.name or "": MinMax() for value in annotation.values()}
    collect(model, itertools.islice(samples, 1), observers)
    return {name: observer.count for name, observer in observers.items()}


def _observed(annotation: Annotation) -> list[str]:
    """The values to look at: what a movement makes holds the elements of what it reads."""
    moved = {value.name for unit in annotation.units if unit.moves for value in unit.outputs}
    return [name for value in annotation.values() if (name := value.name or "") not in moved]


def _observable(model: ir.Model, options: QuantizeOptions) -> tuple[list[str], dict[str, int]]:
    """Every value that some target may quantize, and the axis along which the weights behind it have channels."""
    values: dict[str, None] = {}
    channels: dict[str, int] = {}
    for target in TARGETS.values():
        annotation = annotate(model, target, options.selection)
        values |= dict.fromkeys(value.name or "" for value in annotation.values())
        channels |= _channels(annotation)
    return list(values), channels


def _channels(annotation: Annotation) -> dict[str, int]:
    """The activations that meet a weight, and their axes of channels: their means correct the biases."""
    pairs = ((unit, unit.role) for unit in annotation.units if isinstance(unit.role, Compute))
    return {unit.inputs[0][1].name or "": role.channels for unit, role in pairs if role.weight is not None}


def _add_moved(annotation: Annotation, histograms: dict[str, Histogram]) -> None:
    """A moved value that was not looked at holds the elements of the value it was moved from."""
    for unit in annotation.units:
        source = histograms.get(unit.inputs[0][1].name or "")
        if unit.moves and source is not None:
            for value in unit.outputs:
                histograms.setdefault(value.name or "", source)


def _nothing(plan: QuantizationPlan) -> UnsupportedError:
    reasons = Counter(node.reason for node in plan.nodes if node.reason)
    most = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
    return UnsupportedError(
        f"nothing in this model can be quantized: {most or 'it has no arithmetic'}",
        hint="`onnxqp inspect` lists every node with its reason",
    )
