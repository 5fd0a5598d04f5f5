"""Clean up a graph before anything else looks at it.

After `normalize` every pass may rely on: no functions, no Constant nodes, weights in initializers that no caller can
override, constants folded (also what shapes alone decide), per-channel scales and shifts folded into the layer before,
unique names, topological order, no dead nodes, and every shape and type known that inference can find.
"""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as common

from onnxqp.graph import put_in_order
from onnxqp.normalize.affine import fold_affine
from onnxqp.normalize.cleanup import (
    forget_origins,
    inputs_are_no_weights,
    lift_constants,
    name_everything,
    remove_dead,
    remove_pass_through,
)
from onnxqp.normalize.fold import fold_constants
from onnxqp.normalize.opset import raise_opset, unflatten
from onnxqp.normalize.sampling import settle_open_shapes
from onnxqp.normalize.shapes import fold_shape_values, infer_shapes
from onnxqp.normalize.unit_axes import fuse_unit_axes
from onnxqp.normalize.vectors import own_vectors
from onnxqp.specs import Note

_ROUNDS = 64  # shapes found in one round let the next fold more: a chain of computed paddings needs one for each


def normalize(model: ir.Model) -> list[Note]:
    """Normalise `model` in place; returns what a user should know of it."""
    notes: list[Note] = []
    if model.functions:
        common.InlinePass()(model)
    forget_origins(model)
    notes += inputs_are_no_weights(model)
    put_in_order(model)
    name_everything(model)
    notes += raise_opset(model)
    lift_constants(model)
    remove_pass_through(model)
    _settle(model)
    if unflatten(model):
        remove_dead(model)
    if settle_open_shapes(model, _settle):
        _settle(model)
    changed = fuse_unit_axes(model)
    changed |= fold_affine(model)
    if changed:
        remove_dead(model)
    changed |= remove_pass_through(model)
    if changed:
        infer_shapes(model)
    put_in_order(model)
    own_vectors(model)
    name_everything(model)
    return notes


def _settle(model: ir.Model) -> None:
    """Infer shapes and fold what they decide, until nothing changes."""
    for _ in range(_ROUNDS):
        infer_shapes(model)
        changed = fold_shape_values(model)
        changed |= fold_constants(model)
        remove_dead(model)
        if not changed:
            break
