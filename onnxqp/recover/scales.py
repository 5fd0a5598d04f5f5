"""Layers with too many inputs for their second moments: one factor and one bias for each output.

A first Gemm behind a Flatten may read tens of thousands of elements, of which the covariance takes gigabytes. What an
output was and what it is without the cut channels are two numbers for every row: their means and covariance are all
that the best factor and bias ask for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from onnxqp.recover.clipped import Array, Row
from onnxqp.recover.layers import FloatArray
from onnxqp.recover.least_squares import Refit, refit
from onnxqp.recover.pairs import Pairs


def rescaled(pairs: Pairs, matrix: FloatArray, bias: FloatArray, *, fixed: bool = False) -> Refit:
    """The refit of a layer with weight `matrix` `[groups, inputs, outputs]` and `bias` `[groups, outputs]`, judged on
    held-out rows as any; its kind is "bias". Memory: a few numbers for each output."""
    groups, _, outputs = matrix.shape
    pairs.clipping = None  # rows are looked at once
    fit, held = pairs.moments(_outputs(pairs.rows(), matrix))
    ones = np.ones((groups * outputs, 1, 1))
    found = refit(fit, held, ones, bias.reshape(-1, 1), kind="bias", fixed=fixed)
    return Refit(
        matrix * found.matrix.reshape(groups, 1, outputs),
        found.bias.reshape(groups, outputs),
        found.kind,
        found.before,
        found.after,
        reweighted=found.reweighted,
    )


def _outputs(rows: Iterable[tuple[int, Row]], matrix: FloatArray) -> Iterator[tuple[int, Row]]:
    """Rows with what the layer makes of its inputs, output by output, in place of the inputs."""
    for number, (x, y, added) in rows:
        made: Array = x @ matrix.astype(x.dtype)
        one, two, three = (array.transpose(0, 2, 1).reshape(-1, array.shape[1], 1) for array in (made, y, added))
        yield number, (one, two, three)
