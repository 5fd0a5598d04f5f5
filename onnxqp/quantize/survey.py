"""What samples show of the values and layers of one draft, a few samples first and the others when they are asked for.

Every sample passes through the model once, whatever looks at it: histograms and means of values, rows that layers
read. What was seen of a few tells how much noise a candidate makes; what becomes worth it then sees
the others too, and nothing is seen twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

import onnx_ir as ir

from onnxqp.calibrate.collect import Chosen, Progress, Selectable, collect, even_places
from onnxqp.calibrate.observers import ChannelMean, Histogram, Kept, Observer, together
from onnxqp.calibrate.statistics import Part, Statistics
from onnxqp.quantize.draft import Draft, observed, unrounded
from onnxqp.quantize.layer_inputs import SAMPLES, LayerInputs
from onnxqp.quantize.rounding import LayerRounding
from onnxqp.specs import Array, Feed

SKETCHED_BY = 16  # samples
_NOTHING: Mapping[str, Observer] = MappingProxyType({})


class Stage(IntEnum):
    """How far a survey has come: the samples for a sketch, or all."""

    SKETCH = 1
    ALL = 2


@dataclass
class _Look:
    """One observer of a value, and how far it has come."""

    value: str
    observer: Observer
    reached: int = 0


class Survey:
    """Of one draft over `total` samples. `typical` ones say how to round weights; `corrects`: biases are corrected.
    `counted`: elements of a large sample that histograms count. `beside`: what else looks at the samples of a sketch.

    Those of a sketch are from all over: sources are often sorted.
    """

    def __init__(
        self,
        draft: Draft,
        samples: Iterable[Feed],
        total: int,
        *,
        typical: bool = True,
        corrects: bool = True,
        counted: int | None = None,
        beside: Mapping[str, Observer] = _NOTHING,
    ) -> None:
        self.draft = draft
        self._samples = samples
        self._total = total
        self._corrects = corrects
        self._few = frozenset(even_places(total, SAMPLES))
        self._layers = LayerInputs(draft.model) if typical else None
        self._take(self._few)
        rounded = self._layers.nodes if self._layers is not None else set()
        self._axes = unrounded(draft.annotation, rounded) if corrects else {}
        self._histograms = {name: _Look(name, Histogram(counted)) for name in observed(draft.annotation)}
        self._means = {name: _Look(name, ChannelMean(axis)) for name, axis in self._axes.items()}
        observers = self._layers.observers() if self._layers is not None else []
        self._rows = [_Look(value, observer) for value, observer in observers]
        outputs = (
            value
            for value in draft.model.graph.outputs
            if isinstance(value.type, ir.TensorType) and value.dtype == ir.DataType.FLOAT
        )
        every = 2 if total >= SKETCHED_BY else 1  # nobody wants more of them
        self._outputs = {name: Kept(every) for value in outputs if (name := value.name)}
        self._first = frozenset(even_places(total, SKETCHED_BY))
        self._beside = [_Look(name, observer) for name, observer in beside.items()]

    def see(self, until: Stage, values: Iterable[str], progress: Progress | None = None) -> Statistics:
        """Look at these values, and at what layers read, over as many samples as `until` says; what was seen.

        What layers read is seen in no more samples than it is wanted of, unless values are.
        """
        wanted = {name: self._histograms[name] for name in values}
        self._advance([*wanted.values(), *self._means.values(), *self._rows], until, progress)
        found = Statistics(histograms={name: _histogram(look) for name, look in wanted.items()})
        found.means = {
            name: look.observer for name, look in self._means.items() if isinstance(look.observer, ChannelMean)
        }
        found.parts = [Part(self._total, "data")]
        return found

    def adopt(self, other: Survey, scaled: Collection[str], readers: Collection[str]) -> None:
        """Go on from what another survey has seen of these samples: its model differs in the scales of the channels
        that the nodes `scaled` make and `readers` read, powers of two, and computes the very same bits elsewhere.

        Where a draft has no node of such a name any more, what it changed cannot be told, and all is seen anew.
        """
        if not set(scaled) <= {node.name for node in self.draft.model.graph}:
            return
        changed = _values_between(self.draft.model, scaled, readers)
        for mine, theirs in ((self._histograms, other._histograms), (self._means, other._means)):
            mine |= {name: look for name, look in theirs.items() if name in mine and name not in changed}
        self._outputs = other._outputs
        if self._layers is not None and other._layers is not None:
            adopted = self._layers.adopt(other._layers, changed, {*scaled, *readers})
            before = {id(look.observer): look.reached for look in other._rows}
            for look in self._rows:
                look.reached = before.get(id(adopted.get(id(look.observer))), 0)

    @property
    def outputs(self) -> list[dict[str, Array]]:
        """The float outputs of the model, for every second feed of a sketch, or for each of fewer than that has; none
        where samples came together."""
        if any(each.samples > each.seen for each in self._outputs.values()):
            return []
        kept = {name: each.arrays for name, each in self._outputs.items()}
        return [dict(zip(kept, arrays, strict=True)) for arrays in zip(*kept.values(), strict=True)]

    def roundings(self, few: Iterable[Feed] | None = None) -> dict[str, LayerRounding]:
        """How to round weights by what was seen. `few` samples run for layers whose sizes show only then."""
        if self._layers is None:
            return {}
        if few is not None:
            self._layers.observe_open(few)
        return self._layers.roundings(corrects=self._corrects)

    def _advance(self, looks: Collection[_Look], until: Stage, progress: Progress | None) -> None:
        new = [look for look in looks if not look.reached]
        later = [look for look in looks if look.reached == Stage.SKETCH]
        if until == Stage.SKETCH or (new and later):
            outputs = [_Look(name, kept) for name, kept in self._outputs.items() if not kept.arrays]
            self._take(self._turns())
            self._pass([*new, *outputs, *self._beside], self._chosen(self._first), progress)
            new, later, self._beside = [], [*new, *later], []
        if until == Stage.ALL and any(isinstance(look.observer, Histogram) for look in looks):
            self._pass(new, self._samples, progress)
            if self._total > len(self._first):
                self._pass(later, self._chosen(self._first, others=True), progress)
        elif until == Stage.ALL:
            self._take(None)
            self._pass(new, self._chosen(self._few), progress)
            if self._few - self._first:
                self._pass(later, self._chosen(self._few - self._first), progress)
        for look in looks:
            look.reached = max(look.reached, until)

    def _chosen(self, places: frozenset[int], *, others: bool = False) -> Chosen:
        return Chosen(self.draft.model, self._samples, places, others)

    def _take(self, places: frozenset[int] | None) -> None:
        if self._layers is not None:
            self._layers.take(places if self._total > SAMPLES else None)

    def _turns(self) -> frozenset[int]:
        """When those few samples have their turn that moments are from, where those of a sketch are the first."""
        others = (place for place in range(self._total) if place not in self._first)
        order = itertools.chain(sorted(self._first), others)
        return frozenset(turn for turn, place in enumerate(order) if place in self._few)

    def _pass(self, looks: Collection[_Look], feeds: Iterable[Feed], progress: Progress | None) -> None:
        observers = together((look.value, look.observer) for look in looks)
        known = isinstance(feeds, Chosen) and isinstance(feeds.feeds, Selectable)  # to look would read one
        if observers and (known or not self._total or next(iter(feeds), None) is not None):
            collect(self.draft.model, feeds, observers, progress=progress)


def _values_between(model: ir.Model, makers: Collection[str], readers: Collection[str]) -> set[str]:
    """The names of the values that follow from what some nodes make, up to what others make of them."""
    found: set[str] = set()
    for node in model.graph:
        follows = any(value is not None and value.name in found for value in node.inputs)
        if node.name in makers or (follows and node.name not in readers):
            found.update(str(value.name) for value in node.outputs)
    return found


def _histogram(look: _Look) -> Histogram:
    assert isinstance(look.observer, Histogram)
    return look.observer
