"""onnxqp: make a trained ONNX model smaller and faster, from one command, with proof.

    import onnxqp
    result = onnxqp.quantize("model.onnx", data="calib.npz")
    result.report.size.ratio

The public names are those of `__all__`. They are imported when first used, so that `import onnxqp` and the help of the
command line cost nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from onnxqp.api import (
        bench,
        calibrate,
        compress,
        debug,
        doctor,
        inspect,
        operators,
        prune,
        quantize,
        sensitivity,
        validate,
    )
    from onnxqp.elementary import QuantizedWeight, prune_and_quantize
    from onnxqp.errors import (
        DataError,
        InternalError,
        ModelError,
        OnnxqpError,
        OutputError,
        ResourceError,
        UnsupportedError,
        UsageError,
        VerificationError,
    )
    from onnxqp.model import load, save
    from onnxqp.options import (
        CalibrateOptions,
        CompressOptions,
        DataOptions,
        Gates,
        MeasureOptions,
        PruneOptions,
        QuantizeOptions,
        Selection,
        WriteOptions,
    )
    from onnxqp.prune.magnitude import prune_filters, prune_magnitude
    from onnxqp.quantize.arithmetic import dequantize_linear, quantize_linear, scale_and_zero_point
    from onnxqp.report.records import Report

__all__ = [
    "CalibrateOptions",
    "CompressOptions",
    "DataError",
    "DataOptions",
    "Gates",
    "InternalError",
    "MeasureOptions",
    "ModelError",
    "OnnxqpError",
    "OutputError",
    "PruneOptions",
    "QuantizeOptions",
    "QuantizedWeight",
    "Report",
    "ResourceError",
    "Result",
    "Selection",
    "UnsupportedError",
    "UsageError",
    "VerificationError",
    "WriteOptions",
    "__version__",
    "bench",
    "calibrate",
    "compress",
    "debug",
    "dequantize_linear",
    "doctor",
    "inspect",
    "load",
    "operators",
    "prune",
    "prune_and_quantize",
    "prune_filters",
    "prune_magnitude",
    "quantize",
    "quantize_linear",
    "save",
    "scale_and_zero_point",
    "sensitivity",
    "validate",
]

_HOMES = {
    "onnxqp.api": (
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
    ),
    "onnxqp.elementary": ("QuantizedWeight", "prune_and_quantize"),
    "onnxqp.errors": (
        "DataError",
        "InternalError",
        "ModelError",
        "OnnxqpError",
        "OutputError",
        "ResourceError",
        "UnsupportedError",
        "UsageError",
        "VerificationError",
    ),
    "onnxqp.job": ("Result",),
    "onnxqp.model": ("load", "save"),
    "onnxqp.options": (
        "CalibrateOptions",
        "CompressOptions",
        "DataOptions",
        "Gates",
        "MeasureOptions",
        "PruneOptions",
        "QuantizeOptions",
        "Selection",
        "WriteOptions",
    ),
    "onnxqp.prune.magnitude": ("prune_filters", "prune_magnitude"),
    "onnxqp.quantize.arithmetic": ("dequantize_linear", "quantize_linear", "scale_and_zero_point"),
    "onnxqp.report.records": ("Report",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'onnxqp' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """`onnxqp.quantize`, `prune` and `compress` are functions, though rooms of the package bear the same names.

    The import system would put the room in the function's place; `from onnxqp.quantize import …` works all the same.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in _HOME):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
