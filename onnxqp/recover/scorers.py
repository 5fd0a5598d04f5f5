"""Who scores channels, by the criterion that was asked for; what was scored last is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.axes import AxisLabels, Labels
from onnxqp.options import Criterion, PruneOptions
from onnxqp.prune.cost import channel_macs
from onnxqp.prune.criteria import Scorer, criterion_scorer
from onnxqp.prune.groups import Grouping
from onnxqp.recover.mean_activation import mean_activations
from onnxqp.recover.scoring import score_channels
from onnxqp.specs import Feed


@dataclass(frozen=True)
class Scored:
    """What the channels of a model were worth, by class of a grouping with these `roots`."""

    model: ir.Model
    roots: Labels
    kind: Criterion
    damage: npt.NDArray[np.float64]

    def serves(self, model: ir.Model, roots: Labels, kind: Criterion) -> bool:
        return self.model is model and self.kind == kind and np.array_equal(self.roots, roots)


def channel_scorer(
    options: PruneOptions, feeds: Sequence[Feed], seed: int, last: list[Scored] | None = None
) -> Scorer | None:
    """What scores channels on samples, for the criteria that need them; None for the others.

    `last` holds two models that were scored last, and is given back where that is asked once more: how much is cut of a
    model, and at how many places it computes, does not change what its channels are worth.
    """
    kind = options.criterion
    if kind == "mean-activation":
        return lambda model, labels, grouping: mean_activations(model, labels, grouping, feeds)
    if kind not in ("activation", "reconstruction"):
        return criterion_scorer(kind, seed)

    def score(model: ir.Model, labels: AxisLabels, grouping: Grouping) -> npt.NDArray[np.float64]:
        """The loss that each channel causes; where all compete, for every multiply-accumulate that goes with it."""
        known = next((each for each in last or () if each.serves(model, grouping.roots, kind)), None)
        if known is None:
            damage = score_channels(model, labels, grouping, feeds, kind=kind, seed=seed)
            known = Scored(model, grouping.roots, kind, damage)
        if last is not None:
            last[:] = [*[each for each in last if each is not known][-1:], known]
        damage = known.damage
        if options.allocation != "global":
            return damage
        macs = channel_macs(model.graph, labels, grouping.roots)
        return np.asarray(damage / np.maximum(macs, 1.0), np.float64)

    return score
