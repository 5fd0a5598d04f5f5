"""Weights that a cut makes anew, in files where they are many: a model larger than memory is cut in little of it.

What lies in a mapped file is read where it lies and may leave memory at any time; what was computed may not. So the new
weights of a large model go to files without a name, which vanish with their last reader.
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.graph import tensor_bytes

LARGE = 256_000_000  # bytes of weights: below that, memory is faster and enough
SMALLEST = 1 << 20  # bytes of one tensor that is worth a file


def is_large(model: ir.Model) -> bool:
    """Whether a model has so many weights that copies of them belong in files."""
    values = (value for graph in model.graphs() for value in graph.initializers.values())
    return sum(tensor_bytes(value) for value in values) > LARGE


def spooled(array: npt.NDArray[Any], *, large: bool) -> npt.NDArray[Any]:
    """The same array, in a mapped file if `large` and it is worth one."""
    if not large or array.nbytes < SMALLEST or array.dtype.hasobject:
        return array
    with tempfile.TemporaryFile(prefix="onnxqp-") as file:
        mapped = np.memmap(file, array.dtype, mode="w+", shape=array.shape)
    mapped[...] = array
    return mapped
