"""Faults of the graph: what stands in a readable file and cannot be, or is not what everybody expects."""

from __future__ import annotations

from collections.abc import Callable

import fault_graphs as graphs
import numpy as np
import onnx
import pytest
from fault_graphs import SHAPE, changed, network, node, one_operator, tensor
from onnx import TensorProto, helper, numpy_helper
from place import INSPECT, PRODUCTS, PRUNE, QUANTIZE, WRITING, Place

from onnxqp.runtime import Session, ceilings

IMAGES = np.random.default_rng(0).standard_normal((4, *SHAPE)).astype(np.float32)
ROWS = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
QUANTIZED, CUT = 0.25, 3.0  # how far answers may lie from the model's: of a quantized one, of a halved one


def refused(place: Place, proto: onnx.ModelProto, code: int, says: str = "") -> None:
    """Whoever reads the model refuses it, and says the same."""
    place.put(proto)
    for command in (INSPECT, *WRITING):
        place.refused(code, *command, says=says)


def writes(place: Place, proto: onnx.ModelProto, code: int, says: str = "") -> None:
    """It can be looked at, but neither quantized nor pruned."""
    place.put(proto)
    place.done(*INSPECT)
    for command in WRITING:
        place.refused(code, *command, says=says)


def works(place: Place, proto: onnx.ModelProto, says: str = "", feed: np.ndarray = IMAGES) -> None:
    """Quantized and pruned as if nothing were the matter."""
    place.put(proto)
    place.done(*INSPECT)
    for command, tolerance in ((QUANTIZE, QUANTIZED), (PRUNE, CUT)):
        assert says in place.done(*command)
        place.same_answers(PRODUCTS[command[0]], tolerance=tolerance, x=feed)


# ---- tensors ---------------------------------------------------------------------------------------------------


def resized(dims: list[int]) -> onnx.ModelProto:
    def change(proto: onnx.ModelProto) -> None:
        tensor(proto, "w1").dims[:] = dims

    return changed(change)


@pytest.mark.parametrize("dims", [[2**40, 3, 3, 3], [2**62, 2**62, 2**62, 2], [16, 3, 3], [16, 3, 3, 4], [0]])
def test_declared_dims_beyond_the_data(place: Place, dims: list[int]) -> None:
    refused(place, resized(dims), 3, "'w1' holds 1728 bytes")


def test_negative_dims(place: Place) -> None:
    refused(place, resized([-16, 3, 3, 3]), 3, "negative")


@pytest.mark.parametrize("count", [0, 1, 431, 433])
def test_numbers_that_are_not_raw_are_counted_too(place: Place, count: int) -> None:
    def change(proto: onnx.ModelProto) -> None:
        found = tensor(proto, "w1")
        found.ClearField("raw_data")
        found.float_data.extend([0.5] * count)

    refused(place, changed(change), 3, f"'w1' holds {count} numbers")


@pytest.mark.parametrize("kind", [0, 77, -3])
def test_unknown_element_type(place: Place, kind: int) -> None:
    def change(proto: onnx.ModelProto) -> None:
        tensor(proto, "w1").data_type = kind

    refused(place, changed(change), 3, "unknown type")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["w1", "w2", "b1", "w3"])
def test_nan_or_inf_weight(place: Place, name: str, value: float) -> None:
    place.put(graphs.poisoned(name, value))
    place.done(*INSPECT)
    for command in WRITING:
        assert "[" in place.refused(3, *command, says=f"tensor '{name}' holds 1 NaN or infinite of")


def test_all_zero_channel(place: Place) -> None:
    def change(proto: onnx.ModelProto) -> None:
        for name in ("w1", "b1"):
            found = tensor(proto, name)
            array = numpy_helper.to_array(found).copy()
            array[3] = 0
            found.CopyFrom(numpy_helper.from_array(array, name))

    works(place, changed(change))


def test_all_zero_weights(place: Place) -> None:
    def change(proto: onnx.ModelProto) -> None:
        found = tensor(proto, "w1")
        found.CopyFrom(numpy_helper.from_array(np.zeros((16, 3, 3, 3), np.float32), "w1"))

    place.put(changed(change))
    for command in WRITING:
        place.done(*command)


def test_identical_initializers_are_one(place: Place) -> None:
    def change(proto: onnx.ModelProto) -> None:
        proto.graph.initializer.append(tensor(proto, "w1"))

    works(place, changed(change))


