"""What becomes of one element behind a value, while nothing but functions of that element follow: as x * sigmoid(x).

An error of the value counts by what it does there. Below -8 the SiLU of x is 0 whatever x is: a range that spends its
steps there wastes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.calibrate.observers import Histogram
from onnxqp.graph import constant
from onnxqp.ops import rule_for
from onnxqp.runtime import Session

LONGEST = 16  # nodes that are followed behind one value


@dataclass(frozen=True)
class Responses:
    """Of the values of one model, by name, worked out when they are asked for."""

    values: Mapping[str, ir.Value]
    _known: dict[tuple[str, int], list[npt.NDArray[np.float64]]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: ir.Model) -> Responses:
        made = (value for node in model.graph for value in node.outputs)
        return cls({value.name or "": value for value in (*model.graph.inputs, *made)})

    def at_edges(self, name: str, histogram: Histogram) -> list[npt.NDArray[np.float64]]:
        """For everything that other nodes read of it: what it is at the edges of the bins. None: the value itself."""
        if histogram.exponent is None:
            return []
        key = (name, histogram.exponent)
        if key not in self._known:
            self._known[key] = _evaluated(self.values[name], histogram.edges)
        return self._known[key]


def _evaluated(value: ir.Value, x: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    nodes, ends = _behind(value)
    wanted = [end for end in ends if end is not value]
    if not wanted:
        return []
    found = Session(_extracted(value, nodes, wanted)).run({"x": x.astype(np.float32)})
    curves = [np.asarray(found[f"y{number}"], np.float64) for number in range(len(wanted))]
    if not all(np.isfinite(curve).all() for curve in curves):
        return []
    return curves + [x] * (len(wanted) < len(ends))


def _behind(value: ir.Value) -> tuple[list[ir.Node], list[ir.Value]]:
    """The nodes behind `value` that compute functions of its single elements, and what is read of it all elsewhere."""
    follow: dict[ir.Value, None] = {value: None}
    nodes: dict[ir.Node, None] = {}
    grown = True
    while grown and len(nodes) <= LONGEST:
        grown = False
        for known in list(follow):
            for use in known.uses():
                if use.node not in nodes and _follows(use.node, follow) and use.node.graph is value.graph:
                    nodes[use.node] = None
                    follow[use.node.outputs[0]] = None
                    grown = True
    if len(nodes) > LONGEST:
        return [], [value]
    ends = [v for v in follow if v.is_graph_output() or any(use.node not in nodes for use in v.uses())]
    return list(nodes), ends


def _follows(node: ir.Node, known: Mapping[ir.Value, None]) -> bool:
    if not rule_for(node).pointwise or len(node.outputs) != 1:
        return False
    others = [constant(value) for value in node.inputs if value is not None and value not in known]
    return all(array is not None and array.size == 1 for array in others)


def _extracted(value: ir.Value, nodes: list[ir.Node], ends: list[ir.Value]) -> ir.Model:
    """A model that computes `ends` from a vector "x" of elements of `value`."""
    known = {value: ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([None]))}
    constants: list[ir.Value] = []
    copies: list[ir.Node] = []
    for node in nodes:
        operands: list[ir.Value | None] = []
        for operand in node.inputs:
            array = constant(operand)
            if array is not None:
                tensor = ir.tensor(array.reshape(()), name=f"c{len(constants)}")
                constants.append(ir.Value(name=tensor.name, const_value=tensor, type=ir.TensorType(tensor.dtype)))
                constants[-1].shape = ir.Shape([])
            operands.append(None if operand is None else constants[-1] if array is not None else known[operand])
        copy = ir.Node(node.domain, node.op_type, operands, list(node.attributes.values()), name=f"n{len(copies)}")
        copy.outputs[0].name, copy.outputs[0].type = f"v{len(copies)}", ir.TensorType(ir.DataType.FLOAT)
        known[node.outputs[0]] = copy.outputs[0]
        copies.append(copy)
    for number, end in enumerate(ends):
        known[end].name = f"y{number}"
    graph = ir.Graph(
        [known[value]],
        [known[end] for end in ends],
        nodes=copies,
        initializers=constants,
        opset_imports=dict(value.graph.opset_imports) if value.graph is not None else {"": 17},
        name="response",
    )
    return ir.Model(graph, ir_version=10)
