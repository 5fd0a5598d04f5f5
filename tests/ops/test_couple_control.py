"""If, Loop and Scan: channels are cut inside the bodies, and through them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper
from prune_checks import Build, Feed, pinned, prunes

FLOAT = TensorProto.FLOAT


def info(name: str, *shape: int | str, dtype: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def flag(b: Build, value: bool = True) -> tuple[str, Feed]:
    """A condition, and the feed of its opposite."""
    name = b.input(name="flag", array=np.array(value))
    return name, {**b.feed, name: np.array(not value)}


def branch(b: Build, op_type: str, x: str, entering: int, leaving: int) -> onnx.GraphProto:
    """A network of its own: two convolutions, their weights inside."""
    inner = Build(seed=len(b.nodes) + len(op_type), prefix=op_type)
    first = inner.op("Conv", x, inner.weight(6, entering, 1, 1), inner.weight(6))
    out = inner.op("Conv", inner.op(op_type, first), inner.weight(leaving, 6, 1, 1))
    return helper.make_graph(inner.nodes, op_type, [], [info(out, 2, leaving, 4, 4)], inner.weights)


def test_channels_inside_and_through_both_branches() -> None:
    b = Build()
    x = b.op("Relu", b.conv(b.input(2, 3, 4, 4), 3, 8))
    condition, other = flag(b)
    y = b.op("If", condition, then_branch=branch(b, "Relu", x, 8, 10), else_branch=branch(b, "Sigmoid", x, 8, 10))
    prunes(b, b.conv(y, 10, 4), feeds=[other], groups=[8, 6, 6, 10])


def test_a_branch_that_reads_what_the_other_does_not() -> None:
    b = Build()
    x = b.op("Relu", b.conv(b.input(2, 3, 4, 4), 3, 8))

    def body(op_type: str) -> onnx.GraphProto:
        output = info(f"{op_type}_out", 2, 8, 4, 4)
        return helper.make_graph([helper.make_node(op_type, [x], [output.name])], op_type, [], [output])

    condition, other = flag(b)
    y = b.op("If", condition, then_branch=body("Relu"), else_branch=body("Neg"))
    prunes(b, b.conv(y, 8, 4), feeds=[other], groups=[8])


def test_branches_of_which_one_is_not_cut() -> None:
    b = Build()
    image = b.input(2, 3, 4, 4)
    x = b.conv(image, 3, 8)
    wide = b.input(2, 8, 4, 4, name="wide")

    def body(op_type: str, value: str) -> onnx.GraphProto:
        output = info(f"{op_type}_out", 2, 8, 4, 4)
        return helper.make_graph([helper.make_node(op_type, [value], [output.name])], op_type, [], [output])

    condition, _ = flag(b)
    y = b.op("If", condition, then_branch=body("Relu", x), else_branch=body("Neg", wide))
    assert pinned(b, b.conv(y, 8, 4))["Conv0"].startswith("graph input 'wide'")


def loop_body(b: Build, size: int, *, scan: bool = False) -> onnx.GraphProto:
    """state = tanh(state @ R + x): x from outside, R inside."""
    inner = Build(seed=5, prefix="body_")
    recurrence = inner.weight(size, size)
    inner.nodes.append(helper.make_node("Identity", ["go_on"], ["goes_on"], "Go"))
    product = inner.op("MatMul", "state", recurrence)
    y = inner.op("Tanh", inner.op("Add", product, "read"))
    inner.nodes.append(helper.make_node("Identity", [y], ["next"], "Next"))
    inner.nodes.append(helper.make_node("Relu", [y], ["each"], "Each"))
    if scan:
        ins, outs = [info("state", 2, size), info("read", 2, size)], [info("next", 2, size), info("each", 2, size)]
        return helper.make_graph(inner.nodes[1:], "body", ins, outs, inner.weights)
    turn = [info("turn", dtype=TensorProto.INT64), info("go_on", dtype=TensorProto.BOOL), info("state", 2, size)]
    outs = [info("goes_on", dtype=TensorProto.BOOL), info("next", 2, size), info("each", 2, size)]
    return helper.make_graph(inner.nodes, "body", turn, outs, inner.weights)


def test_what_a_loop_hands_on() -> None:
    b = Build()
    x = b.input(2, 6)
    b.nodes.append(helper.make_node("Tanh", [b.linear(x, 6, 8)], ["read"], "Read"))
    start = b.linear(x, 6, 8)
    turns, go_on = b.const(3), b.const(True, np.bool_)
    last, every = b.op("Loop", turns, go_on, start, count=2, body=loop_body(b, 8))
    prunes(b, b.linear(last, 8, 3), b.linear(every, 8, 2), groups=[8])


def test_a_loop_that_starts_with_an_input_keeps_its_state() -> None:
    b = Build()
    x = b.input(2, 6)
    b.nodes.append(helper.make_node("Tanh", [b.linear(x, 6, 8)], ["read"], "Read"))
    last, _ = b.op(
        "Loop", b.const(3), b.const(True, np.bool_), b.input(2, 8, name="start"), count=2, body=loop_body(b, 8)
    )
    assert "graph input 'start'" in pinned(b, b.linear(last, 8, 3))["MatMul0"]


def test_a_scan_walks_along_a_sequence() -> None:
    b = Build()
    sequence = b.op("Relu", b.linear(b.input(5, 2, 6), 6, 8))
    last, every = b.op("Scan", b.weight(2, 8), sequence, count=2, body=loop_body(b, 8, scan=True), num_scan_inputs=1)
    prunes(b, b.linear(last, 8, 3), b.linear(every, 8, 2), groups=[8])


def test_a_scan_along_the_second_axis() -> None:
    b = Build()
    sequence = b.op("Relu", b.linear(b.input(2, 5, 6), 6, 8))
    axes = {"scan_input_axes": [1], "scan_output_axes": [-1]}
    body = loop_body(b, 8, scan=True)
    _, every = b.op("Scan", b.weight(2, 8), sequence, count=2, body=body, num_scan_inputs=1, **axes)
    prunes(b, b.linear(b.op("Transpose", every, perm=[0, 2, 1]), 8, 2), groups=[8])