def test_different_initializers_of_one_name(place: Place) -> None:
    def change(proto: onnx.ModelProto) -> None:
        proto.graph.initializer.append(graphs.weight("w1", 16, 3, 3, 3))
        proto.graph.initializer[-1].raw_data = bytes(1728)

    refused(place, changed(change), 3, "'w1' is given twice")


def test_sparse_initializer_is_unpacked(place: Place) -> None:
    place.put(graphs.sparse())
    place.done(*INSPECT)
    for command in WRITING:
        place.refused(5, *command)  # one small layer: nothing to do, and no crash


@pytest.mark.parametrize("places", [[0, 9, 99], [0, 9]])
def test_sparse_initializer_that_contradicts_itself(place: Place, places: list[int]) -> None:
    proto = graphs.sparse()
    found = proto.graph.sparse_initializer[0].indices
    found.CopyFrom(numpy_helper.from_array(np.array(places, np.int64), "places"))
    refused(place, proto, 3)


# ---- sizes -----------------------------------------------------------------------------------------------------


def with_height(size: int) -> onnx.ModelProto:
    def change(proto: onnx.ModelProto) -> None:
        proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value = size

    return changed(change)


@pytest.mark.parametrize("size", [2**28, 2**40, 2**62])
def test_an_input_too_large_to_make_up(place: Place, size: int) -> None:
    writes(place, with_height(size), 7, "smaller sizes")


def test_a_negative_input_size_is_an_open_one(place: Place) -> None:
    works(place, with_height(-1))


def test_an_input_of_nothing(place: Place) -> None:
    place.put(with_height(0))
    for command in WRITING:
        place.refused(4, *command)


def test_an_input_without_a_shape_takes_that_of_the_data(place: Place) -> None:
    def change(proto: onnx.ModelProto) -> None:
        proto.graph.input[0].type.tensor_type.ClearField("shape")

    place.put(changed(change))
    place.done(*INSPECT)
    for command in WRITING:
        place.refused(5, *command, says="--data")
    place.done(*QUANTIZE, "--shape", "x:1,3,8,8")
    place.refused(5, *PRUNE, "--shape", "x:1,3,8,8")  # which axis holds channels is not known
    np.savez("data.npz", x=np.concatenate([IMAGES] * 3))
    place.done(*QUANTIZE, "--data", "data.npz")


def test_dynamic_dims_stay_dynamic(place: Place) -> None:
    def change(proto: onnx.ModelProto) -> None:
        for index, dim in enumerate(proto.graph.input[0].type.tensor_type.shape.dim):
            if index != 1:
                dim.dim_param = f"d{index}"

    works(place, changed(change))
    for product in PRODUCTS.values():
        shape = onnx.load(place.folder / product).graph.input[0].type.tensor_type.shape
        assert [dim.dim_param for dim in shape.dim] == ["d0", "", "d2", "d3"]


@pytest.mark.parametrize("build", [graphs.huge_constant, graphs.huge_tile])
def test_values_beyond_the_memory(place: Place, build: Callable[[], onnx.ModelProto]) -> None:
    place.put(build())
    place.done(*INSPECT)
    for command in WRITING:
        assert "huge" in place.refused(7, *command)


def test_a_mega_of_padding(place: Place) -> None:
    place.put(graphs.with_attribute("conv1", pads=[10**6] * 4))
    for command in WRITING:
        place.refused(7, *command, says="conv1")


# ---- wiring ----------------------------------------------------------------------------------------------------


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


# ---- types, opsets, operators ----------------------------------------------------------------------------------


def test_double_has_no_kernel_and_is_quantized_in_float32(place: Place) -> None:
    place.put(network(dtype=TensorProto.DOUBLE))
    place.refused(5, *PRUNE, says="conv1")
    place.done(*QUANTIZE)


def test_bfloat16_has_no_kernel(place: Place) -> None:
    place.put(network(dtype=TensorProto.BFLOAT16, opset=22))
    place.refused(5, *PRUNE, says="conv1")
    place.refused(5, *QUANTIZE, says="bfloat16")


def test_float16_is_pruned_and_quantized(place: Place) -> None:
    place.put(network(dtype=TensorProto.FLOAT16))
    place.done(*QUANTIZE)
    place.done(*PRUNE)
    place.same_answers("m.pruned.onnx", tolerance=CUT, x=IMAGES.astype(np.float16))


