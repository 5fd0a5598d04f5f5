"""Fold a per-channel scale and shift (BatchNormalization, Mul, Add with constants) into the layer before it.

For y = a (W x + b) + c: W' = a W and b' = a b + c, a running over the output channels. Exact up to rounding, done in
float64. What training made of a BatchNormalization's scales is kept for pruning to look at, in the model's meta.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxqp import ops
from onnxqp.graph import SCALES
from onnxqp.normalize.cleanup import bypass, can_bypass


def fold_affine(model: ir.Model) -> bool:
    """Fold wherever the layer's output has no other reader; True when anything was folded."""
    changed = False
    for node in list(model.graph):
        affine = ops.rule_for(node).affine(node)
        source = None if affine is None else node.inputs[affine.data]
        layer = None if source is None else source.producer()
        if affine is None or source is None or layer is None or layer.graph is not node.graph:
            continue
        if len(source.uses()) != 1 or source.is_graph_output() or not can_bypass(node, source):
            continue
        if not ops.rule_for(layer).absorb(layer, affine):
            continue
        scale = ops.rule_for(node).learned_scale(node)
        bypass(node, source)
        if scale is not None:
            model.meta.setdefault(SCALES, {})[source.name] = np.abs(scale)
        changed = True
    return changed
