"""Recovery without training: layers are refitted to the original from second moments of unlabelled samples."""

from __future__ import annotations

from onnxqp.recover.iterate import (
    Pruner,
    Recovered,
    Stage,
    places_count,
    plan_with_samples,
    prune_and_recover,
    recovery_kind,
    settled,
)
from onnxqp.recover.reconstruct import Refitted, recover_model
from onnxqp.recover.scorers import channel_scorer
from onnxqp.recover.unseen import kinds_of

__all__ = [
    "Pruner",
    "Recovered",
    "Refitted",
    "Stage",
    "channel_scorer",
    "kinds_of",
    "places_count",
    "plan_with_samples",
    "prune_and_recover",
    "recover_model",
    "recovery_kind",
    "settled",
]
