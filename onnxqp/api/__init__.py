"""The public functions: one per command, each from models and options to a report.

    result = onnxqp.quantize("model.onnx", data="calib.npz")
    result.model    the new model (an onnx_ir.Model), already verified
    result.report   what was done and what it is worth

A model is a path, an `onnx_ir.Model` or an `onnx.ModelProto`. Given a path, `quantize` and `prune` write their result
beside it (or to `write.output`); given a model in memory and no output, they write nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxqp.api.judging import bench, debug, sensitivity, validate
    from onnxqp.api.looking import doctor, inspect, operators
    from onnxqp.api.pruning import compress, prune
    from onnxqp.api.quantizing import calibrate, quantize
    from onnxqp.job import Result

__all__ = [
    "Result",
    "bench",
    "calibrate",
    "compress",
    "debug",
    "doctor",
    "inspect",
    "operators",
    "prune",
    "quantize",
    "sensitivity",
    "validate",
]

_HOMES = {
    "onnxqp.api.judging": ("bench", "debug", "sensitivity", "validate"),
    "onnxqp.api.looking": ("doctor", "inspect", "operators"),
    "onnxqp.api.pruning": ("compress", "prune"),
    "onnxqp.api.quantizing": ("calibrate", "quantize"),
    "onnxqp.job": ("Result",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Imported when first used: a command that quantizes need not wait for what prunes."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value
