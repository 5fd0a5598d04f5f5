"""Is what a model file says consistent? Checked on the proto, before anything believes it."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import onnx
import onnx_ir as ir

from onnxqp.errors import ModelError


def check(proto: onnx.ModelProto, path: Path | None = None) -> None:
    """What onnx.checker passes and onnxruntime finds late, or the other way round: structure and tensor sizes."""
    where = None if path is None else str(path)
    if not proto.HasField("graph") or not proto.graph.node:
        raise ModelError("the model has no nodes", where=where, hint="the file is not an exported network")
    if not proto.ir_version or not proto.opset_import:
        raise ModelError("the model states no IR version or opset", where=where, hint="export the model again")
    _check_wiring(proto.graph, where)
    for tensor in _tensors(proto.graph):
        _check_tensor(tensor, path)


def _check_wiring(graph: onnx.GraphProto, where: str | None) -> None:
    """Every value defined once, every use defined, no cycle; onnxruntime sorts, so order alone is no fault."""
    outside = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    outside |= {tensor.values.name for tensor in graph.sparse_initializer} | {""}
    producer: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in producer or name in outside:
                raise ModelError(
                    f"value {name!r} is defined twice", where=where, hint="the file breaks ONNX's single assignment"
                )
            producer[name] = index
    for name in (*(name for node in graph.node for name in node.input), *(output.name for output in graph.output)):
        if name not in producer and name not in outside:
            raise ModelError(
                f"{name!r} is used, but nothing defines it",
                where=where,
                hint="the graph was cut badly: export the model again",
            )
    sorter = TopologicalSorter(
        {index: [producer[name] for name in node.input if name in producer] for index, node in enumerate(graph.node)}
    )
    try:
        sorter.prepare()
    except CycleError as err:
        stuck = graph.node[err.args[1][0]]
        raise ModelError(
            f"the graph has a cycle through node {stuck.name or stuck.op_type!r}", where=where, hint="export it again"
        ) from err


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    stack = [graph]
    while stack:
        inner = stack.pop()
        yield from inner.initializer
        for node in inner.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                if attribute.HasField("g"):
                    stack.append(attribute.g)
                stack.extend(attribute.graphs)


def _check_tensor(tensor: onnx.TensorProto, path: Path | None) -> None:
    """The stored bytes are as many as the dimensions say, inside the file and inside the model's folder."""
    try:
        dtype = ir.DataType(tensor.data_type)
    except ValueError as err:
        raise ModelError(f"tensor {tensor.name!r} has an unknown type {tensor.data_type}", hint="export again") from err
    if dtype == ir.DataType.STRING:
        return
    count = 1
    for dim in tensor.dims:
        if dim < 0:
            raise ModelError(f"tensor {tensor.name!r} has a negative dimension", hint="export the model again")
        count *= dim
    expected = (count * dtype.bitwidth + 7) // 8
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        _check_external(tensor, expected, path)
    elif tensor.HasField("raw_data") and len(tensor.raw_data) != expected:
        raise ModelError(
            f"tensor {tensor.name!r} holds {len(tensor.raw_data)} bytes, but {list(tensor.dims)} needs {expected}",
            where=None if path is None else str(path),
            hint="the file is damaged: fetch or export it again",
        )


def _check_external(tensor: onnx.TensorProto, expected: int, path: Path | None) -> None:
    info = {entry.key: entry.value for entry in tensor.external_data}
    location = info.get("location", "")
    if path is None:
        raise ModelError(f"tensor {tensor.name!r} is in a file, but the model is not", hint="give the model's path")
    folder = path.parent.resolve()
    file = path.parent / location
    if not location or not file.resolve().is_relative_to(folder):
        raise ModelError(
            f"tensor {tensor.name!r} points outside the model's folder: {location!r}",
            where=str(path),
            hint="copy model and data into one folder, resolving links (`cp -L`)",
        )
    try:
        size = file.stat().st_size if file.is_file() else None
        offset, length = int(info.get("offset", 0)), int(info.get("length", expected))
    except (OSError, ValueError):
        size = None
    if size is None:
        raise ModelError(
            f"the external data file {location!r} is missing",
            where=str(path),
            hint="the weights live in a second file: put it beside the model",
        )
    if offset < 0 or length != expected or offset + length > size:
        raise ModelError(
            f"tensor {tensor.name!r} needs {expected} bytes at offset {offset} of {location!r}, which has {size}",
            where=str(path),
            hint="the data file is cut short or belongs to another model: fetch both again",
        )
