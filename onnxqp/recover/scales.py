"""Layers with too many inputs for their second moments: one map of channels, one factor and one bias for each output.

A first Gemm behind a Flatten may read tens of thousands of elements, of which the covariance takes gigabytes. What an
output was and what it is without the cut channels are two numbers for every row: their means and covariance are all
that the best factor and bias ask for. The same numbers judge whether the lost channels are better read from those that
are left (`channels`): the heads of VGG and AlexNet, mostly. Error at the outputs of a VGG for digits that lost 40 % of
its channels, 16 and 256 samples: 0.046 and 0.023 with factors and biases, 0.029 and 0.014 with the map, 0.116 and 0.021
with the covariance of all inputs; means of each place apart gain nothing over one for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from onnxqp.recover.channels import by_channels
from onnxqp.recover.clipped import Array, Row
from onnxqp.recover.layers import FloatArray
from onnxqp.recover.least_squares import WORTH, Refit, refit
from onnxqp.recover.pairs import Pairs


def refit_wide(pairs: Pairs, *, mixed: bool, fixed: bool) -> tuple[Refit, str]:
    """The refit of a layer, by channels too where that is `mixed`, and what it is. A `fixed` weight stays."""
    matrix, said = by_channels(pairs) if mixed and not fixed else (None, "")
    plain, *others = rescaled(pairs, [pairs.layer.matrix(), *([] if matrix is None else [matrix])], fixed=fixed)
    for other in others:
        if other.after < plain.after * (1 - WORTH):
            return replace(other, kind="least-squares", reweighted=True), said
        said = "another mix of its channels helps no more"
    return plain, "scale and bias only" + (f" ({said})" if said else "")


def rescaled(pairs: Pairs, matrices: Sequence[FloatArray], *, fixed: bool = False) -> list[Refit]:
    """The refits of a layer with each of the weights `[groups, inputs, outputs]`, judged on held-out rows as any; their
    kind is "bias". Memory: a few numbers for each output, and the weights."""
    groups, _, outputs = matrices[0].shape
    pairs.clipping = None  # rows are looked at once
    fit, held = pairs.moments(_outputs(pairs.rows(), matrices))
    size, bias = groups * outputs, pairs.layer.bias().reshape(-1, 1)
    ones, found = np.ones((size, 1, 1)), list[Refit]()
    for number, matrix in enumerate(matrices):
        own = slice(number * size, (number + 1) * size)
        scaled = refit(fit.part(own), held.part(own), ones, bias, kind="bias", fixed=fixed)
        factors, shift = scaled.matrix.reshape(groups, 1, outputs), scaled.bias.reshape(groups, outputs)
        found.append(replace(scaled, matrix=matrix * factors if scaled.reweighted else matrix, bias=shift))
    return found


def _outputs(rows: Iterable[tuple[int, Row]], matrices: Sequence[FloatArray]) -> Iterator[tuple[int, Row]]:
    """Rows with what the layer would make of its inputs, output by output and weight by weight, instead of them."""
    single = list[Array]()
    for number, (x, y, added) in rows:
        single = single or [matrix.astype(x.dtype) for matrix in matrices]
        made = np.concatenate([x @ matrix for matrix in single])
        one, two, three = (
            np.tile(array, (len(made) // len(array), 1, 1)).transpose(0, 2, 1).reshape(-1, array.shape[1], 1)
            for array in (made, y, added)
        )
        yield number, (one, two, three)
