"""Small pure functions on onnx_ir values and nodes. No class of our own around the graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

DEFAULT_DOMAINS = ("", "ai.onnx")
SCALES = "onnxqp.scales"  # in a model's meta: magnitudes of per-channel scales that were folded away, by value

FOLDED = "_folded"  # how the name of a value ends that was computed while the graph was cleaned up
_NAMES = "onnxqp.names"  # in the meta of a graph: the names that are taken


def op_name(node: ir.Node) -> str:
    """The operator's name with its domain, without one for the standard domain: "Conv", "com.microsoft.Gelu"."""
    return node.op_type if node.domain in DEFAULT_DOMAINS else f"{node.domain}.{node.op_type}"


def constant(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """The array of an initializer that no caller can override, or of a Constant node; None for anything else.

    Weights kept in a file of their own stay memory-mapped. Do not write into the array.
    """
    if value is None or value.is_graph_input():
        return None
    if value.const_value is not None and (value.is_initializer() or value.producer() is None):
        return value.const_value.numpy()
    producer = value.producer()
    if producer is not None and producer.op_type == "Constant" and producer.domain in DEFAULT_DOMAINS:
        tensor = ir.convenience.get_const_tensor(value)
        return None if tensor is None else tensor.numpy()
    return None


def tensor_bytes(value: ir.Value) -> int:
    """Bytes of an initializer; 0 for any other value."""
    return 0 if value.const_value is None else value.const_value.nbytes


def is_constant(value: ir.Value | None) -> bool:
    """Whether `constant` has an array for it, without reading the array."""
    if value is None or value.is_graph_input():
        return False
    if value.const_value is not None and (value.is_initializer() or value.producer() is None):
        return True
    producer = value.producer()
    return producer is not None and producer.op_type == "Constant" and producer.domain in DEFAULT_DOMAINS


def set_initializer(value: ir.Value, array: npt.NDArray[Any]) -> None:
    """Give an initializer another tensor; it keeps its name, and its shape and type follow the array."""
    plain = np.asarray(array, order="C")
    # ir.tensor looks for a DLPack first, which takes seven times as long; only strings need it
    tensor = ir.Tensor(plain, name=value.name) if plain.dtype.kind in "fiub" else ir.tensor(plain, name=value.name)
    value.const_value = tensor
    value.shape = ir.Shape(np.shape(array))
    value.type = ir.TensorType(tensor.dtype)


def add_initializer(graph: ir.Graph, name: str, array: npt.NDArray[Any]) -> ir.Value:
    """A new initializer of `graph`, named `name` or, where that is taken, a numbered variant of it."""
    value = ir.Value(name=unique_name(graph, name))
    set_initializer(value, array)
    graph.register_initializer(value)
    return value


def own_initializer(node: ir.Node, index: int) -> ir.Value:
    """Input `index` of `node`, an initializer, as one that no other node reads: a copy when it is shared."""
    value = node.inputs[index]
    if value is None or value.name is None or node.graph is None or value.const_value is None:
        raise ValueError(f"input {index} of {node.name} is not an initializer")
    if len(value.uses()) == 1 and not value.is_graph_output():
        return value
    copy = add_initializer(node.graph, f"{value.name}_{node.name or node.op_type}", value.const_value.numpy())
    node.replace_input_with(index, copy)
    return copy


def dims(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """Static dimensions, None where symbolic or negative, as some write it; None when not even the rank is known."""
    if value is None or value.shape is None:
        return None
    return tuple(d if isinstance(d, int) and d >= 0 else None for d in value.shape)


def rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def iterate(model: ir.Model) -> Iterator[ir.Node]:
    """Every node of the graph, then those of the bodies of If, Loop and Scan, in order."""
    return iter(ir.traversal.RecursiveGraphIterator(model.graph))


def taken_names(graph: ir.Graph) -> set[str]:
    """The names of all values and nodes of a graph and of the bodies inside it."""
    inside = (graph, *graph.subgraphs())
    names = {value.name for each in inside for value in (*each.inputs, *each.initializers.values()) if value.name}
    for node in ir.traversal.RecursiveGraphIterator(graph):
        names.update(output.name for output in node.outputs if output.name)
        if node.name:
            names.add(node.name)
    return names


def renew_names(model: ir.Model) -> None:
    """Let `unique_name` look anew at what is taken; where there are bodies, in all of them at once.

    A value in a body must not have the name of one around it: onnxruntime calls that no single assignment.
    """
    graphs = list(model.graphs())
    if len(graphs) == 1:
        model.graph.meta.pop(_NAMES, None)
        return
    names = taken_names(model.graph)
    for graph in graphs:
        graph.meta[_NAMES] = names


def unique_name(graph: ir.Graph, name: str) -> str:
    """`name`, or `name_1`, `name_2`... when it is taken. The set of names is kept on the graph: linear in total."""
    names: set[str] | None = graph.meta.get(_NAMES)
    if names is None:
        names = taken_names(graph)
        graph.meta[_NAMES] = names
    candidate, n = name, 0
    while candidate in names or candidate in graph.initializers:
        n += 1
        candidate = f"{name}_{n}"
    names.add(candidate)
    return candidate


def put_in_order(model: ir.Model) -> None:
    """Sort the nodes, unless they are sorted: every node behind those that it reads."""
    if not all(map(_is_sorted, model.graphs())):
        model.graph.sort()


def _is_sorted(graph: ir.Graph) -> bool:
    """As onnx asks and onnxruntime does not."""
    done: set[ir.Node] = set()
    for node in graph:
        inner = (each for body in subgraphs(node) for each in ir.traversal.RecursiveGraphIterator(body))
        for value in (value for reader in (node, *inner) for value in reader.inputs):
            producer = None if value is None else value.producer()
            if producer is not None and producer not in done and producer.graph is graph:
                return False
        done.add(node)
    return True


def attribute_int(node: ir.Node, name: str, default: int) -> int:
    attr = node.attributes.get(name)
    return default if attr is None else attr.as_int()


def attribute_float(node: ir.Node, name: str, default: float) -> float:
    attr = node.attributes.get(name)
    return default if attr is None else attr.as_float()


def attribute_ints(node: ir.Node, name: str) -> list[int] | None:
    attr = node.attributes.get(name)
    return None if attr is None else list(attr.as_ints())


def attribute_string(node: ir.Node, name: str, default: str) -> str:
    attr = node.attributes.get(name)
    return default if attr is None else attr.as_string()


def subgraphs(node: ir.Node) -> Iterable[ir.Graph]:
    """The bodies that a control-flow node carries in its attributes."""
    for attr in node.attributes.values():
        if attr.type == ir.AttributeType.GRAPH:
            yield attr.as_graph()
        elif attr.type == ir.AttributeType.GRAPHS:
            yield from attr.as_graphs()
