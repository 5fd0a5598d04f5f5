"""The graph as onnxruntime really runs it, after its optimisations."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnxqp.runtime.session import Session, Source


def optimized_graph(source: Source, *, threads: int = 1, options: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """The graph that onnxruntime really runs, after all its optimisations, fusions and layout changes."""
    return _open_with_graph(source, threads, options)[1]


@dataclass(frozen=True)
class RunningNode:
    """A node of a graph as it really runs."""

    name: str
    op_type: str


def open_and_look(source: Source, *, threads: int = 1) -> tuple[Session, list[RunningNode]]:
    """A session, and the nodes that it really runs, those in bodies of If, Loop and Scan included."""
    session, proto = _open_with_graph(source, threads, None)
    return session, [RunningNode(node.name, node.op_type) for node in all_nodes(proto.graph)]


def _open_with_graph(
    source: Source, threads: int, options: Mapping[str, str] | None
) -> tuple[Session, onnx.ModelProto]:
    with tempfile.TemporaryDirectory(prefix="onnxqp-") as folder:
        path = Path(folder) / "optimized.onnx"
        session = Session(source, threads=threads, options=options, dump=path)
        return session, onnx.load_model(str(path), load_external_data=False)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Those of the graph and of the bodies of its If, Loop and Scan nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from all_nodes(attribute.g)
