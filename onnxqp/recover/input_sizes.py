"""How large what each weight multiplies is: weight times that is what Wanda scores single weights by."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from onnxqp.ops import rule_for
from onnxqp.recover.layers import Layer
from onnxqp.recover.sampling import affordable, choose_positions
from onnxqp.recover.scoring import BUDGET, FloatArray
from onnxqp.recover.walk import Walk
from onnxqp.specs import Feed


def element_scores(model: ir.Model, feeds: Iterable[Feed], *, seed: int = 0) -> dict[str, FloatArray]:
    """|weight| times the root mean square of its input, by the name of the weight, for layers that are matrix products
    with a constant (Sun et al. 2023, A Simple and Effective Pruning Approach for Large Language Models)."""
    samples = affordable(feeds, BUDGET)
    random = np.random.default_rng(seed)
    walk = Walk(model, samples, budget=BUDGET)
    found: dict[str, FloatArray] = {}
    for node in walk.order:
        contraction = rule_for(node).contraction(node)
        value = None if contraction is None else node.inputs[contraction.weight]
        if contraction is None or value is None or not value.is_initializer() or value.name in found:
            continue
        layer = Layer(node, contraction, None)
        squares, count = np.zeros(layer.matrix().shape[:2]), 0
        for arrays in walk.run(node, [layer.data, layer.output], through=True):
            shape = arrays[str(layer.output.name)].shape
            chosen = choose_positions(layer, contraction.positions(shape), len(samples), random)
            rows = contraction.rows(arrays[str(layer.data.name)], shape, chosen)
            squares += np.square(rows, dtype=np.float64).sum(axis=1)
            count += rows.shape[1]
        size = np.sqrt(squares / max(count, 1))
        scores = np.abs(layer.matrix()) * size[:, :, None]
        found[str(value.name)] = np.abs(contraction.weight_of(scores, layer.weight().shape))
    return found
