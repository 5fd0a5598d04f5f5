"""Bounded memory and near-linear time: time grows with the nodes, memory not with the samples."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxqp.options import QuantizeOptions, Selection
from onnxqp.quantize import observe_model, plan_quantization
from onnxqp.quantize.insert import insert
from onnxqp.quantize.parameters import Parameters
from onnxqp.specs import Feed

pytestmark = pytest.mark.slow


def chain(layers: int, width: int = 16) -> ir.Model:
    """MatMul and Relu, again and again, in the form that normalising leaves: every shape known."""
    rng = np.random.default_rng(0)
    nodes, weights, known, last = [], [], [], "x"
    for index in range(layers):
        weight = rng.normal(0, width**-0.5, (width, width)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        names = [f"m{index}", f"r{index}"]
        nodes.append(helper.make_node("MatMul", [last, f"w{index}"], names[:1], name=f"matmul{index}"))
        nodes.append(helper.make_node("Relu", names[:1], names[1:], name=f"relu{index}"))
        known += [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width]) for name in names]
        last = names[1]
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width]) for name in ("x", last)]
    graph = helper.make_graph(nodes, "chain", sides[:1], sides[1:], weights, value_info=known[:-1])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return ir.from_proto(proto)


def seconds(layers: int) -> float:
    """Processor time of planning and inserting."""
    model = chain(layers)
    begun = time.process_time()
    chosen = Selection(include=("*",))
    plan = plan_quantization(model, QuantizeOptions(target="x64-avx2", selection=chosen))
    grid = Parameters(np.float32(0.05), np.uint8(0), (0.0, 12.75))
    insert(model, plan, dict.fromkeys(plan.values, grid))
    assert sum(node.integer for node in plan.nodes) >= 0.9 * layers
    return time.process_time() - begun


def test_four_times_the_nodes_take_little_more_than_four_times_as_long() -> None:
    """The best of some runs: other processes take their share of the caches. Quadratic would be sixteen times."""
    seconds(50)  # imports and caches
    small, large = (min(seconds(layers) for _ in range(2)) for layers in (500, 2000))
    assert large < 8 * small + 0.5


def peak(samples: int) -> int:
    """Bytes of Python and numpy that calibrating takes at most."""
    model = chain(20, width=256)

    class Feeds:
        def __iter__(self) -> Iterator[Feed]:
            rng = np.random.default_rng(1)
            return ({"x": rng.normal(0, 1, (1, 256)).astype(np.float32)} for _ in range(samples))

    tracemalloc.start()
    try:
        observe_model(model, Feeds(), QuantizeOptions())
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_samples() -> None:
    peak(4)  # imports and caches
    assert peak(512) < 1.1 * peak(16) + 200_000
