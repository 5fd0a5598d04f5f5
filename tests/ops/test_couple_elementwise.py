"""Operators that work element by element, with broadcasting."""

from __future__ import annotations

import numpy as np
import pytest
from prune_checks import Build, pinned, prunes

from onnxqp.ops import RULES
from onnxqp.ops.elementwise import Elementwise

_NEEDS = {  # inputs that are in the domain of the function
    "Log": "Exp",
    "Sqrt": "Abs",
    "Acosh": "Exp",
    "Asin": "Tanh",
    "Acos": "Tanh",
    "Atanh": "Sin",
    "Reciprocal": "Exp",
}
_OTHERS = {"Cast", "CastLike", "Not", "BitwiseNot", "IsNaN", "IsInf", "Swish", "Sum", "Mean", "Where", "PRelu"}
_NEWER = {"Mish": 18, "Gelu": 20}


def unary() -> list[str]:
    found = [t for t, rule in RULES.items() if isinstance(rule, Elementwise) and rule.operands == 1]
    return sorted(t for t in found if t not in _OTHERS)


@pytest.mark.parametrize("op_type", unary())
def test_unary(op_type: str) -> None:
    domain, _, name = op_type.rpartition(".")
    b = Build(opset=_NEWER.get(name, 17) if not domain else 17)
    x = b.conv(b.input(1, 3, 4, 4), 3, 8)
    if name in _NEEDS:
        x = b.op(_NEEDS[name], x)
    prunes(b, b.conv(b.op(name, x, domain=domain), 8, 4), groups=[8])


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean"])
@pytest.mark.parametrize("shape", [(8, 4, 4), (8, 1, 1), (1, 8, 1, 1), (1, 1, 1), (), (4,)])
def test_with_a_constant(op_type: str, shape: tuple[int, ...]) -> None:
    b = Build()
    x = b.op("Relu", b.conv(b.input(2, 3, 4, 4), 3, 8))
    x = b.op(op_type, x, b.weight(*shape, positive=True))
    prunes(b, b.conv(b.op("Tanh", x), 8, 4), groups=[8])


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Div", "Max", "Min"])
def test_between_activations(op_type: str) -> None:
    b = Build()
    x = b.input(2, 3, 4, 4)
    left, right = b.conv(x, 3, 8), b.op("Exp", b.conv(x, 3, 8))
    prunes(b, b.conv(b.op(op_type, left, right), 8, 4), groups=[8])


def test_gate_of_size_one_in_space() -> None:
    """Squeeze and excite."""
    b = Build()
    x = b.conv(b.input(2, 3, 4, 4), 3, 16)
    gate = b.conv(b.op("Relu", b.conv(b.op("GlobalAveragePool", x), 16, 4)), 4, 16)
    prunes(b, b.conv(b.op("Mul", x, b.op("Sigmoid", gate)), 16, 4), groups=[16, 4])


def test_one_channel_broadcasts_and_is_not_cut() -> None:
    b = Build()
    x = b.input(2, 3, 4, 4)
    wide, mask = b.conv(x, 3, 8), b.conv(x, 3, 1)
    prunes(b, b.conv(b.op("Mul", wide, mask), 8, 4), groups=[8])


def test_constant_of_more_axes_than_the_activation() -> None:
    b = Build()
    x = b.linear(b.input(6, 5), 5, 8)
    prunes(b, b.linear(b.op("Mul", x, b.weight(3, 1, 8)), 8, 4), groups=[8])


def test_meeting_an_axis_that_is_not_cut() -> None:
    b = Build()
    x, y = b.input(1, 3, 4, 4), b.input(1, 8, 4, 4, name="y")
    reasons = pinned(b, b.conv(b.op("Add", b.conv(x, 3, 8), y), 8, 4))
    assert reasons["Conv0"] == "graph input 'y'"


def test_channel_axis_of_one_meets_space_of_the_other() -> None:
    """[N, C, 1, 1] and [1, 1, 4, 4] share no axis: nothing is tied, both axes go on."""
    b = Build()
    x = b.op("GlobalAveragePool", b.conv(b.input(2, 3, 4, 4), 3, 8))
    prunes(b, b.conv(b.op("Add", x, b.weight(1, 1, 4, 4)), 8, 4), groups=[8])


def test_where_and_comparisons() -> None:
    b = Build()
    x = b.input(2, 3, 4, 4)
    left, right = b.conv(x, 3, 8), b.conv(x, 3, 8)
    chosen = b.op("Where", b.op("Greater", left, right), left, b.weight(8, 1, 1))
    prunes(b, b.conv(chosen, 8, 4), groups=[8])


def test_logic_and_casts() -> None:
    b = Build()
    x = b.conv(b.input(2, 3, 4, 4), 3, 8)
    flag = b.op("Not", b.op("And", b.op("Cast", x, to=9), b.op("Less", x, b.weight(8, 1, 1))))
    prunes(b, b.conv(b.op("Cast", flag, to=1), 8, 4), groups=[8])


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 1, 1), (1,)])
def test_prelu(shape: tuple[int, ...]) -> None:
    b = Build()
    x = b.op("PRelu", b.conv(b.input(2, 3, 4, 4), 3, 8), b.weight(*shape))
    result = prunes(b, b.conv(x, 8, 4), groups=[8])
    slope = next(node for node in result.model.graph if node.op_type == "PRelu").inputs[1]
    assert list(slope.shape) == [4 if size == 8 else 1 for size in shape]


def test_clip_bounds_stay() -> None:
    b = Build()
    x = b.conv(b.input(2, 3, 4, 4), 3, 8)
    x = b.op("Clip", x, b.const(0.0, np.float32), b.const(6.0, np.float32))
    prunes(b, b.conv(x, 8, 4), groups=[8])


def test_per_head_constants() -> None:
    """A scale [h, d] is cut within heads, one value per head or per position of all heads where it must."""
    for shape in ((4, 1, 8), (4, 1, 1), (8,)):
        b = Build()
        y = b.op("Reshape", b.linear(b.input(2, 5, 6), 6, 32), b.const([2, 5, 4, 8]))
        y = b.op("Mul", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.weight(*shape))
        y = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.const([2, 5, 32]))
        prunes(b, b.linear(y, 32, 3), groups=[8 if shape == (8,) else 32])
