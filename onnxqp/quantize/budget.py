"""The fastest model within a budget of accuracy: blocks return to float, the dearest first, until the budget is kept.

The order is that of `returning`, noise for each nanosecond on calibration samples. How far down that list is found by
bisection, so a list of n blocks takes about log2(n) evaluations, not n.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from onnxqp.quantize.candidate import Candidate
from onnxqp.quantize.placement import Trial
from onnxqp.quantize.returning import by_rank, rebuilt, sensitivities, sensitivities_at_run

REASON = "returned to float to keep the budget"


@dataclass(frozen=True)
class Tried:
    """One candidate on the way: layers left on integers, the speed-up that the costs predict, the verdict."""

    integers: int
    speedup: float
    kept: bool


def keep(trial: Trial, keeps: Callable[[ir.Model], bool]) -> tuple[Candidate | None, list[Tried]]:
    """The candidate with the fewest blocks returned for which `keeps` holds, and all that were tried, in order.

    None when not even the model in float, with its weights stored as int8, keeps the budget. `keeps` is taken to hold
    for more blocks where it holds for fewer; the first candidate, `trial.placement`, is known not to keep it.
    """
    placement, path = trial.placement, list[Tried]()
    material, costs, first = trial.material, placement.costs, placement.candidate
    if not first.layers:
        return None, path

    def attempt(names: list[str]) -> Candidate | None:
        candidate = rebuilt(material, costs, first, names, REASON)
        kept = keeps(candidate.model)
        path.append(Tried(candidate.layers, trial.speedup(candidate), kept))
        return candidate if kept else None

    blocks = sensitivities_at_run(material, costs, first, trial.probe)
    if first.decision.integer:
        blocks += sensitivities(material, costs, first.decision, placement.noise, trial.probe)
    blocks = by_rank(blocks)
    fails, holds, found = 0, len(blocks) + 1, None
    while holds - fails > 1:
        middle = (fails + holds) // 2
        names = [name for block in blocks[:middle] for name in block.nodes]
        candidate = attempt(names)
        if candidate is None:
            fails = middle
        else:
            holds, found = middle, candidate
    return found, path
