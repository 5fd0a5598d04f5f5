"""From a model to what its candidates are made from: in equal scales, drafted, calibrated as far as it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxqp.calibrate.collect import Progress, even_places, sample_count
from onnxqp.calibrate.observers import counted
from onnxqp.calibrate.statistics import Statistics, observe
from onnxqp.options import QuantizeOptions
from onnxqp.quantize.annotate import Unit
from onnxqp.quantize.calibrated import Calibrated, calibrated
from onnxqp.quantize.candidate import Material
from onnxqp.quantize.draft import Draft, observable, observed, unrounded
from onnxqp.quantize.equalize import SAMPLES as EQUALIZED_BY
from onnxqp.quantize.equalize import Exponents, Scaling, equalized, scale
from onnxqp.quantize.layer_inputs import layer_roundings
from onnxqp.quantize.recurrent import Recurrences
from onnxqp.quantize.survey import Stage, Survey
from onnxqp.specs import Array, Feed
from onnxqp.targets import Target

FEW = 32  # samples for what needs no more
EXACT = ("percentile", "entropy")  # methods that look at single elements far out


class Preparation:
    """One model on its way to candidates: as much of it is calibrated as a decision asks for.

    Arguments are those of `quantize_model`.
    """

    def __init__(
        self,
        model: ir.Model,
        table: Target,
        options: QuantizeOptions,
        samples: Iterable[Feed],
        few: Iterable[Feed],
        statistics: Statistics | None = None,
        typical: bool = True,
        progress: Progress | None = None,
        recurrences: Recurrences | None = None,
    ) -> None:
        self._model = model
        self._table = table
        self._options = options
        self._samples = samples
        self._few = few
        self._statistics = statistics
        self._typical = typical
        self._progress = progress
        self._recurrences = recurrences
        self._made: Calibrated | None = None
        self._draft: Draft | None = None
        self._survey: Survey | None = None
        self._scaling: Scaling | None = None
        self._scales: Exponents | None = None

    @property
    def draft(self) -> Draft:
        """Of the model as it is now."""
        if self._draft is None:
            self._draft = Draft.of(self._model, self._table, self._options, self._samples, self._statistics)
        return self._draft

    def whole(self) -> Calibrated:
        """All that may run on integers, calibrated."""
        self._model, self._scales = in_equal_scales(self._model, self._few, self._options, self._statistics)
        if self._statistics is None and self._options.save_calibration is None:
            return self._all(None)
        statistics = self._statistics
        if statistics is None:
            every = observable(self.draft.model, self._options)
            statistics = observe(self.draft.model, self._samples, *every, progress=self._progress)
        corrects = self._options.bias_correction
        rounded = layer_roundings(self.draft.model, self._few, corrects=corrects) if self._typical else {}
        annotation = self.draft.annotation
        statistics.require_values(observed(annotation), unrounded(annotation, rounded) if corrects else ())
        made = calibrated(self.draft, self._options, statistics, rounded)
        made.statistics.scales = self._scales
        return self._with_recurrences(made)

    def sketch(self) -> Material:
        """What tells how fast integers would be, and about how accurate: calibrated on a few samples, unless all of it
        must be."""
        if self._statistics is not None or self._options.save_calibration is not None:
            self._made = self.whole()
            return self._made.material
        survey = self._surveyed()
        statistics = survey.see(Stage.SKETCH, observed(self.draft.annotation))
        return calibrated(self.draft, self._options, statistics, survey.roundings()).material

    @property
    def scalable(self) -> bool:
        """Whether channels will be scaled, by what a sketch has shown, for units that run on integers."""
        return self._scaling is not None and bool(self._scaling.exponents)

    def outputs(self, count: int) -> list[dict[str, Array]]:
        """Those of the float model on so many of the samples of the sketch, from all over; none without a sketch."""
        found = [] if self._survey is None else self._survey.outputs
        return [found[place] for place in even_places(len(found), count)]

    def of(self, units: Sequence[Unit]) -> Calibrated:
        """These units calibrated, by all samples. Without any: the weights of the model as it was given."""
        if self._made is not None:
            return self._made
        if units:
            self._scale()
        names = {unit.node.name for unit in units}
        return self._all([unit for unit in self.draft.annotation.units if unit.node.name in names])

    def _scale(self) -> None:
        """Scale the channels of the model where that gains, which makes it another one."""
        scaling, before = self._scaling, self._survey
        if scaling is None:
            return
        model, self._scales = scaling.applied(self._few)
        self._scaling = None
        if model is not self._model:
            self._model, self._draft, self._survey = model, None, None
            pairs = [pair for pair in scaling.pairs if pair.first.name in self._scales]
            readers = {node.name or "" for pair in pairs for node, _ in pair.readers}
            if before is not None:
                self._surveyed().adopt(before, {pair.first.name or "" for pair in pairs}, readers)

    def _all(self, units: Sequence[Unit] | None) -> Calibrated:
        survey = self._surveyed()
        if units is None:  # whoever calibrates all of it will want to know its outputs
            survey.see(Stage.SKETCH, observed(self.draft.annotation))
        statistics = survey.see(Stage.ALL, observed(self.draft.annotation, units), self._progress)
        made = calibrated(self.draft, self._options, statistics, survey.roundings(self._few), units=units)
        made.statistics.scales = self._scales
        return self._with_recurrences(made)

    def _with_recurrences(self, made: Calibrated) -> Calibrated:
        return replace(made, material=replace(made.material, recurrences=self._recurrences))

    def _surveyed(self) -> Survey:
        """Of all samples. With those of its sketch goes what tells how to scale channels, unless they are scaled."""
        if self._survey is None:
            options, total = self._options, sample_count(self._samples)
            seen = False
            if options.equalize and self._scales is None and total >= EQUALIZED_BY:
                self._scaling = Scaling.of(self._model, options.selection)
                seen = self._scaling.see(self.draft.model, self._few)
            self._survey = Survey(
                self.draft,
                self._samples,
                total,
                typical=self._typical,
                corrects=options.bias_correction,
                counted=None if options.method in EXACT else counted(total),
                beside={} if self._scaling is None or seen else self._scaling.sizes,
            )
        return self._survey


def evenly(samples: Iterable[Feed], count: int) -> list[Feed]:
    """So many of the samples at most, from all over: sources are often sorted."""
    kept: list[Feed] = []
    step = 1
    for index, feed in enumerate(samples):
        if index % step == 0:
            kept.append(feed)
        if len(kept) == 2 * max(count, FEW):
            kept, step = kept[::2], 2 * step
    return [kept[place] for place in even_places(len(kept), count)]


def in_equal_scales(
    model: ir.Model, samples: Iterable[Feed], options: QuantizeOptions, statistics: Statistics | None
) -> tuple[ir.Model, Exponents | None]:
    """The model with its channels scaled, by the samples or as the statistics have it, and how; None if not asked."""
    if statistics is not None:
        statistics.require_scales(options.equalize)
        return (model if not statistics.scales else scale(model, statistics.scales)), statistics.scales
    return equalized(model, evenly(samples, EQUALIZED_BY), options.selection) if options.equalize else (model, None)
