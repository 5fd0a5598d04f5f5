"""From a draft to what candidates are made from: ranges of its values, and moments of what its layers read."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass, field

from onnxqp.calibrate.observers import Histogram
from onnxqp.calibrate.ranges import minmax
from onnxqp.calibrate.statistics import Statistics
from onnxqp.options import QuantizeOptions
from onnxqp.quantize.annotate import Annotation, Unit
from onnxqp.quantize.bias import Means
from onnxqp.quantize.candidate import Material
from onnxqp.quantize.draft import Draft, observed, unrounded
from onnxqp.quantize.rounding import Roundings


@dataclass(frozen=True)
class Calibrated:
    """What candidates are made from, what calibration saw, and what it found odd."""

    material: Material
    statistics: Statistics
    warnings: list[str] = field(default_factory=list)


def calibrated(
    draft: Draft,
    options: QuantizeOptions,
    statistics: Statistics,
    roundings: Roundings,
    *,
    units: Collection[Unit] | None = None,
) -> Calibrated:
    """From what was seen of the values that these units read and make (None: all units; none: weights alone)."""
    values = observed(draft.annotation, units)
    axes = unrounded(draft.annotation, roundings) if options.bias_correction else {}
    seen = {name: statistics.means[name].mean for name in axes if name in statistics.means}
    means = {name: mean for name, mean in seen.items() if mean is not None}
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


def _add_moved(annotation: Annotation, histograms: dict[str, Histogram]) -> None:
    """A moved value that was not looked at holds the elements of the value it was moved from."""
    for unit in annotation.units:
        source = histograms.get(unit.inputs[0][1].name or "")
        if unit.moves and source is not None:
            for value in unit.outputs:
                histograms.setdefault(value.name or "", source)
