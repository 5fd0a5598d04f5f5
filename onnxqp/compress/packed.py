"""The last lever: weights of a quantized candidate in four bits each, at the same speed.

Weights go in the order of the noise that each adds at the outputs for every byte it saves, and how many go is found by
bisection on the samples held back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxqp.measurements import Measurements
from onnxqp.model import to_bytes
from onnxqp.quantize.packing import Packing
from onnxqp.quantize.preparation import evenly
from onnxqp.quantize.quality import Probe
from onnxqp.specs import Feed

TRIED = 64  # weights that are tried, the largest
PROBED = 8  # samples that order them


@dataclass(frozen=True)
class Order:
    """The weights of one model, those that cost least first."""

    packing: Packing
    names: tuple[str, ...]

    def model(self, count: int) -> ir.Model:
        """With so many of them packed."""
        return self.packing.build(self.names[:count])

    def most(self, keeps: Callable[[ir.Model], bool]) -> int:
        """How many can be packed while `keeps` holds, which is taken to hold for fewer where it does for more."""
        holds, fails, tried = 0, len(self.names) + 1, len(self.names)
        while fails - holds > 1:
            if keeps(self.model(tried)):
                holds = tried
            else:
                fails = tried
            tried = (holds + fails) // 2
        return holds

    def enough(self, most_bytes: int) -> int | None:
        """How many it takes for a file of so many bytes; None where that cannot be."""
        if len(to_bytes(self.model(len(self.names)))) > most_bytes:
            return None
        fails, holds = -1, len(self.names)
        while holds - fails > 1:
            middle = (holds + fails) // 2
            if len(to_bytes(self.model(middle))) <= most_bytes:
                holds = middle
            else:
                fails = middle
        return holds


def order_weights(model: ir.Model, few: Sequence[Feed], measured: Measurements) -> Order:
    """By what packing each alone does to the outputs on these samples, which show what layers read, too."""
    packing = Packing(model, few)
    largest = sorted(packing.weights.values(), key=lambda weight: -weight.saved)[:TRIED]
    probe = Probe(model, evenly(few, PROBED), measured)
    cost = {
        each.name: probe.noise_of(packing.build([each.name])) / each.saved
        for each in largest
        if packing.packed(each.name) is not None
    }
    return Order(packing, tuple(sorted(cost, key=lambda name: cost[name])))
