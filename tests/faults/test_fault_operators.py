"""Faults of types, opsets and operators: what no runtime has, or has otherwise."""

from __future__ import annotations

import fault_graphs as graphs
import numpy as np
import onnx
import pytest
from fault_graphs import changed, network, node, one_operator, tensor
from installed import RUNTIME
from onnx import TensorProto
from outcomes import CUT, IMAGES, refused, works, writes
from place import INSPECT, PRUNE, QUANTIZE, WRITING, Place

from onnxqp.runtime import ceilings

LATE = pytest.mark.skipif(RUNTIME < (1, 29), reason="this onnxruntime finds it only where it runs the model")


def test_double_has_no_kernel_and_is_quantized_in_float32(place: Place) -> None:
    place.put(network(dtype=TensorProto.DOUBLE))
    place.refused(5, *PRUNE, says="conv1")
    place.done(*QUANTIZE)


def test_bfloat16_has_no_kernel(place: Place) -> None:
    """Nothing feeds inputs of that type."""
    place.put(network(dtype=TensorProto.BFLOAT16, opset=22))
    np.savez("data.npz", x=IMAGES)
    for command in WRITING:
        place.refused(5, *command, says="bfloat16")
        place.refused(5, *command, "--data", "data.npz", says="bfloat16")
    place.done(*INSPECT)


def test_weights_of_bfloat16_are_computed_in_float32(place: Place) -> None:
    proto = network(dtype=TensorProto.BFLOAT16, opset=22)
    for value, inner in ((proto.graph.input[0], "x_bf16"), (proto.graph.output[0], "scores_bf16")):
        outer = value.name
        for each in proto.graph.node:
            each.input[:] = [inner if name == outer else name for name in each.input]
            each.output[:] = [inner if name == outer else name for name in each.output]
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    proto.graph.node.insert(0, onnx.helper.make_node("Cast", ["x"], ["x_bf16"], "enter", to=TensorProto.BFLOAT16))
    leave = onnx.helper.make_node("Cast", ["scores_bf16"], ["scores"], "leave", to=TensorProto.FLOAT)
    proto.graph.node.append(leave)
    place.put(proto)
    for command in WRITING:
        place.done(*command)


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
        pytest.param("conv1", {"pads": [-9, -9, -9, -9]}, marks=LATE),
        pytest.param("classifier", {"transB": 0}, marks=LATE),
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


@LATE
def test_weights_that_do_not_fit_each_other(place: Place) -> None:
    def change(proto: onnx.ModelProto) -> None:
        tensor(proto, "w3").CopyFrom(graphs.weight("w3", 4, 17))

    refused(place, changed(change), 3, "classifier")
