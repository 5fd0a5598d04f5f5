"""Faults of a model that loads: attributes that contradict their node, weights that are no numbers, values too large.

onnx's checker passes them; onnxruntime finds the first only when it runs, the second never, the third too late.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxqp.errors import ModelError, ResourceError
from onnxqp.graph import constant, dims, iterate
from onnxqp.ops import rule_for
from onnxqp.probe import available_memory
from onnxqp.specs import Compute


def check_nodes(model: ir.Model, path: Path | None) -> None:
    """Raise ModelError for a node whose attributes or weights cannot be right."""
    for node in iterate(model):
        fault = rule_for(node).fault(node)
        if fault is not None:
            raise ModelError(
                f"node {node.name or node.outputs[0].name!r} ({node.op_type}) is broken: {fault}",
                where=None if path is None else str(path),
                hint="the model was written or edited badly: export it again",
            )


def check_weights(model: ir.Model, path: Path | None) -> None:
    """Raise ModelError for a NaN in any tensor of the model, or an infinity in one that is multiplied or added.

    A lone infinity elsewhere may be meant, as in a mask or a bound.
    """
    computing = set(_operands(model))
    for graph in model.graphs():
        for value in graph.initializers.values():
            bad = _bad_elements(value, infinite=value in computing)
            if bad is not None:
                first, count, size = bad
                raise ModelError(
                    f"tensor {value.name!r} holds {count} NaN or infinite of {size} values, the first at {first}",
                    where=None if path is None else str(path),
                    hint="the model was saved broken, for example after a training that diverged: export it again",
                )


def check_sizes(model: ir.Model, path: Path | None) -> None:
    """Raise ResourceError for a value that alone would not fit into memory, at batch 1."""
    free = available_memory()
    for node in model.graph:
        for value in node.outputs:
            size = math.prod(size or 1 for size in dims(value) or ()) * _element_bytes(value)
            if free is not None and size > free:
                raise ResourceError(
                    f"node {node.name!r} ({node.op_type}) makes a value of {size / 1e9:.1f} GB, and only "
                    f"{free / 1e9:.1f} GB of memory are free",
                    where=None if path is None else str(path),
                    hint="fix smaller sizes when exporting the model, or use a machine with more memory",
                )


def _element_bytes(value: ir.Value) -> float:
    unknown = value.dtype in (None, ir.DataType.UNDEFINED, ir.DataType.STRING)
    return 8 if value.dtype is None or unknown else value.dtype.itemsize


def _operands(model: ir.Model) -> Iterator[ir.Value]:
    """The weights and biases of arithmetic."""
    for node in model.graph:
        role = rule_for(node).quantization(node)
        if isinstance(role, Compute):
            for index in (None if role.weight is None else role.weight.index, role.bias):
                value = node.inputs[index] if index is not None and index < len(node.inputs) else None
                if value is not None:
                    yield value


def _bad_elements(value: ir.Value, *, infinite: bool) -> tuple[list[int], int, int] | None:
    """Index of the first, how many, of how many; None when all is well."""
    array = constant(value)
    if array is None or array.dtype.kind != "f" or not array.size:
        return None
    with np.errstate(all="ignore"):
        if np.isfinite(array.sum()):  # one pass in its own precision and no mask; too large a sum only looks closer
            return None
    bad = ~np.isfinite(array) if infinite else np.isnan(array)
    if not bad.any():
        return None
    first = np.unravel_index(int(bad.argmax()), array.shape)
    return [int(place) for place in first], int(bad.sum()), array.size
