"""What is unusual, and right: what few models hold, and every model may."""

from __future__ import annotations

from collections.abc import Callable

import fault_graphs as graphs
import numpy as np
import onnx
import pytest
from fault_graphs import network
from onnx import TensorProto, helper
from outcomes import CUT, IMAGES, QUANTIZED, ROWS, refused, works, writes
from place import INSPECT, PRODUCTS, PRUNE, QUANTIZE, WRITING, Place

from onnxqp.runtime import Session


def test_convolutions_in_a_body_stay_float_and_are_named(place: Place) -> None:
    place.put(graphs.conditional())
    place.done(*QUANTIZE)
    place.same_answers("m.int8.onnx", tolerance=QUANTIZED, x=IMAGES, flag=np.array(True))
    place.same_answers("m.int8.onnx", tolerance=QUANTIZED, x=IMAGES, flag=np.array(False))
    assert "inner_conv" in place.run("quantize", "m.onnx", "--dry-run", "-v").out
    place.done(*PRUNE)
    for flag in (True, False):
        Session(place.folder / "m.pruned.onnx").run({"x": IMAGES, "flag": np.array(flag)})


def test_functions_are_inlined(place: Place) -> None:
    place.put(graphs.with_function())
    place.done(*INSPECT)
    place.done(*PRUNE)
    place.same_answers("m.pruned.onnx", tolerance=CUT, x=ROWS)


def test_recursive_functions(place: Place) -> None:
    refused(place, graphs.with_function(recursive=True), 3, "calls itself")


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT32, TensorProto.UINT8, TensorProto.BOOL])
def test_inputs_that_are_no_floats_are_fed(place: Place, kind: int) -> None:
    place.put(graphs.typed_input(kind))
    place.done("bench", "m.onnx")


def test_string_input(place: Place) -> None:
    place.put(graphs.typed_input(TensorProto.STRING))
    for command in WRITING:
        place.refused(4, *command, says="--data")
    np.savez("data.npz", x=np.full((8, 8), "1.5"))
    place.done("bench", "m.onnx", "--data", "data.npz")


@pytest.mark.parametrize("build", [graphs.sequence_input, graphs.optional_input])
def test_inputs_that_are_no_tensors(place: Place, build: Callable[[], onnx.ModelProto]) -> None:
    writes(place, build(), 5, "nothing that numpy holds")


def test_tied_weights(place: Place) -> None:
    place.put(graphs.tied())
    place.done(*INSPECT)
    for command in WRITING:
        ran = place.run(*command)
        assert ran.code in (0, 5), ran.err
        if ran.code == 0:
            place.same_answers(PRODUCTS[command[0]], tolerance=CUT, x=ROWS)


def test_a_weight_that_is_an_output_is_not_cut(place: Place) -> None:
    place.put(graphs.weight_is_output())
    place.done(*QUANTIZE)
    place.same_answers("m.int8.onnx", tolerance=QUANTIZED, x=IMAGES)
    place.refused(5, *PRUNE, says="'w2'")


def test_weights_that_are_inputs(place: Place) -> None:
    place.put(graphs.weight_is_input())
    for command, tolerance in ((QUANTIZE, QUANTIZED), (PRUNE, CUT)):
        assert "listed as graph inputs" in place.done(*command)
        place.same_answers(PRODUCTS[command[0]], tolerance=tolerance, x=IMAGES)
        assert [value.name for value in onnx.load(place.folder / PRODUCTS[command[0]]).graph.input] == ["x"]


def test_an_initializer_used_as_a_shape_is_rewritten(place: Place) -> None:
    works(place, graphs.shape_initializer())


@pytest.mark.parametrize(
    "name",
    ["模型 é/", "a\nb\x1b[31m<b>&", "../../etc/passwd/", "'\"`$(true)|{}[bold]", "\u202eright to left", " "],
    ids=ascii,
)
def test_names_are_only_names(place: Place, name: str) -> None:
    """Written back as they are, shown without control characters, and never the name of a file."""
    place.put(graphs.renamed(name))
    ran = place.run("inspect", "m.onnx", "--groups", "-v")
    assert ran.code == 0
    assert "\x1b" not in ran.out
    works(place, graphs.renamed(name))
    for suffix in ("json", "md", "xml", "html"):
        place.run("prune", "m.onnx", "--ratio", "0.5", "--dry-run", "--report", f"report.{suffix}")
        text = (place.folder / f"report.{suffix}").read_text(encoding="utf-8")
        assert "\x1b" not in text
        assert "<b>" not in text or suffix == "json"


def test_names_of_a_hundred_thousand_characters(place: Place) -> None:
    works(place, graphs.renamed("n" * 100_000))


@pytest.mark.parametrize("text", [b"conv1", b"w1", b"relu1", b"scores"])
def test_names_that_are_not_utf8(place: Place, text: bytes) -> None:
    """Protobuf's parser hands them out as bytes, which are no names to anybody."""
    whole = network().SerializeToString()
    assert text in whole
    for command in (*WRITING, INSPECT):
        place.put(whole.replace(text, b"\xe5" + text[1:]))
        place.refused(3, *command, says="is not UTF-8")


def test_a_scan_with_a_batch_axis_keeps_its_opset(place: Place) -> None:
    """The converter takes opsets 8 and 9 of Scan for compatible, and they are not."""
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "e"], ["t"]), helper.make_node("Identity", ["t"], ["o"])],
        "body",
        [graphs.info("s", [2]), graphs.info("e", [2])],
        [graphs.info("t", [2]), graphs.info("o", [2])],
    )
    scan = helper.make_node("Scan", ["", "x", "y"], ["last", "all"], "scan", num_scan_inputs=1, body=body)
    inputs = [graphs.info("x", [1, 2]), graphs.info("y", [1, 3, 2])]
    outputs = [graphs.info("last", [1, 2]), graphs.info("all", [1, 3, 2])]
    place.put(graphs.model([scan], inputs, outputs, [], opset=8, ir_version=4))
    ran = place.run("inspect", "m.onnx")
    assert ran.code == 0
    assert "opset 8 could not be raised" in ran.err
