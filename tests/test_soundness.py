"""Sizes of values whose type says nothing."""

import onnx_ir as ir
import pytest

from onnxqp.soundness import _element_bytes


@pytest.mark.parametrize("kind", [None, ir.DataType.UNDEFINED, ir.DataType.STRING, ir.DataType.DOUBLE])
def test_a_type_without_a_width_counts_as_the_widest(kind: ir.DataType | None) -> None:
    value = ir.Value(name="x", type=None if kind is None else ir.TensorType(kind))
    assert _element_bytes(value) == 8
