"""onnxqp: make a trained ONNX model smaller and faster, from one command, with proof.

The public names are those of `__all__`. They are imported when first used, so that `import onnxqp` and the help of the
command line cost nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
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
    from onnxqp.options import (
        DataOptions,
        Gates,
        MeasureOptions,
        PruneOptions,
        QuantizeOptions,
        Selection,
        WriteOptions,
    )
    from onnxqp.report.records import Report

_HOMES = {
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
    "onnxqp.options": (
        "DataOptions",
        "Gates",
        "MeasureOptions",
        "PruneOptions",
        "QuantizeOptions",
        "Selection",
        "WriteOptions",
    ),
    "onnxqp.report.records": ("Report",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
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
    "Report",
    "ResourceError",
    "Selection",
    "UnsupportedError",
    "UsageError",
    "VerificationError",
    "WriteOptions",
    "__version__",
]


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'onnxqp' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
