"""Faults of the wiring: which node reads and writes what."""

from __future__ import annotations

import fault_graphs as graphs
import onnx
import pytest
from fault_graphs import changed, network, node
from onnx import helper
from outcomes import refused, works, writes
from place import INSPECT, PRODUCTS, WRITING, Place


def test_cycle(place: Place) -> None:
    refused(place, changed(lambda proto: node(proto, "conv1").input.__setitem__(0, "r2")), 3, "cycle through node")


def test_node_that_reads_itself(place: Place) -> None:
    refused(place, changed(lambda proto: node(proto, "conv1").input.__setitem__(0, "c1")), 3, "cycle")


def test_dangling_input(place: Place) -> None:
    refused(place, changed(lambda proto: node(proto, "conv2").input.__setitem__(0, "nowhere")), 3, "'nowhere' is used")


def test_dangling_output(place: Place) -> None:
    refused(place, changed(lambda proto: proto.graph.output.append(graphs.info("lost", [1]))), 3, "'lost' is used")


def test_dangling_input_in_a_body(place: Place) -> None:
    proto = graphs.conditional()
    body = next(attribute.g for attribute in node(proto, "choose").attribute if attribute.name == "then_branch")
    body.node[0].input[0] = "nowhere"
    refused(place, proto, 3, "'nowhere' is used")


def test_cycle_through_a_body(place: Place) -> None:
    proto = graphs.conditional()
    body = next(attribute.g for attribute in node(proto, "choose").attribute if attribute.name == "else_branch")
    body.node[0].input[0] = "y"
    refused(place, proto, 3, "cycle")


def test_duplicate_output(place: Place) -> None:
    twice = helper.make_node("Relu", ["x"], ["c1"], "again")
    refused(place, changed(lambda proto: proto.graph.node.append(twice)), 3, "'c1' is defined twice")


def test_duplicate_node_names_are_made_unique(place: Place) -> None:
    """onnx's checker passes them, onnxruntime does not."""

    def change(proto: onnx.ModelProto) -> None:
        for found in proto.graph.node:
            found.name = "same"

    place.put(changed(change))
    place.done(*INSPECT)
    for command in WRITING:
        assert "same node name" in place.done(*command)
        names = [found.name for found in onnx.load(place.folder / PRODUCTS[command[0]]).graph.node]
        assert len(set(names)) == len(names)


def test_unnamed_nodes_get_names(place: Place) -> None:
    def change(proto: onnx.ModelProto) -> None:
        for found in proto.graph.node:
            found.name = ""

    works(place, changed(change))
    assert all(found.name for found in onnx.load(place.folder / "m.int8.onnx").graph.node)


def test_not_topologically_sorted(place: Place) -> None:
    def change(proto: onnx.ModelProto) -> None:
        nodes = list(proto.graph.node)[::-1]
        del proto.graph.node[:]
        proto.graph.node.extend(nodes)

    works(place, changed(change))


def test_not_topologically_sorted_in_memory(place: Place) -> None:
    import onnxqp

    proto = network()
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    assert onnxqp.inspect(proto).report.input is not None


@pytest.mark.parametrize("field", ["node", "output", "graph", "opset", "ir"])
def test_empty_graph(place: Place, field: str) -> None:
    proto = network()
    if field == "graph":
        proto.ClearField("graph")
    elif field == "opset":
        del proto.opset_import[:]
    elif field == "ir":
        proto.ClearField("ir_version")
    else:
        del getattr(proto.graph, field)[:]
    refused(place, proto, 3)


def test_identity_graph(place: Place) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"], "same")]
    writes(place, graphs.model(nodes, [graphs.info("x", [1, 4])], [graphs.info("y", [1, 4])]), 5)
