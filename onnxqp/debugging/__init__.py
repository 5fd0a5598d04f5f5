"""Where a candidate goes wrong, value by value, and why."""

from __future__ import annotations

from onnxqp.debugging.tracing import Trace, closest, trace, with_shapes

__all__ = ["Trace", "closest", "trace", "with_shapes"]
