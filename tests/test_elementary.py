from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import onnxqp
from onnxqp.errors import UsageError


@given(
    seed=st.integers(0, 999),
    ratio=st.floats(0, 0.9),
    bits=st.integers(4, 16),
    symmetric=st.booleans(),
    axis=st.sampled_from([None, 0, 1]),
)
def test_pruned_elements_stay_zero_and_the_rest_within_half_a_step(
    seed: int, ratio: float, bits: int, symmetric: bool, axis: int | None
) -> None:
    weights = np.random.default_rng(seed).standard_normal((6, 5)).astype(np.float32)
    pruned = onnxqp.prune_magnitude(weights, ratio=ratio)
    q, scale, zero_point = onnxqp.prune_and_quantize(weights, ratio=ratio, bits=bits, symmetric=symmetric, axis=axis)
    back = onnxqp.dequantize_linear(q, scale, zero_point, axis=axis)
    assert not back[pruned == 0].any()
    step = scale if axis is None else np.expand_dims(scale, 1 - axis)
    assert np.all(np.abs(back - pruned) <= 0.5 * step * (1 + 1e-4) + 1e-6)


def test_exactly_one_of_threshold_and_ratio() -> None:
    with pytest.raises(UsageError):
        onnxqp.prune_and_quantize(np.ones((2, 2), np.float32))
    with pytest.raises(UsageError):
        onnxqp.prune_and_quantize(np.ones((2, 2), np.float32), ratio=0.5, threshold=0.1)
    q, _, _ = onnxqp.prune_and_quantize(np.array([0.05, -1.0, 0.4], np.float32), threshold=0.1, step=0.01)
    assert q.tolist() == [0, -100, 40]
