"""Large arrays in blocks: nothing is left out, and nothing depends on how they are cut."""

from __future__ import annotations

import numpy as np
import pytest

from onnxqp.quantize import blocks
from onnxqp.quantize.arithmetic import dequantize_linear, quantize_linear
from onnxqp.quantize.bias import mean_shift
from onnxqp.quantize.blocks import each_block, within
from onnxqp.quantize.forms import smallest_form
from onnxqp.quantize.weights import quantize_weight

SHAPES = ((40, 6, 3, 3), (1, 40, 5), (40, 1, 7), (33,), ())


@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_are_the_whole(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 50)
    array = np.arange(float(np.prod(shape, dtype=int))).reshape(shape)
    found = each_block(shape, lambda part: array[part])
    assert np.array_equal(np.concatenate(found) if shape else found[0], array)
    assert within(array, each_block(shape, lambda part: part)[0]).ndim == array.ndim


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_results_do_not_depend_on_the_blocks(axis: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.random.default_rng(3).standard_normal((40, 6, 3, 3), np.float32)
    mean = np.random.default_rng(4).standard_normal(6)
    seen = []
    for size in (1 << 30, 60):
        monkeypatch.setattr(blocks, "BLOCK", size)
        quantized = quantize_weight(weight, axis, at_least=0.001)
        zero = np.uint8(3) if axis is None else np.arange(weight.shape[axis], dtype=np.uint8)
        shifted = quantize_linear(weight, quantized.scale, zero, axis=axis)
        real = dequantize_linear(shifted, quantized.scale, zero, axis=axis)
        form = smallest_form(weight)
        assert form is not None
        shift = mean_shift(weight, real, mean, 0, (2, 3, 1))
        assert shift is not None
        seen.append([quantized.values, quantized.scale, shifted, real, form.integers, *form.scales, shift])
    for whole, cut in zip(*seen, strict=True):
        assert np.array_equal(whole, cut)
