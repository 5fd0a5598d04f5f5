"""A weight that several layers share is refitted for all of them at once, and stays one.

A head over the levels of a pyramid, two towers, a block of ALBERT that runs twelve times: a weight for each reader
would make the pruned file larger than the original. All readers are looked at before the first of them is refitted,
in the model as it is by then; each gets a bias of its own when its turn comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxqp.axes import Cut
from onnxqp.recover.clipped import Row
from onnxqp.recover.layers import Layer
from onnxqp.recover.least_squares import refit
from onnxqp.recover.pairs import Pairs
from onnxqp.recover.walk import Arrays, Walk
from onnxqp.runtime import Session
from onnxqp.specs import Feed


def sharing(layers: Sequence[Layer]) -> dict[ir.Node, list[Layer]]:
    """For every layer whose weight something else reads too, the layers that read it, in order; none where the weight
    cannot be refitted: some reader is not among the `layers`, or reads it in another way."""
    readers: dict[ir.Value, list[Layer]] = {}
    for layer in layers:
        value = layer.node.inputs[layer.contraction.weight]
        if value is not None:
            readers.setdefault(value, []).append(layer)
    found: dict[ir.Node, list[Layer]] = {}
    for value, sharers in readers.items():
        if len(value.uses()) > 1:
            forms = {(type(layer.contraction), layer.matrix().shape) for layer in sharers}
            whole = len(forms) == 1 and len(sharers) == len(value.uses()) and not value.is_graph_output()
            found |= {layer.node: sharers if whole else [] for layer in sharers}
    return found


@dataclass(frozen=True)
class Together:
    """What a common refit looks at; the fields are those of `recover_model`."""

    model: ir.Model
    original: ir.Model
    cuts: Sequence[Cut]
    ours: Walk
    theirs: Walk
    samples: Sequence[Feed]
    seed: int

    def refit(self, sharers: Sequence[Layer]) -> bool:
        """Refit the weight that these layers share, in place; False where nothing is gained, or one is not found."""
        sources = [self.theirs.node(layer.node.name or "") for layer in sharers]
        count = len(self.samples)
        pairs = [
            Pairs(layer, source, self.cuts, self.ours, self.theirs, count, self.seed)
            for layer, source in zip(sharers, sources, strict=True)
            if source is not None
        ]
        if len(pairs) < len(sharers):
            return False
        first = pairs[0]
        first.clipping = None  # rows are looked at once
        fit, held = first.moments(self._rows(pairs))
        least = max(each.least for each in pairs)
        found = refit(fit, held, first.layer.matrix(), first.layer.bias(), least=least)
        if found.kind != "least-squares":
            return False
        first.layer.set_shared(found.matrix)
        return True

    def _rows(self, pairs: Sequence[Pairs]) -> Iterator[tuple[int, Row]]:
        mine, before = (
            (Session(model, taps=names, brief=True), names)
            for model, names in (
                (self.model, _names(self.model, [value for each in pairs for value in each.entering])),
                (self.original, _names(self.original, [value for each in pairs for value in each.leaving])),
            )
        )
        for number, feed in enumerate(self.samples):
            found, expected = (_values(session, names, feed) for session, names in (mine, before))
            for each in pairs:
                yield number, each.row(found, expected)


def _names(model: ir.Model, values: Sequence[ir.Value]) -> list[str]:
    given = {value.name for value in model.graph.inputs}
    return list(dict.fromkeys(str(value.name) for value in values if value.name not in given))


def _values(session: Session, names: Sequence[str], feed: Feed) -> Arrays:
    return dict(feed) | session.run(feed, names)
