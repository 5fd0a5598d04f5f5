"""Faults of the model file: what lies at the path is no model, or cannot be read. Exit code 3."""

from __future__ import annotations

import io
import os
import pickle
import zipfile

import numpy as np
import pytest
from fault_graphs import nested, network
from installed import RUNTIME
from place import INSPECT, OLD, PRODUCTS, PRUNE, QUANTIZE, Place

COMMANDS = (INSPECT, QUANTIZE, PRUNE, ("bench", "m.onnx"), ("validate", "m.onnx", "m.onnx"))
LARGEST_MESSAGE = 2**31 - 1


def archive() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        file.writestr("archive/data.pkl", "content")
    return held.getvalue()


def arrays() -> bytes:
    file = io.BytesIO()
    np.savez(file, x=np.zeros(3))
    return file.getvalue()


FOREIGN = {
    "empty": (b"", "the file is empty"),
    "git_lfs_pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
    "html_page": (b"<!DOCTYPE html><html><body>404</body></html>", "download"),
    "html_page_in_capitals": (b"\n  <HTML><body>404</body></html>", "download"),
    "jpeg": (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", "JPEG"),
    "png": (b"\x89PNG\r\n\x1a\n", "PNG"),
    "zip_or_pytorch": (archive(), "torch.onnx.export"),
    "numpy_archive": (arrays(), "--data"),
    "pickle": (pickle.dumps({"weights": [1, 2]}), "pickle"),
    "ort_flatbuffer": (b"\x18\x00\x00\x00ORTM" + bytes(40), ".onnx file that it was made from"),
    "tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(40), "tf2onnx"),
    "keras_hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(40), "tf2onnx"),
    "gzip": (b"\x1f\x8b\x08" + bytes(40), "unpack"),
    "text": (b"hello, this is no model\n" * 10, "ONNX"),
    "zeros": (bytes(1000), "ONNX"),
    "noise": (bytes(range(256)) * 8, "ONNX"),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_what_is_no_model_is_named(place: Place, kind: str, command: tuple[str, ...]) -> None:
    content, says = FOREIGN[kind]
    place.put(content)
    place.refused(3, *command, says=says)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.9, 0.99])
def test_truncated(place: Place, share: float) -> None:
    whole = network().SerializeToString()
    place.put(whole[: int(len(whole) * share)])
    for command in (INSPECT, QUANTIZE, PRUNE):
        place.refused(3, *command)


def test_truncated_says_how_long_it_is(place: Place) -> None:
    whole = network().SerializeToString()
    place.put(whole[:4000])
    assert "cut short" in place.refused(3, *QUANTIZE, says="4000 bytes")


def test_the_name_says_nothing(place: Place) -> None:
    """A binary model may be called anything; text in a file called .onnx is no model."""
    place.put(network(), "m.onnxtxt")
    place.done("inspect", "m.onnxtxt")
    place.put(b'ir_version: 10\nopset_import { version: 17 }\ngraph { name: "net" }\n')
    place.refused(3, *QUANTIZE)


def test_missing(place: Place) -> None:
    for command in COMMANDS:
        place.refused(3, *command, says="no such file")


def test_a_folder_names_the_model_inside(place: Place) -> None:
    (place.folder / "sub").mkdir()
    place.refused(3, "inspect", "sub", says="folder")
    place.put(network(), "sub/only.onnx")
    place.refused(3, "inspect", "sub", says="sub/only.onnx")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(place: Place) -> None:
    place.put(network()).chmod(0)
    place.refused(3, *QUANTIZE, says="permission")


def test_no_permission_as_the_system_says_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put(network())

    def refuse(path: object) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    ran = place.run(*QUANTIZE)
    assert (ran.code, "permission" in ran.err.lower()) == (3, True)


@pytest.mark.parametrize("kind", ["pipe", "device", "null"])
def test_a_pipe_or_device_is_not_waited_for(place: Place, kind: str) -> None:
    path = {"pipe": "pipe.onnx", "device": "/dev/zero", "null": "/dev/null"}[kind]
    if kind == "pipe":
        os.mkfifo(place.folder / path)
    place.refused(3, "inspect", path, says="regular file")


def test_a_loop_of_links(place: Place) -> None:
    (place.folder / "m.onnx").symlink_to("n.onnx")
    (place.folder / "n.onnx").symlink_to("m.onnx")
    place.refused(3, *QUANTIZE)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_names_that_no_file_has(place: Place, name: str) -> None:
    place.refused(3, "inspect", name)


def test_more_than_protobuf_can_hold(place: Place) -> None:
    """A sparse file: it claims three gigabytes and takes no room."""
    path = place.put(network())
    with path.open("r+b") as file:
        file.truncate(3 * 10**9)
    ran = place.run(*QUANTIZE)
    assert ran.code == 3
    assert "2 GB" in ran.err
    assert (place.folder / PRODUCTS["quantize"]).read_bytes() == OLD
    path.unlink()


@pytest.mark.parametrize("depth", [33, 60, 500])
def test_deep_nesting_is_explained(place: Place, depth: int) -> None:
    place.put(nested(depth))
    for command in (INSPECT, QUANTIZE, PRUNE):
        place.refused(3, *command, says="nested too deeply")


def test_nesting_that_protobuf_reads(place: Place) -> None:
    place.put(nested(30 if RUNTIME >= (1, 29) else 12))  # older ones take twice as long for every level
    place.done(*INSPECT)
    place.refused(5, *QUANTIZE, says="nothing in this model can be quantized")
