"""The whole of quantization on one normalised model, each step in a module of its own.

prepare (exact rewrites) -> annotate -> decide -> calibrate -> parameters -> insert -> weights at rest -> verify.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from onnxqp.calibrate.collect import Progress, collect
from onnxqp.calibrate.observers import Histogram, MinMax
from onnxqp.calibrate.ranges import METHODS, Range, minmax
from onnxqp.calibrate.statistics import Statistics, observe
from onnxqp.errors import ModelError, UnsupportedError
from onnxqp.graph import constant, dims, iterate, op_name
from onnxqp.model import clone
from onnxqp.normalize.cleanup import remove_dead
from onnxqp.ops import rule_for
from onnxqp.options import QuantizeOptions
from onnxqp.plan import QuantizationPlan
from onnxqp.quantize.annotate import Annotation, annotate
from onnxqp.quantize.at_rest import store_at_rest
from onnxqp.quantize.decide import decide
from onnxqp.quantize.insert import insert
from onnxqp.quantize.parameters import activation_parameters
from onnxqp.quantize.planning import make_plan
from onnxqp.quantize.verify import unfused_nodes
from onnxqp.report.records import Quantization
from onnxqp.specs import Compute, Feed, Observed
from onnxqp.targets import TARGETS, resolve


@dataclass(frozen=True)
class QuantizeResult:
    """The quantized model, the report's section, and what calibration found."""

    model: ir.Model
    quantization: Quantization
    ranges: dict[str, Range]
    statistics: Statistics
    warnings: list[str] = field(default_factory=list)


def plan_quantization(model: ir.Model, options: QuantizeOptions) -> QuantizationPlan:
    """What would be done to a normalised model, by the target's table and without data.

    A model that is quantized already has a plan in which every node is left alone.
    """
    target = resolve(options.target)
    work = clone(model)
    if not any(rule_for(node).quantized for node in iterate(work)):
        _prepare(work, options)
    annotation = annotate(work, target, options.selection)
    return make_plan(annotation, decide(annotation, target), target)


def observe_model(
    model: ir.Model, samples: Iterable[Feed], options: QuantizeOptions, *, progress: Progress | None = None
) -> Statistics:
    """Statistics of every value that quantizing this normalised model may want, whatever the target."""
    _refuse_quantized(model)
    _refuse_not_finite(model)
    work = clone(model)
    _prepare(work, options)
    values, channels = _observable(work, options)
    return observe(work, samples, values, channels, progress=progress)


def quantize_model(
    model: ir.Model,
    samples: Iterable[Feed],
    options: QuantizeOptions,
    *,
    statistics: Statistics | None = None,
    progress: Progress | None = None,
) -> QuantizeResult:
    """Quantize a copy of a normalised model; `samples` may be iterated several times.

    `statistics`, from an earlier run, take the place of calibrating on the samples. With `options.save_calibration`
    those that the result holds are of every value that another run may want.

    Raises UnsupportedError for a model that is quantized already or in which nothing can be, ModelError for weights
    that are not finite, DataError for samples that do not fit.
    """
    _refuse_quantized(model)
    _refuse_not_finite(model)
    target = resolve(options.target)
    work = clone(model)
    _prepare(work, options)
    repeatable = list(samples) if isinstance(samples, Iterator) else samples
    annotation = annotate(work, target, options.selection)
    elements = _elements(work, annotation, repeatable, statistics)
    decision = decide(annotation, target, elements)
    plan = make_plan(annotation, decision, target)
    values, channels = _observed(annotation, plan), _channels(annotation)
    if statistics is None:
        every = _observable(work, options) if options.save_calibration is not None else (values, channels)
        statistics = observe(work, repeatable, *every, progress=progress)
    statistics.require_values(values, channels)
    histograms = {name: statistics.histograms[name] for name in values}
    _add_moved(annotation, histograms)
    warnings = []
    if broken := {name: None for name, histogram in histograms.items() if histogram.invalid}:
        some = ", ".join(itertools.islice(broken, 3)) + (" and others" if len(broken) > 3 else "")
        warnings.append(f"NaN or infinity in calibration, in {some}: the nodes around stay in float")
        annotation = annotation.without(broken, "holds NaN or infinity in calibration")
        decision = decide(annotation, target, elements)
    plan = make_plan(annotation, decision, target, lambda value: _span(histograms.get(value.name or "")))
    method = METHODS[options.method]
    parameters = activation_parameters(plan.values, histograms, lambda name, histogram: method(histogram))
    means = {name: mean for name in channels if (mean := statistics.means[name].mean) is not None}
    stored = store_at_rest(work, _excluded(work, options) | {node.node for node in plan.integer_nodes}, means)
    inserted = insert(work, plan, parameters, means=means, per_tensor=options.per_tensor)
    remove_dead(work)
    if not stored.weights and not any(plan.integer_nodes):
        raise _nothing(plan)
    unfused = unfused_nodes(work, plan)
    record = replace(
        plan.record(),
        nodes_fused=sum(1 for _ in plan.integer_nodes) - len(unfused),
        weights_at_rest=stored.weights,
        unfused=unfused,
        weights_made_safe=inserted.weights_made_safe,
        bias_corrected=inserted.bias_corrected + stored.bias_corrected,
    )
    ranges = {name: own.range for name, own in parameters.items()}
    return QuantizeResult(work, record, ranges, statistics, warnings)


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
            if not np.isfinite(array.sum(dtype=np.float64)) and np.isnan(array).any():
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


def _excluded(model: ir.Model, options: QuantizeOptions) -> set[str]:
    names = ((node.name or "", op_name(node)) for node in iterate(model))
    return {name for name, op_type in names if options.selection.reason_against(name, op_type) is not None}


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


def _observed(annotation: Annotation, plan: QuantizationPlan) -> list[str]:
    """The values to look at: what a movement makes holds the elements of what it reads."""
    moved = {value.name for unit in annotation.units if unit.moves for value in unit.outputs}
    return [name for name, spec in plan.values.items() if isinstance(spec, Observed) or name not in moved]


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


def _span(histogram: Histogram | None) -> float | None:
    if histogram is None:
        return None
    low, high = minmax(histogram)
    return high - low


def _nothing(plan: QuantizationPlan) -> UnsupportedError:
    reasons = Counter(node.reason for node in plan.nodes if node.reason)
    most = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
    return UnsupportedError(
        f"nothing in this model can be quantized: {most or 'it has no arithmetic'}",
        hint="`onnxqp inspect` lists every node with its reason",
    )
