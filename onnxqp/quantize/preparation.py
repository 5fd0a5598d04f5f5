"""From a model to what its candidates are made from: in equal scales, drafted, calibrated as far as it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from onnxqp.calibrate.collect import Progress
from onnxqp.calibrate.statistics import Statistics, observe
from onnxqp.options import QuantizeOptions
from onnxqp.quantize.annotate import Unit
from onnxqp.quantize.calibrated import Calibrated, calibrated, sketch_of, sketched
from onnxqp.quantize.candidate import Material
from onnxqp.quantize.draft import Draft, observable
from onnxqp.quantize.equalize import Exponents, equalized, scale
from onnxqp.specs import Feed
from onnxqp.targets import Target

EQUALIZED_BY = 16  # samples


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
    ) -> None:
        self._model = model
        self._table = table
        self._options = options
        self._samples = samples
        self._few = few
        self._statistics = statistics
        self._typical = typical
        self._progress = progress
        self._made: Calibrated | None = None
        self._draft: Draft | None = None

    @property
    def draft(self) -> Draft:
        """Of the model as it is now."""
        if self._draft is None:
            self._draft = Draft.of(self._model, self._table, self._options, self._samples, self._statistics)
        return self._draft

    def whole(self) -> Calibrated:
        """All that may run on integers, calibrated."""
        scales = self._scale()
        statistics = self._statistics
        if statistics is None and self._options.save_calibration is not None:
            every = observable(self.draft.model, self._options)
            statistics = observe(self.draft.model, self._samples, *every, progress=self._progress)
        made = self._calibrated(None, statistics)
        made.statistics.scales = scales
        return made

    def sketch(self) -> Material:
        """What tells how fast integers would be; nothing is calibrated yet, unless all of it must be."""
        if self._statistics is not None or self._options.save_calibration is not None:
            self._made = self.whole()
            return sketch_of(self._made.material)
        return sketched(self.draft, self._few, self._options)

    def of(self, units: Sequence[Unit]) -> Calibrated:
        """These units calibrated, behind a sketch; channels are scaled where any are to run on integers."""
        if self._made is not None:
            return self._made
        scales = self._scale() if units else None
        names = {unit.node.name for unit in units}
        made = self._calibrated([unit for unit in self.draft.annotation.units if unit.node.name in names], None)
        made.statistics.scales = scales
        return made

    def _scale(self) -> Exponents | None:
        """Scale the channels of the model, which makes it another one; how, or None if that was not asked."""
        model, scales = in_equal_scales(self._model, self._few, self._options, self._statistics)
        if model is not self._model:
            self._model, self._draft = model, None
        return scales

    def _calibrated(self, units: Sequence[Unit] | None, statistics: Statistics | None) -> Calibrated:
        return calibrated(
            self.draft,
            self._samples,
            self._options,
            few=self._few,
            units=units,
            statistics=statistics,
            typical=self._typical,
            progress=self._progress,
        )


def evenly(samples: Iterable[Feed], count: int) -> list[Feed]:
    """So many of the samples at most, from all over: sources are often sorted."""
    kept: list[Feed] = []
    step = 1
    for index, feed in enumerate(samples):
        if index % step == 0:
            kept.append(feed)
        if len(kept) == 2 * count:
            kept, step = kept[::2], 2 * step
    return [kept[place * len(kept) // count] for place in range(count)] if len(kept) > count else kept


def in_equal_scales(
    model: ir.Model, samples: Iterable[Feed], options: QuantizeOptions, statistics: Statistics | None
) -> tuple[ir.Model, Exponents | None]:
    """The model with its channels scaled, by the samples or as the statistics have it, and how; None if not asked."""
    if statistics is not None:
        statistics.require_scales(options.equalize)
        return (model if not statistics.scales else scale(model, statistics.scales)), statistics.scales
    return equalized(model, evenly(samples, EQUALIZED_BY), options.selection) if options.equalize else (model, None)
