"""How much to cut for a budget: a share of the multiply-accumulates, the parameters or the measured time to keep.

Costs do not follow a ratio linearly (channels are rounded, layers lie between two cut ones), so the ratio is found by
trial (`latency`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from onnxqp.errors import UsageError
from onnxqp.evaluate.latency import Effort, measure
from onnxqp.measurements import Measurements
from onnxqp.model import parameters
from onnxqp.ops import rule_for
from onnxqp.options import PruneOptions
from onnxqp.runtime import Session
from onnxqp.specs import Feed

Clock: TypeAlias = Callable[[ir.Model], float]  # time of a model as a share of the original's
Share: TypeAlias = Callable[[ir.Model], float]

SMALL = 0.05  # of the multiply-accumulates that a cut saves: cuts that together save less are doubted...
SAME = 0.01  # ...and are not made where the model is no slower without them, but for this share
DOUBTS = 3  # measurements for that
QUICK = Effort(warmup_runs=2, warmup_seconds=0.05, min_runs=15, min_seconds=0.3, floor_runs=7, max_seconds=4.0)


@dataclass(frozen=True)
class Budget:
    """`wanted`: the share to keep; `share` tells it of a pruned model. `option` names it to the user."""

    option: str
    wanted: float
    share: Share
    timed: bool = False


def budget_of(options: PruneOptions, model: ir.Model, clock: Clock | None) -> Budget | None:
    """What `options` ask for, of a normalised model; None for a ratio or a threshold. Raises UsageError."""
    if options.macs_ratio is not None:
        macs = count_macs(model) or 1
        return Budget("--macs-ratio", options.macs_ratio, lambda pruned: count_macs(pruned) / macs)
    if options.params_ratio is not None:
        size = parameters(model) or 1
        return Budget("--params-ratio", options.params_ratio, lambda pruned: parameters(pruned) / size)
    if options.latency_ratio is not None:
        if clock is None:
            raise UsageError("--latency-ratio needs inputs to measure with", hint="pass samples, or another budget")
        return Budget("--latency-ratio", options.latency_ratio, clock, timed=True)
    return None


def wall_clock(
    model: ir.Model, feeds: Sequence[Feed], *, threads: int = 1, measured: Measurements | None = None
) -> Clock:
    """Times pruned models against `model`, interleaved on the same feeds; the lower quartile of each counts.

    `measured` keeps what the clock said, or gives back what it said in an earlier run.
    """
    known = measured or Measurements()

    @functools.cache
    def baseline() -> Session:
        return Session(model, threads=threads)

    def share(pruned: ir.Model) -> float:
        def race() -> list[float]:
            times = measure([baseline(), Session(pruned, threads=threads)], feeds, effort=QUICK)
            ours, theirs = (float(np.quantile(each, 0.25)) for each in times)
            return [theirs / ours if ours else 1.0]

        (found,) = known.of("share of the time", race, 1)
        return found

    return share


def count_macs(model: ir.Model) -> int:
    """Multiply-accumulates of one inference; symbolic dimensions count once."""
    return sum(rule_for(node).macs(node) for graph in model.graphs() for node in graph)
