"""Structured pruning: groups of coupled channels, importance, selection, slicing, and the masked proof."""

from __future__ import annotations

from onnxqp.prune.magnitude import prune_filters, prune_magnitude
from onnxqp.prune.pruning import Plan, PruneResult, plan, prune_model

__all__ = ["Plan", "PruneResult", "plan", "prune_filters", "prune_magnitude", "prune_model"]
