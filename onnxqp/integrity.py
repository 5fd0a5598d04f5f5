"""Is what a model file says consistent? Checked on the proto, before anything believes it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from onnxqp.errors import ModelError


def check(proto: onnx.ModelProto, path: Path | None = None, elsewhere: Collection[int] = ()) -> None:
    """What onnx.checker passes and onnxruntime finds late, or the other way round: structure and tensor sizes.

    `elsewhere`: places of the initializers whose data is not in `proto`, and has been checked.
    """
    where = None if path is None else str(path)
    if not proto.HasField("graph") or not proto.graph.node:
        raise ModelError("the model has no nodes", where=where, hint="the file is not an exported network")
    if not proto.graph.output:
        raise ModelError("the model has no outputs", where=where, hint="the file is not an exported network")
    if not proto.ir_version or not proto.opset_import:
        raise ModelError("the model states no IR version or opset", where=where, hint="export the model again")
    _check_texts(proto, where)
    for free in (_unbound(proto.graph, where), *_unbound_in_functions(proto, where)):
        if free:
            raise ModelError(
                f"{min(free)!r} is used, but nothing defines it",
                where=where,
                hint="the graph was cut badly: export the model again",
            )
    for index, tensor in enumerate(tensors(proto)):  # the initializers come first
        if index not in elsewhere:
            _check_tensor(tensor, path)


def _check_texts(message: Message, where: str | None) -> None:
    """Every name and text is UTF-8, as protobuf says they are; its parser hands out those that are not as bytes."""
    for field, value in message.ListFields():
        many = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        items = value if many else (value,)
        if field.type == FieldDescriptor.TYPE_STRING:
            broken = next((item for item in items if isinstance(item, bytes)), None)
            if broken is not None:
                raise ModelError(
                    f"{field.name} of {message.DESCRIPTOR.name} is not UTF-8: {broken[:40]!r}",
                    where=where,
                    hint="the file is damaged, or was written in another encoding: export the model again",
                )
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for item in items:
                _check_texts(item, where)


# ---- wiring ----------------------------------------------------------------------------------------------------


def _unbound(graph: onnx.GraphProto, where: str | None) -> set[str]:
    """Names that the graph uses and does not define: those of the graph around it, else a fault."""
    outside = {value.name for value in graph.input}
    outside |= {tensor.name for tensor in graph.initializer}
    outside |= {tensor.values.name for tensor in graph.sparse_initializer} | {""}
    _check_initializers(graph, where)
    uses = _check_order(graph.node, outside, where)
    return (uses | {output.name for output in graph.output}) - outside - _produced(graph.node)


def _unbound_in_functions(proto: onnx.ModelProto, where: str | None) -> Iterator[set[str]]:
    calls: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for function in proto.functions:
        outside = {*function.input, ""}
        uses = _check_order(function.node, outside, where)
        yield (uses | set(function.output)) - outside - _produced(function.node)
        calls[function.domain, function.name] = {(node.domain, node.op_type) for node in _nodes(function.node)}
    sorter = TopologicalSorter({name: called & calls.keys() for name, called in calls.items()})
    try:
        sorter.prepare()
    except CycleError as err:
        raise ModelError(f"function {err.args[1][0][1]!r} calls itself", where=where, hint="export again") from err


def _check_order(nodes: Sequence[onnx.NodeProto], outside: set[str], where: str | None) -> set[str]:
    """Every value is defined once and no node waits for itself; returns all names that the nodes use.

    The order in the file alone is no fault: onnxruntime sorts.
    """
    producer: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in filter(None, node.output):
            if name in producer or name in outside:
                raise ModelError(
                    f"value {name!r} is defined twice", where=where, hint="the file breaks ONNX's single assignment"
                )
            producer[name] = index
    uses = [{*node.input, *(name for graph in bodies(node) for name in _unbound(graph, where))} for node in nodes]
    sorter = TopologicalSorter(
        {index: [producer[name] for name in names if name in producer] for index, names in enumerate(uses)}
    )
    try:
        sorter.prepare()
    except CycleError as err:
        stuck = nodes[err.args[1][0]]
        raise ModelError(
            f"the graph has a cycle through node {stuck.name or stuck.op_type!r}", where=where, hint="export it again"
        ) from err
    return {name for names in uses for name in names}


def _produced(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    return {name for node in nodes for name in node.output}


def _check_initializers(graph: onnx.GraphProto, where: str | None) -> None:
    """A name may stand twice when it says the same twice."""
    known: dict[str, onnx.TensorProto] = {}
    for tensor in graph.initializer:
        first = known.setdefault(tensor.name, tensor)
        if first is not tensor and first.SerializeToString() != tensor.SerializeToString():
            raise ModelError(
                f"initializer {tensor.name!r} is given twice, with different content",
                where=where,
                hint="export the model again",
            )


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a control-flow node carries in its attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _nodes(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """These nodes and those in the bodies of If, Loop and Scan."""
    stack = list(nodes)
    while stack:
        node = stack.pop()
        yield node
        stack.extend(inner for graph in bodies(node) for inner in graph.node)


# ---- tensors ---------------------------------------------------------------------------------------------------


def tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of the file, wherever it hides."""
    nodes = list(_nodes([*proto.graph.node, *(node for function in proto.functions for node in function.node)]))
    for graph in [proto.graph, *(graph for node in nodes for graph in bodies(node))]:
        yield from graph.initializer
        yield from (tensor for sparse in graph.sparse_initializer for tensor in (sparse.values, sparse.indices))
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for sparse in (
            *attribute.sparse_tensors,
            *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),
        ):
            yield from (sparse.values, sparse.indices)


