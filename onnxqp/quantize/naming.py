"""Names that do not outweigh the weights of a small model: of what is inserted, and of values inside.

A name stands in the file where the value is made and wherever it is read. What users speak of keeps its name: inputs,
outputs, weights, and all nodes, by which a value can still be found (`onnxqp.debugging.matching`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from onnxqp.graph import renew_names, unique_name

LONG_NAME = 18  # characters; longer ones are numbered in the names of what is inserted
LIGHT = 0.01  # of the bytes of all weights: names that together weigh less stay


@dataclass
class Labels:
    """What new nodes and values of one graph are called after."""

    _numbers: dict[str, str] = field(default_factory=dict)

    def short(self, name: str) -> str:
        """The name itself, or a number where it is long."""
        return name if len(name) <= LONG_NAME else self._numbers.setdefault(name, f"q{len(self._numbers)}")


def shorten_names(model: ir.Model, original: ir.Model) -> int:
    """Number the values inside `model`, in place, that nodes of the same name make in `original`; how many.

    In bodies of If, Loop and Scan all but what they hold: nobody looks for a value in there.
    """
    found = [value for value in _inside(model, original) if len(value.name or "") > len("v1000")]
    weights = sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )
    if sum(len(value.name or "") * (1 + len(value.uses())) for value in found) <= LIGHT * weights:
        return 0
    renew_names(model)
    for number, value in enumerate(found):
        value.name = unique_name(model.graph, f"v{number}")
    renew_names(model)
    return len(found)


def _inside(model: ir.Model, original: ir.Model) -> list[ir.Value]:
    known = {
        (node.name, node.op_type, index): value.name
        for node in original.graph
        for index, value in enumerate(node.outputs)
    }
    found = [
        value
        for node in model.graph
        for index, value in enumerate(node.outputs)
        if value.name and not value.is_graph_output()
        if known.get((node.name, node.op_type, index)) == value.name
    ]
    for body in model.graphs():
        if body is not model.graph:
            made = (value for node in body for value in node.outputs if value.name)
            found += [*(value for value in body.inputs if not value.is_initializer()), *made]
    return found
