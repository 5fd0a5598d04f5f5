"""Small graphs for the tests of pruning, and what every pruned graph must satisfy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from onnxqp.model import clone, from_proto
from onnxqp.normalize import normalize
from onnxqp.options import PruneOptions
from onnxqp.prune import PruneResult, plan, prune_model
from onnxqp.prune.groups import Grouping
from onnxqp.prune.pruning import Plan
from onnxqp.runtime import Session

Feed = dict[str, np.ndarray]
_TYPES = {np.dtype(np.float32): 1, np.dtype(np.int64): 7, np.dtype(np.bool_): 9, np.dtype(np.int32): 6}


class Build:
    """Writes a graph node by node; weights are random from a seed."""

    def __init__(self, seed: int = 0, opset: int = 17, prefix: str = "") -> None:
        self.random = np.random.default_rng(seed)
        self.opset = opset
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.feed: Feed = {}

    def input(self, *shape: int, name: str = "x", symbolic: dict[int, str] | None = None, array: Any = None) -> str:
        """A graph input; `shape` is that of its sample, `symbolic` names axes that are free."""
        data = self.random.normal(size=shape).astype(np.float32) if array is None else np.asarray(array)
        self.feed[name] = data
        dims = [(symbolic or {}).get(axis, size) for axis, size in enumerate(data.shape)]
        self.inputs.append(helper.make_tensor_value_info(name, _TYPES[data.dtype], dims))
        return name

    def const(self, array: Any, dtype: Any = np.int64) -> str:
        name = f"{self.prefix}c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def weight(self, *shape: int, positive: bool = False) -> str:
        values = self.random.normal(size=shape) / np.sqrt(max(1, np.prod(shape[1:])))
        return self.const(np.abs(values) + 0.5 if positive else values, np.float32)

    def op(self, op_type: str, *inputs: str, count: int = 1, domain: str = "", **attributes: Any) -> Any:
        number = len(self.nodes)
        outputs = [f"{self.prefix}v{number}_{n}" for n in range(count)]
        node = helper.make_node(
            op_type, list(inputs), outputs, f"{self.prefix}{op_type}{number}", domain=domain, **attributes
        )
        self.nodes.append(node)
        return outputs[0] if count == 1 else outputs

    def conv(self, x: str, entering: int, leaving: int, kernel: int = 1, group: int = 1, **attributes: Any) -> str:
        weight = self.weight(leaving, entering // group, kernel, kernel)
        pads = [kernel // 2] * 4
        return self.op("Conv", x, weight, self.weight(leaving), group=group, **{"pads": pads, **attributes})

    def linear(self, x: str, entering: int, leaving: int) -> str:
        return self.op("Add", self.op("MatMul", x, self.weight(entering, leaving)), self.weight(leaving))

    def proto(self, *outputs: str) -> onnx.ModelProto:
        made = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(self.nodes, "test", self.inputs, made, self.weights)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        return onnx.shape_inference.infer_shapes(model)

    def model(self, *outputs: str) -> ir.Model:
        """The graph, normalised."""
        model = from_proto(self.proto(*outputs))
        normalize(model)
        return model


def group_sizes(made: Plan) -> dict[str, int]:
    return {group.id: group.size for group in made.grouping.groups}


def prunes(
    build: Build, *outputs: str, ratio: float = 0.5, groups: Sequence[int] | None = None, feeds: Sequence[Feed] = ()
) -> PruneResult:
    """Prune a graph and hold the result against everything that must be true of it.

    The proof holds to float accuracy, nothing had to be pinned for it, channels of every group are gone, other feeds
    run too, and exchanging the channels of a group changes nothing. `groups`: the sizes that groups must have, sorted.
    """
    model = build.model(*outputs)
    options = PruneOptions(ratio=ratio, round_to=1)
    made = plan(model, options, step=1)
    if groups is not None:
        assert sorted(group.size for group in made.grouping.groups) == sorted(groups), group_sizes(made)
    exchange_changes_nothing(model, made, build.feed)
    result = prune_model(model, [build.feed, *feeds], options, step=1)
    assert not result.warnings
    assert result.pruning.proof is not None
    assert result.pruning.proof.checked
    assert result.pruning.proof.max_abs_diff is not None
    assert result.pruning.proof.max_abs_diff < 2e-5
    assert all(group.after < group.before for group in result.pruning.groups)
    assert result.pruning.params_ratio < 1.0
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
    return result


def pinned(build: Build, *outputs: str) -> dict[str, str]:
    """The reason of every pinned group, by its name."""
    made = plan(build.model(*outputs), PruneOptions(ratio=0.5), step=1)
    return {entry.id: entry.reason for entry in made.grouping.pinned}


def exchange_changes_nothing(model: ir.Model, made: Plan, feed: Feed) -> None:
    """Exchange channels that stand alone and run through the same weights, in all weights alike: same outputs."""
    exchanged = clone(model)
    move = _exchange(made.grouping, made.labels.count)
    for value in (value for graph in exchanged.graphs() for value in graph.initializers.values()):
        array = value.const_value.numpy() if value.const_value is not None else None
        for family in made.labels.families(value):
            roots = made.grouping.roots[family.labels]
            if array is None or roots.ndim > 1 or (move[roots] == roots).all():
                continue
            source = np.empty(len(roots), np.int64)
            for name in np.unique(roots):
                source[np.flatnonzero(roots == move[name])] = np.flatnonzero(roots == name)
            array = np.take(array, source, axis=family.axes[0])
        if array is not None:
            value.const_value = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=value.name)
    before, after = Session(model).run(feed), Session(exchanged).run(feed)
    for name, expected in before.items():
        np.testing.assert_allclose(after[name], expected, rtol=1e-3, atol=1e-4, err_msg=name)


def _exchange(grouping: Grouping, count: int) -> np.ndarray:
    """Every class's stand-in: within a group, the classes that no block binds go round by one."""
    move = np.arange(count)
    for group in grouping.groups:
        if any(bundle.bound for bundle in group.bundles):
            continue
        move[group.classes] = np.roll(group.classes, 1)
    return move