def _check_tensor(tensor: onnx.TensorProto, path: Path | None) -> None:
    """The stored bytes are as many as the dimensions say, inside the file and inside the model's folder."""
    where = None if path is None else str(path)
    try:
        dtype = ir.DataType(tensor.data_type)
        field = onnx.helper.tensor_dtype_to_field(tensor.data_type)
    except (ValueError, KeyError) as err:
        raise ModelError(
            f"tensor {tensor.name!r} has an unknown type {tensor.data_type}", where=where, hint="export again"
        ) from err
    count = 1
    for dim in tensor.dims:
        if dim < 0:
            raise ModelError(f"tensor {tensor.name!r} has a negative dimension", where=where, hint="export again")
        count *= dim
    if dtype != ir.DataType.STRING:
        expected = (count * dtype.bitwidth + 7) // 8
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            return _check_external(tensor, expected, path)
        if tensor.HasField("raw_data"):
            return _check_count(tensor, len(tensor.raw_data), expected, "bytes", where)
        if dtype.bitwidth < 8:
            count = expected
        elif dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
            count *= 2
    return _check_count(tensor, len(getattr(tensor, field)), count, "numbers", where)


def _check_count(tensor: onnx.TensorProto, found: int, expected: int, unit: str, where: str | None) -> None:
    if found != expected:
        raise ModelError(
            f"tensor {tensor.name!r} holds {found} {unit}, but {list(tensor.dims)} needs {expected}",
            where=where,
            hint="the file is damaged: fetch or export it again",
        )


def _check_external(tensor: onnx.TensorProto, expected: int, path: Path | None) -> None:
    info = {entry.key: entry.value for entry in tensor.external_data}
    location = info.get("location", "")
    if path is None:
        raise ModelError(f"tensor {tensor.name!r} is in a file, but the model is not", hint="give the model's path")
    folder = path.parent.resolve()
    file = path.parent / location
    try:
        inside = bool(location) and file.resolve().is_relative_to(folder)
        found = file.stat() if inside and file.is_file() else None
        offset, length = int(info.get("offset", 0)), int(info.get("length", expected))
    except (OSError, ValueError) as err:  # a loop of links, a null character, a number that is none
        raise ModelError(
            f"where tensor {tensor.name!r} lies cannot be made out ({err})", where=str(path), hint="export it again"
        ) from err
    if not inside:
        raise ModelError(
            f"tensor {tensor.name!r} points outside the model's folder: {location!r}",
            where=str(path),
            hint="copy model and data into one folder, resolving links (`cp -L`)",
        )
    if found is None:
        raise ModelError(
            f"the external data file {location!r} is missing or no file",
            where=str(path),
            hint="the weights live in a second file: put it beside the model",
        )
    if found.st_nlink > 1:  # onnx and onnx_ir refuse it too: it may be a file of another folder
        raise ModelError(
            f"the external data file {location!r} has more than one name (hard links)",
            where=str(path),
            hint=f"copy it: cp {location} copy && mv copy {location}",
        )
    if offset < 0 or length != expected or offset + length > found.st_size:
        raise ModelError(
            f"tensor {tensor.name!r} needs {expected} bytes at offset {offset} of {location!r}, "
            f"which has {found.st_size}",
            where=str(path),
            hint="the data file is cut short or belongs to another model: fetch both again",
        )
