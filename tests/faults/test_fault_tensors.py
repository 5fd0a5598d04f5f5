"""Faults of weights and of sizes: numbers that contradict their shapes, and shapes that no memory holds."""

from __future__ import annotations

from collections.abc import Callable

import fault_graphs as graphs
import numpy as np
import onnx
import pytest
from fault_graphs import changed, tensor
from onnx import numpy_helper
from outcomes import IMAGES, refused, works, writes
from place import INSPECT, PRODUCTS, PRUNE, QUANTIZE, WRITING, Place

# ---- tensors --------------------------------------------------------------------------------------------------------


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


# ---- sizes ----------------------------------------------------------------------------------------------------------


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
