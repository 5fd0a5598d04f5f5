"""Recovery without training: layers are refitted to the original from second moments of unlabelled samples."""

from __future__ import annotations

from onnxqp.recover.iterate import (
    Pruner,
    Recovered,
    Stage,
    channel_scorer,
    may_perforate,
    plan_with_samples,
    prune_and_recover,
    recovery_kind,
    settled,
)
from onnxqp.recover.reconstruct import Refitted, recover_model
from onnxqp.recover.unseen import kinds_of

__all__ = [
    "Pruner",
    "Recovered",
    "Refitted",
    "Stage",
    "channel_scorer",
    "kinds_of",
    "may_perforate",
    "plan_with_samples",
    "prune_and_recover",
    "recover_model",
    "recovery_kind",
    "settled",
]
