"""onnxruntime's CPU execution provider: the only importer of onnxruntime."""

from __future__ import annotations

from onnxqp.runtime.installed import Ceilings, Cpu, ceilings, ceilings_hint, cpu, versions
from onnxqp.runtime.refusals import doubtful, refused
from onnxqp.runtime.running import RunningNode, all_nodes, open_and_look, optimized_graph
from onnxqp.runtime.session import AHEAD_TWICE_BYTES, Session, Signature, Source, as_array, utf8_name

__all__ = [
    "AHEAD_TWICE_BYTES",
    "Ceilings",
    "Cpu",
    "RunningNode",
    "Session",
    "Signature",
    "Source",
    "all_nodes",
    "as_array",
    "ceilings",
    "ceilings_hint",
    "cpu",
    "doubtful",
    "open_and_look",
    "optimized_graph",
    "refused",
    "utf8_name",
    "versions",
]
