"""Models in half or double precision as models in float32, and weights of theirs back in half when they are stored.

onnxruntime's CPU provider computes half precision in float32 between Casts anyway, and has no integer kernels for
either. Inputs and outputs keep their types, by a Cast at the border.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from onnxqp.graph import add_initializer, constant, iterate, renew_names, unique_name
from onnxqp.model import clone
from onnxqp.normalize.cleanup import remove_pass_through
from onnxqp.specs import Note

_OTHERS = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
_HALVED = "onnxqp.was_half"  # of a model in float32 whose file had halves
_TYPE_ATTRIBUTES = ("to", "dtype")  # what Cast, EyeLike, the random operators and others make
_FLOAT = ir.TensorType(ir.DataType.FLOAT)
_LEAST_BYTES = 1024  # below, a Cast and its names cost what a half saves


def float32_form(model: ir.Model) -> tuple[ir.Model, list[Note]]:
    """A normalised model that computes in float32: itself, or a converted copy where weights are of other floats.

    Halves become float32 exactly, doubles are rounded. Values keep their names, except that an output of another type
    is made by a value of its own. Islands of another type without weights (a sum in double) stay as they are.
    """
    kinds = {
        value.dtype
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.dtype in _OTHERS and value.const_value is not None
        if sum(size != 1 for size in value.const_value.shape) > 1
    }
    if not kinds:
        return model, []
    work = clone(model)
    _Conversion(work, {kind for kind in kinds if kind is not None}).run()
    if kinds & {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}:
        work.meta[_HALVED] = True
    names = " and ".join(sorted(kind.name.lower() for kind in kinds if kind is not None))
    return work, [Note("normalize", model.graph.name or "graph", "", f"weights of {names}: it computes in float32")]


def has_bfloat16(model: ir.Model) -> bool:
    """Whether weights are of a type that onnxruntime's CPU provider hardly computes in at all."""
    return any(value.dtype == ir.DataType.BFLOAT16 for graph in model.graphs() for value in graph.initializers.values())


def store_halves(model: ir.Model) -> int:
    """Store float32 weights of what was a half-precision model as halves again, where no bit is lost; how many.

    onnxruntime folds the Cast behind them when it opens the model.
    """
    stored = 0
    if not model.meta.get(_HALVED):
        return stored
    renew_names(model)
    for graph in model.graphs():
        for value in list(graph.initializers.values()):
            array = constant(value)
            if array is None or array.dtype != np.float32 or array.nbytes < _LEAST_BYTES or value.is_graph_output():
                continue
            with np.errstate(over="ignore"):
                half = array.astype(np.float16)
            if not np.array_equal(half.astype(np.float32), array) or not value.uses():
                continue
            name = value.name or "weight"
            cast = _cast(graph, add_initializer(graph, f"{name}_half", half), ir.DataType.FLOAT, f"{name}_Cast")
            cast.outputs[0].name = unique_name(graph, f"{name}_float32")
            cast.outputs[0].shape = value.shape
            graph.insert_before(graph[0], cast)
            ir.convenience.replace_all_uses_with(value, cast.outputs[0])
            del graph.initializers[name]
            stored += 1
    return stored


def _cast(graph: ir.Graph, value: ir.Value, to: ir.DataType, name: str) -> ir.Node:
    node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", to)], name=unique_name(graph, name))
    node.outputs[0].type = ir.TensorType(to)
    node.outputs[0].shape = value.shape
    return node


class _Conversion:
    def __init__(self, model: ir.Model, kinds: Collection[ir.DataType]) -> None:
        self.model = model
        self.kinds = kinds

    def run(self) -> None:
        given = [value for value in self.model.graph.inputs if value.dtype in self.kinds]
        made = [value for value in self.model.graph.outputs if value.dtype in self.kinds]
        kinds = {value: value.dtype for value in made}
        renew_names(self.model)
        for graph in self.model.graphs():
            for value in graph.initializers.values():
                self._constant(value)
            for value in graph.inputs:
                if value not in given:
                    self._retype(value)
        for node in iterate(self.model):
            self._attributes(node)
            for value in node.outputs:
                self._retype(value)
        for value in given:
            self._enter(value)
        for value in dict.fromkeys(made):
            kind = kinds[value]
            if value not in given and kind is not None:
                self._leave(value, kind)
        remove_pass_through(self.model)

    def _constant(self, value: ir.Value) -> None:
        if value.dtype in self.kinds and value.const_value is not None:
            array = value.const_value.numpy().astype(np.float32)
            value.const_value = ir.tensor(array, name=value.name)
            value.type = ir.TensorType(ir.DataType.FLOAT)

    def _retype(self, value: ir.Value) -> None:
        if value.type is not None and value.dtype in self.kinds:
            value.type = ir.SequenceType(_FLOAT) if isinstance(value.type, ir.SequenceType) else _FLOAT

    def _attributes(self, node: ir.Node) -> None:
        for name, attribute in list(node.attributes.items()):
            if attribute.is_ref():
                continue
            if name in _TYPE_ATTRIBUTES and attribute.type == ir.AttributeType.INT:
                if attribute.as_int() in self.kinds:
                    node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT)
            elif attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in self.kinds:
                array = attribute.as_tensor().numpy().astype(np.float32)
                node.attributes[name] = ir.AttrTensor(name, ir.tensor(array))

    def _enter(self, value: ir.Value) -> None:
        graph = self.model.graph
        cast = _cast(graph, value, ir.DataType.FLOAT, f"{value.name}_Cast")
        cast.outputs[0].name = unique_name(graph, f"{value.name}_float32")
        uses = [(use.node, use.idx) for use in value.uses() if use.node is not cast]
        for node, index in uses:
            node.replace_input_with(index, cast.outputs[0])
        if uses:
            graph.insert_before(graph[0], cast)
        else:
            cast.replace_input_with(0, None)

    def _leave(self, value: ir.Value, kind: ir.DataType) -> None:
        """The output of its old type and name; the float32 value behind it gets another name."""
        graph = self.model.graph
        name = value.name or "output"
        value.name = unique_name(graph, f"{name}_float32")
        cast = _cast(graph, value, kind, f"{name}_Cast")
        cast.outputs[0].name = name
        for place, output in enumerate(graph.outputs):
            if output is value:
                graph.outputs[place] = cast.outputs[0]
        graph.append(cast)
