"""From a draft to what candidates are made from: ranges of its values, and moments of what its layers read."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from onnxqp.calibrate.collect import Progress, collect
from onnxqp.calibrate.observers import Histogram
from onnxqp.calibrate.ranges import minmax
from onnxqp.calibrate.statistics import Statistics, observe
from onnxqp.options import QuantizeOptions
from onnxqp.quantize.annotate import Annotation, Unit
from onnxqp.quantize.bias import Means
from onnxqp.quantize.candidate import Material
from onnxqp.quantize.draft import Draft, channels, observed
from onnxqp.quantize.layer_inputs import layer_roundings
from onnxqp.quantize.rounding import Roundings
from onnxqp.specs import Compute, Feed

SKETCHED_BY = 8  # samples


@dataclass(frozen=True)
class Calibrated:
    """What candidates are made from, what calibration saw, and what it found odd."""

    material: Material
    statistics: Statistics
    warnings: list[str] = field(default_factory=list)


def sketched(draft: Draft, few: Iterable[Feed], options: QuantizeOptions) -> Material:
    """With the ranges of a few samples, and weights rounded to nearest: kernels take as long for these as for others.

    How long a kernel takes does not depend on its scales; what fuses depends on bounds that hold for any sample.
    """
    histograms = {name: Histogram() for name in observed(draft.annotation)}
    collect(draft.model, itertools.islice(few, SKETCHED_BY), histograms)
    return _material(draft, replace(options, method="minmax"), histograms, {}, {})[0]


def sketch_of(material: Material) -> Material:
    """The same of what is calibrated already."""
    return replace(material, options=replace(material.options, method="minmax"), means={}, roundings={})


def calibrated(
    draft: Draft,
    samples: Iterable[Feed],
    options: QuantizeOptions,
    *,
    few: Iterable[Feed],
    units: Collection[Unit] | None = None,
    statistics: Statistics | None = None,
    typical: bool = True,
    progress: Progress | None = None,
) -> Calibrated:
    """Observe what these units read and make (None: all units), or take it from statistics; no units: weights alone.

    Arguments are those of `quantize_model`.
    """
    roundings = layer_roundings(draft.model, few, corrects=options.bias_correction) if typical else {}
    values = observed(draft.annotation, units)
    axes = _unrounded(draft.annotation, roundings) if options.bias_correction else {}
    if statistics is None:
        statistics = observe(draft.model, samples, values, axes, progress=progress)
    statistics.require_values(values, axes)
    means = {name: mean for name in axes if (mean := statistics.means[name].mean) is not None}
    histograms = {name: statistics.histograms[name] for name in values}
    material, warnings = _material(draft, options, histograms, means, roundings)
    return Calibrated(material, statistics, warnings)


def _material(
    draft: Draft, options: QuantizeOptions, histograms: dict[str, Histogram], means: Means, roundings: Roundings
) -> tuple[Material, list[str]]:
    """And warnings."""
    annotation, warnings = draft.annotation, []
    _add_moved(annotation, histograms)
    if broken := {name: None for name, histogram in histograms.items() if histogram.invalid}:
        some = ", ".join(itertools.islice(broken, 3)) + (" and others" if len(broken) > 3 else "")
        warnings.append(f"NaN or infinity in calibration, in {some}: the nodes around stay in float")
        annotation = annotation.without(broken, "holds NaN or infinity in calibration")
    ranges = {name: minmax(histogram) for name, histogram in histograms.items() if not histogram.invalid}
    annotation = annotation.apart({name: high - low for name, (low, high) in ranges.items()})
    table = draft.costs.target
    return Material(draft.original, draft.model, annotation, table, options, histograms, means, roundings), warnings


def _unrounded(annotation: Annotation, roundings: Roundings) -> dict[str, int]:
    """The activations, by name, and their axes of channels, that meet a weight which no moments say how to round."""
    names = {
        unit.inputs[0][1].name or ""
        for unit in annotation.units
        if isinstance(unit.role, Compute) and unit.role.weight is not None and unit.node.name not in roundings
    }
    return {name: axis for name, axis in channels(annotation).items() if name in names}


def _add_moved(annotation: Annotation, histograms: dict[str, Histogram]) -> None:
    """A moved value that was not looked at holds the elements of the value it was moved from."""
    for unit in annotation.units:
        source = histograms.get(unit.inputs[0][1].name or "")
        if unit.moves and source is not None:
            for value in unit.outputs:
                histograms.setdefault(value.name or "", source)