@pytest.mark.parametrize("opset", [1, 6])
def test_old_opset_without_kernels(place: Place, opset: int) -> None:
    """Converted where onnx's converter can, else refused; never written in a form that does not load."""
    place.put(network(opset=opset, ir_version=4))
    for command in WRITING:
        place.refused(5, *command)


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12])
def test_old_opset_is_raised_for_per_channel_weights(place: Place, opset: int) -> None:
    works(place, network(opset=opset, ir_version=4), says=f"opset raised from {opset}")


@pytest.mark.parametrize("opset", [13, 18, 20, 21])
def test_newer_opsets_stay(place: Place, opset: int) -> None:
    works(place, network(opset=opset))
    assert onnx.load(place.folder / "m.pruned.onnx").opset_import[0].version == opset


@pytest.mark.parametrize(("opset", "ir_version"), [(99, 10), (17, ceilings().ir_version + 1), (17, 99)])
def test_beyond_the_installed_runtime(place: Place, opset: int, ir_version: int) -> None:
    writes(place, network(opset=opset, ir_version=ir_version), 5, "install a newer onnxruntime")


def test_an_opset_without_integer_kernels(place: Place) -> None:
    """Some versions of onnxruntime open an opset for which they have no QuantizeLinear yet."""
    place.put(network(opset=ceilings().opset + 1))
    place.refused(5, *QUANTIZE, says="install a newer onnxruntime")


@pytest.mark.parametrize("opset", [-1, 0])
def test_no_such_opset(place: Place, opset: int) -> None:
    place.put(network(opset=opset))
    for command in WRITING:
        place.refused(5, *command)


@pytest.mark.parametrize("domain", ["", "com.acme", "ai.onnx.contrib"])
def test_unknown_operator(place: Place, domain: str) -> None:
    writes(place, one_operator("Fancy", domain), 5, "Fancy")


def test_training_operators(place: Place) -> None:
    writes(place, one_operator("Gradient", "ai.onnx.preview.training"), 5, "Gradient")


def test_training_info_is_dropped_and_said(place: Place) -> None:
    def change(proto: onnx.ModelProto) -> None:
        proto.training_info.add().algorithm.name = "steps"

    works(place, changed(change), says="training")
    assert not onnx.load(place.folder / "m.int8.onnx").training_info


def test_already_quantized(place: Place) -> None:
    place.put(network())
    place.done(*QUANTIZE, "--op-type", "Conv")  # named, so whatever it costs
    place.put((place.folder / "m.int8.onnx").read_bytes())
    place.refused(5, *QUANTIZE, says="already quantized")


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("conv1", {"kernel_shape": [99, 99]}),
        ("conv1", {"kernel_shape": [0, 0]}),
        ("conv1", {"group": 0}),
        ("conv1", {"group": -2}),
        ("conv1", {"group": 7}),
        ("conv2", {"group": 2}),
        ("conv1", {"strides": [0, 0]}),
        ("conv1", {"strides": [-1, 1]}),
        ("conv1", {"dilations": [0, 1]}),
        ("conv1", {"pads": [-9, -9, -9, -9]}),
        ("classifier", {"transB": 0}),
    ],
    ids=str,
)
def test_bad_attributes(place: Place, name: str, attributes: dict[str, object]) -> None:
    place.put(graphs.with_attribute(name, **attributes))
    for command in (INSPECT, *WRITING):
        place.refused(3, *command, says=name)


def test_attribute_of_another_type(place: Place) -> None:
    def change(proto: onnx.ModelProto) -> None:
        node(proto, "conv1").attribute[0].type = onnx.AttributeProto.TENSOR

    refused(place, changed(change), 3)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        *((name, count) for name in ("conv1", "classifier") for count in (0, 1, 9)),
        *((name, count) for name in ("relu1", "pool", "flatten") for count in (0, 9)),  # one input is right
    ],
)
def test_wrong_number_of_inputs(place: Place, name: str, count: int) -> None:
    def change(proto: onnx.ModelProto) -> None:
        found = node(proto, name)
        kept = (list(found.input) * 9)[:count]
        del found.input[:]
        found.input.extend(kept)

    refused(place, changed(change), 3)


def test_weights_that_do_not_fit_each_other(place: Place) -> None:
    def change(proto: onnx.ModelProto) -> None:
        tensor(proto, "w3").CopyFrom(graphs.weight("w3", 4, 17))

    refused(place, changed(change), 3, "classifier")


# ---- what is unusual, and right --------------------------------------------------------------------------------


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
