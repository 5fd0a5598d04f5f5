"""Dimensions that are fixed whatever the sizes of the inputs, found by trying sizes.

Symbolic shape inference loses track of a name where two meet by broadcasting, and with it the product that would tell
what a -1 in a Reshape stands for. Inference with numbers does not: so every symbolic input dimension is set to a
number, twice, to different ones, and an open dimension of a Reshape that comes out the same both times is fixed.
Pruning needs it where heads are merged.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import onnx_ir as ir

from onnxqp import ops
from onnxqp.graph import FOLDED
from onnxqp.model import clone

_UNITS = (32, 1024)  # networks with skip connections want image sides that halve evenly; signals are long
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)


def settle_open_shapes(model: ir.Model, infer: Callable[[ir.Model], None]) -> bool:
    """Write down dimensions that stay open in symbolic inference; `infer` fills in the shapes of a model in place.

    Only of operators whose record asks for it (`open_shape`). Returns whether any was found.
    """
    wanted = [node.outputs[0] for node in model.graph if ops.rule_for(node).open_shape and _unknown(node.outputs[0])]
    if not wanted:
        return False
    for unit in _UNITS:
        found = [_shapes(model, wanted, infer, unit, _PRIMES), _shapes(model, wanted, infer, unit, _PRIMES[1:])]
        if not any(0 in shape for shapes in found for shape in shapes.values()):
            break  # nothing shrank to nothing on its way through strides and kernels
    changed = False
    for value in wanted:
        one, other = (shapes.get(value.name or "") for shapes in found)
        if value.shape is None or one is None or other is None or not len(one) == len(other) == len(value.shape):
            continue
        settled = [
            a if not isinstance(size, int) and isinstance(a, int) and a > 0 and a == b else size
            for size, a, b in zip(value.shape, one, other, strict=True)
        ]
        if settled != list(value.shape):
            value.shape = ir.Shape(settled)
            changed = True
    return changed


def _unknown(value: ir.Value) -> bool:
    return value.shape is not None and any(not isinstance(size, int) for size in value.shape)


def _shapes(
    model: ir.Model, wanted: Sequence[ir.Value], infer: Callable[[ir.Model], None], unit: int, factors: Sequence[int]
) -> dict[str, ir.Shape]:
    """Shapes of the wanted values when every symbolic input dimension is a number of its own."""
    trial = clone(model)
    numbers = itertools.cycle(factors)
    size_of: dict[str, int] = {}
    for value in trial.graph.inputs:
        if value.shape is not None:
            names = [
                size if isinstance(size, int) else size.value or f"{value.name}.{axis}"
                for axis, size in enumerate(value.shape)
            ]
            for name in names:
                if isinstance(name, str) and name not in size_of:
                    size_of[name] = next(numbers) * unit
            value.shape = ir.Shape([size_of[name] if isinstance(name, str) else name for name in names])
    names_wanted = {value.name for value in wanted}
    infer(trial)
    made = {output.name or "": output.shape for node in trial.graph for output in node.outputs}
    folded = {(name or "").removesuffix(FOLDED): value.shape for name, value in trial.graph.initializers.items()}
    return {name: shape for name, shape in (folded | made).items() if name in names_wanted and shape is not None}
