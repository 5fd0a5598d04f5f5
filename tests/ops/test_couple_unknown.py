"""What has no rule is pinned, with a reason."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from prune_checks import Build, pinned, prunes

from onnxqp.ops import RULES, Operator, rule_for


def test_every_record_says_what_it_is() -> None:
    for op_type, rule in RULES.items():
        assert type(rule).__doc__, op_type
        assert op_type in rule.op_types


def test_lookup_minds_the_domain() -> None:
    assert isinstance(rule_for(ir.Node("", "Conv", [])), RULES["Conv"].__class__)
    assert isinstance(rule_for(ir.Node("ai.onnx", "Conv", [])), RULES["Conv"].__class__)
    assert type(rule_for(ir.Node("my.domain", "Conv", []))) is Operator


def test_unknown_operator_pins_what_it_touches() -> None:
    b = Build()
    x = b.conv(b.input(1, 3, 4, 4), 3, 8)
    y = b.op("Inverse", b.op("Concat", x, x, axis=1), domain="com.microsoft")
    x = b.conv(b.op("Relu", b.conv(x, 8, 6)), 6, 4)
    assert pinned(b, x, y)["Conv0"] == "no pruning rule for operator Inverse (Inverse 'Inverse2')"


def test_a_rule_that_does_not_cover_a_case_pins_it() -> None:
    b = Build()
    x = b.conv(b.input(2, 3, 4, 4), 3, 8)
    axis = b.input(name="axis", array=np.array(1))
    reasons = pinned(b, b.conv(b.op("CumSum", x, axis), 8, 4))
    assert reasons["Conv0"] == "a CumSum along an axis that is computed (CumSum 'CumSum1')"


def test_sizes_are_not_counted() -> None:
    b = Build()
    x = b.op("Relu", b.conv(b.input(2, 3, 4, 4, symbolic={0: "N"}), 3, 8))
    count = b.op("Cast", b.op("Size", x), to=1)
    assert "counted" in pinned(b, b.conv(b.op("Div", x, count), 8, 4))["Conv0"]


def test_random_numbers_are_left_alone() -> None:
    b = Build()
    noise = b.op("RandomNormalLike", b.conv(b.input(2, 3, 4, 4), 3, 8))
    assert "RandomNormalLike" in pinned(b, b.conv(noise, 8, 4))["Conv0"]


def test_dropout_and_identity_vanish() -> None:
    b = Build()
    x = b.op("Identity", b.op("Dropout", b.conv(b.input(2, 3, 4, 4), 3, 8)))
    prunes(b, b.conv(x, 8, 4), groups=[8])
