"""The public functions: one per command, each from models and options to a report.

    result = onnxqp.quantize("model.onnx", data="calib.npz")
    result.model    the new model (an onnx_ir.Model), already verified
    result.report   what was done and what it is worth

A model is a path, an `onnx_ir.Model` or an `onnx.ModelProto`. Given a path, `quantize` and `prune` write their result
beside it (or to `write.output`); given a model in memory and no output, they write nothing.
"""

from __future__ import annotations

from onnxqp.api.judging import bench, debug, sensitivity, validate
from onnxqp.api.looking import doctor, inspect, operators
from onnxqp.api.rewriting import calibrate, compress, prune, quantize
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
