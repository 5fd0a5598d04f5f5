"""Equal initializers become one: scales, zero points, shapes and priors that exporters and passes write many times."""

from __future__ import annotations

from typing import TypeAlias

import onnx_ir as ir

from onnxqp.graph import is_constant

LARGEST = 1 << 16  # bytes; larger ones are weights, and hardly ever the same

_Content: TypeAlias = tuple[ir.DataType, tuple[int, ...], bytes]


def share_equal(model: ir.Model) -> int:
    """Let all readers of equal initializers of one graph read the first; how many became superfluous and went."""
    gone = 0
    for graph in model.graphs():
        first: dict[_Content, ir.Value] = {}
        for value in list(graph.initializers.values()):
            tensor = value.const_value
            if tensor is None or tensor.dtype == ir.DataType.STRING or tensor.nbytes > LARGEST:
                continue
            if not is_constant(value) or value.is_graph_output():
                continue
            same = first.setdefault((tensor.dtype, tuple(tensor.shape.numpy()), tensor.tobytes()), value)
            if same is not value:
                for use in list(value.uses()):
                    use.node.replace_input_with(use.idx, same)
                del graph.initializers[value.name or ""]
                gone += 1
    return gone
