"""Structured pruning: groups of coupled channels, importance, selection, slicing, and the masked proof."""

from __future__ import annotations

from onnxqp.prune.dropping import drop_layers
from onnxqp.prune.magnitude import prune_filters, prune_magnitude
from onnxqp.prune.patterns import check_pattern, make_sparse
from onnxqp.prune.pruning import Plan, PruneResult, plan, prune_model

__all__ = [
    "Plan",
    "PruneResult",
    "check_pattern",
    "drop_layers",
    "make_sparse",
    "plan",
    "prune_filters",
    "prune_magnitude",
    "prune_model",
]
