"""Work saved at places of an image instead of channels: which ways there are, and the proof of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import onnx_ir as ir

from onnxqp.errors import VerificationError
from onnxqp.model import parameters
from onnxqp.options import Selection
from onnxqp.prune.budgets import count_macs
from onnxqp.prune.margins import margins
from onnxqp.prune.perforate import perforations
from onnxqp.prune.proof import prove, random_feeds
from onnxqp.prune.pruning import runnable
from onnxqp.report.records import Pruning
from onnxqp.specs import Feed


class Way(Protocol):
    """Every second place of what is averaged (`perforate`), or less of the image (`margins`)."""

    def of(self, model: ir.Model) -> ir.Model:
        """A copy of a model, or of one that was cut from it, that computes at those places only."""

    def asked_of(self, model: ir.Model) -> ir.Model:
        """What that must equal."""

    def recorded(self, pruning: Pruning, cost: float) -> Pruning:
        """The record with this way in it. `cost`: squared error of the worst output relative to its squared signal."""

    @property
    def warning(self) -> str | None:
        """What a user must know, if anything."""


def ways_of(model: ir.Model, selection: Selection | None = None, *, real: bool = False) -> list[Way]:
    """The ways to compute a normalised model at fewer places that save something. `real`: samples are the user's, and
    may judge what the margin of an image is worth."""
    return [*perforations(model, selection), *(margins(model, selection) if real else [])]


def at_fewer_places(
    model: ir.Model, way: Way, feeds: Sequence[Feed], groups: Pruning, cost: float, seed: int = 0
) -> tuple[ir.Model, Pruning]:
    """The model with fewer places, proven on `feeds` and random inputs like them, and the record of it.

    `groups` is the record of a plan that cuts no channel; `cost`: see `Way.recorded`. Raises VerificationError.
    """
    done = way.of(model)
    proof = prove(way.asked_of(model), done, [*feeds, *runnable(model, random_feeds(feeds[:2], seed))])
    if not proof.checked:
        raise VerificationError(
            f"the model with fewer places cannot be proven: {proof.skipped_reason}",
            hint="this is worth a bug report; --exclude leaves nodes alone",
        )
    macs, size = count_macs(model), parameters(model)
    record = Pruning(
        channels_before=groups.channels_before,
        channels_after=groups.channels_before,
        macs_ratio=count_macs(done) / macs if macs else None,
        params_ratio=parameters(done) / size if size else 1.0,
        groups=groups.groups,
        pinned=groups.pinned,
        proof=proof,
    )
    return done, way.recorded(record, cost)
