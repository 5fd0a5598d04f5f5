"""Faults of external data: weights in a file of their own, which may be missing, cut short or out of bounds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from fault_graphs import SHAPE, conditional, network
from place import INSPECT, PRUNE, QUANTIZE, Place

INPUT = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)


def external(place: Place, folder: str = ".", proto: onnx.ModelProto | None = None) -> Path:
    """m.onnx with its weights in weights.bin."""
    (place.folder / folder).mkdir(exist_ok=True)
    path = place.folder / folder / "m.onnx"
    options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx.save(proto or network(), path, **options)
    return path


def edit(path: Path, change: Callable[[dict[str, str]], None], index: int = 0) -> None:
    """Change what the model says about where tensor `index` lies."""
    proto = onnx.load(path, load_external_data=False)
    tensor = proto.graph.initializer[index]
    entries = {entry.key: entry.value for entry in tensor.external_data}
    change(entries)
    del tensor.external_data[:]
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(proto.SerializeToString())


def refused(place: Place, says: str = "") -> None:
    for command in (INSPECT, QUANTIZE, PRUNE, ("bench", "m.onnx")):
        place.refused(3, *command, says=says)


def test_missing(place: Place) -> None:
    external(place)
    (place.folder / "weights.bin").unlink()
    refused(place, "weights.bin")


@pytest.mark.parametrize(
    "location",
    ["../weights.bin", "a/../../weights.bin", "/etc/passwd", "/dev/zero", "", ".", "sub", "no/such/file", "a\0b"],
)
def test_outside_the_folder_or_no_file(place: Place, location: str) -> None:
    path = external(place)
    (place.folder / "sub").mkdir()
    (place.folder.parent / "weights.bin").write_bytes((place.folder / "weights.bin").read_bytes())
    edit(path, lambda entries: entries.update(location=location))
    refused(place)


def test_no_location_at_all(place: Place) -> None:
    edit(external(place), lambda entries: entries.pop("location"))
    refused(place)


def test_a_pipe_is_not_waited_for(place: Place) -> None:
    path = external(place)
    os.mkfifo(place.folder / "pipe")
    edit(path, lambda entries: entries.update(location="pipe"))
    refused(place)


@pytest.mark.parametrize(
    "attributes",
    [
        {"offset": "-1"},
        {"offset": "1000000000000000"},
        {"length": "1000000000000000"},
        {"length": "-5"},
        {"length": "0"},
        {"length": "7"},
        {"offset": "nonsense"},
        {"length": "1e3"},
        {"offset": "99999999999999999999999999"},
    ],
    ids=lambda attributes: "_".join(f"{key}_{value}" for key, value in attributes.items()),
)
def test_offset_or_length_out_of_the_file(place: Place, attributes: dict[str, str]) -> None:
    edit(external(place), lambda entries: entries.update(attributes))
    refused(place)


@pytest.mark.parametrize("size", [0, 1, 100, -1])
def test_shorter_than_the_tensors(place: Place, size: int) -> None:
    """onnx.load reads such a model without a word."""
    external(place)
    data = place.folder / "weights.bin"
    data.write_bytes(data.read_bytes()[:size])
    refused(place, "cut short")


def test_a_link_to_the_outside(place: Place, tmp_path_factory: pytest.TempPathFactory) -> None:
    external(place)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "weights.bin"
    (place.folder / "weights.bin").rename(elsewhere)
    (place.folder / "weights.bin").symlink_to(elsewhere)
    refused(place, "cp -L")


def test_a_linked_folder_to_the_outside(place: Place, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = external(place)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (place.folder / "weights.bin").rename(elsewhere / "weights.bin")
    (place.folder / "sub").symlink_to(elsewhere)
    edit(path, lambda entries: entries.update(location="sub/weights.bin"))
    refused(place)


def test_a_link_inside_the_folder_is_the_users_own(place: Place) -> None:
    external(place)
    (place.folder / "weights.bin").rename(place.folder / "real.bin")
    (place.folder / "weights.bin").symlink_to("real.bin")
    place.done(*QUANTIZE)
    place.done(*PRUNE)


def test_a_hard_link_may_be_a_file_of_elsewhere(place: Place) -> None:
    external(place)
    os.link(place.folder / "weights.bin", place.folder.parent / "elsewhere.bin")
    refused(place, "copy it")


def test_tensors_in_bodies_are_looked_at_too(place: Place) -> None:
    """An attacker would not use the obvious place."""
    proto = conditional()
    body = next(attribute.g for attribute in proto.graph.node[2].attribute if attribute.name == "then_branch")
    body.initializer.add(name="w2", data_type=onnx.TensorProto.FLOAT, dims=[16, 16, 3, 3])
    body.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    body.initializer[0].external_data.add(key="location", value="../../../../etc/passwd")
    place.put(proto)
    refused(place, "outside")


def test_in_memory_a_model_reads_no_file_of_the_current_folder(place: Place) -> None:
    """onnx's to_array would take them from wherever the process happens to be."""
    import onnxqp

    external(place)
    proto = onnx.load(place.folder / "m.onnx", load_external_data=False)
    with pytest.raises(onnxqp.ModelError):
        onnxqp.inspect(proto)


def test_the_result_of_a_good_one_stands_alone(place: Place) -> None:
    external(place, "sub")
    for command, product in (("quantize", "a.onnx"), ("prune", "b.onnx")):
        ratio = ["--ratio", "0.25"] if command == "prune" else []
        place.run(command, "sub/m.onnx", *ratio, "--no-validate", "-o", product)
        onnx.checker.check_model(place.folder / product, full_check=True)
        assert not any(entry.data_location for entry in onnx.load(place.folder / product).graph.initializer)


def test_more_weights_than_fit_into_a_file_get_a_second_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have their names at once, and a second run replaces both."""
    from onnxqp import protos

    monkeypatch.setattr(protos, "EMBED_LIMIT", 1000)
    external(place)
    before = place.files().keys()
    for seed in ("0", "1"):
        ran = place.run("prune", "m.onnx", "--ratio", "0.25", "--no-validate", "--seed", seed, "--force")
        assert ran.code == 0, ran.err
        place.same_answers("m.pruned.onnx", tolerance=2.0, x=INPUT)
        (data,) = place.files().keys() - before
        assert data.startswith("m.pruned.onnx.")
        assert data.endswith(".data")
