"""Prune, recover and quantize in one run: which combination is kept, and by what it is judged."""

from __future__ import annotations

from onnxqp.compress.candidates import Candidate
from onnxqp.compress.explanation import explained
from onnxqp.compress.goal import Goal, goal_of
from onnxqp.compress.judging import HeldBack, rare_kinds, split
from onnxqp.compress.pace import Pace
from onnxqp.compress.search import Found, Search

__all__ = ["Candidate", "Found", "Goal", "HeldBack", "Pace", "Search", "explained", "goal_of", "rare_kinds", "split"]
