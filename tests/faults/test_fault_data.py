"""Faults of calibration and evaluation data, as a user of the command line meets them. Exit code 4.

What each reader says in detail is tested in tests/data.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from fault_graphs import SHAPE, network
from PIL import Image
from place import Place

ROWS = np.random.default_rng(0).standard_normal((12, *SHAPE)).astype(np.float32)


@pytest.fixture
def quantizing(place: Place) -> Place:
    """A place with a model, in which data is wanted."""
    place.put(network())
    return place


def refused(place: Place, spec: str, *more: str, says: str = "") -> None:
    """As calibration and as evaluation data, to quantize and to prune."""
    for command in (["quantize", "m.onnx", "--force"], ["prune", "m.onnx", "--ratio", "0.5", "--force"]):
        place.refused(4, *command, "--data", spec, *more, says=says)
    place.refused(4, "validate", "m.onnx", "m.onnx", "--eval", spec, *more, says=says)


def changed(index: int, value: float) -> np.ndarray:
    rows = ROWS.copy()
    rows[index, 1, 2, 3] = value
    return rows


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": ROWS[:, :, :4]}, "expected [N, 3, 8, 8]"),
        ({"x": ROWS.transpose(0, 2, 3, 1)}, "NHWC"),
        ({"y": ROWS}, "'x'"),
        ({"x": ROWS.astype(np.complex64)}, "complex64"),
        ({"x": ROWS.astype(str)}, "x"),
        ({"x": (ROWS * 9).astype(np.uint8)}, "--preprocess"),
        ({"x": changed(4, np.nan)}, "[4]: input 'x'"),
        ({"x": changed(7, np.inf)}, "[7]: input 'x'"),
        ({"x": ROWS.astype(np.float64) * 1e300}, "NaN or infinite"),
        ({"x": ROWS[:0]}, "no samples"),
        ({}, "x"),
    ],
    ids=[
        "shape",
        "layout",
        "name",
        "complex",
        "text",
        "pixels",
        "nan",
        "inf",
        "overflow",
        "empty",
        "nothing",
    ],
)
def test_wrong_shape_type_name_or_value(quantizing: Place, arrays: dict[str, np.ndarray], says: str) -> None:
    np.savez("data.npz", **arrays)
    refused(quantizing, "data.npz", says=says)


def test_one_sample_is_enough_with_a_warning(quantizing: Place) -> None:
    np.savez("data.npz", x=ROWS[:1])
    assert "warning" in quantizing.done("quantize", "m.onnx", "--data", "data.npz", "--no-validate", "--force")


def test_all_samples_identical(quantizing: Place) -> None:
    np.savez("data.npz", x=np.repeat(ROWS[:1], 8, axis=0))
    quantizing.done("quantize", "m.onnx", "--data", "data.npz", "--no-validate", "--force")


def test_all_zeros(quantizing: Place) -> None:
    np.savez("data.npz", x=np.zeros_like(ROWS))
    quantizing.done("quantize", "m.onnx", "--data", "data.npz", "--no-validate", "--force")


@pytest.mark.parametrize(
    "spec", ["missing.npz", "missing", "m.onnx", "no/such/folder", "hook.py:f", "a\0b", "x" * 3000]
)
def test_missing_or_no_data(quantizing: Place, spec: str) -> None:
    refused(quantizing, spec)


def test_an_empty_folder(quantizing: Place) -> None:
    (quantizing.folder / "data").mkdir()
    refused(quantizing, "data")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 not really", bytes(1000)], ids=range(4))
@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_files_that_are_no_arrays(quantizing: Place, content: bytes, suffix: str) -> None:
    (quantizing.folder / f"data{suffix}").write_bytes(content)
    refused(quantizing, f"data{suffix}")


def test_pickled_arrays_are_never_opened(quantizing: Place) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, ("touch trapped",)

    trapped = np.array([Trap()], dtype=object)
    np.save("data.npy", trapped, allow_pickle=True)
    np.savez("data.npz", x=trapped)
    for name in ("data.npy", "data.npz"):
        refused(quantizing, name, says="python objects")
    assert not (quantizing.folder / "trapped").exists()


def test_a_header_that_claims_128_tib(quantizing: Place) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4398046511104, 8), }"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64)
    (quantizing.folder / "data.npy").write_bytes(content)
    refused(quantizing, "data.npy")


def test_a_zip_bomb(quantizing: Place) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 3, 8, 8), }"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(40_000_000)
    with zipfile.ZipFile("data.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.npy", content)
    refused(quantizing, "data.npz")


def picture(size: tuple[int, int] = (8, 8), suffix: str = "PNG") -> bytes:
    held = io.BytesIO()
    Image.new("RGB", size).save(held, suffix)
    return held.getvalue()


def bomb(side: int) -> bytes:
    """A PNG header that claims side x side pixels, and no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("noise.png", b"noise" * 50),
        ("empty.jpg", b""),
        ("cut.png", picture((64, 64))[:60]),
        ("cut.jpg", picture((64, 64), "JPEG")[:-200]),
        ("bomb.png", bomb(9_000)),
        ("large_bomb.png", bomb(60_000)),
    ],
)
def test_corrupt_images_and_bombs(quantizing: Place, name: str, content: bytes) -> None:
    (quantizing.folder / "data").mkdir()
    (quantizing.folder / "data" / "a.png").write_bytes(picture())
    (quantizing.folder / "data" / name).write_bytes(content)
    refused(quantizing, "data", says=name)


@pytest.mark.parametrize("labels", [np.arange(12), np.full(12, -1), np.full(12, 4), np.arange(11), np.full(12, 0.5)])
def test_labels_out_of_range_or_of_another_number(quantizing: Place, labels: np.ndarray) -> None:
    np.savez("data.npz", x=ROWS, labels=labels)
    quantizing.refused(4, "validate", "m.onnx", "m.onnx", "--eval", "data.npz", says="label")


def test_links_pipes_and_loops(quantizing: Place) -> None:
    folder = quantizing.folder / "data"
    folder.mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "loop").symlink_to(folder)
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / ".hidden.png").write_bytes(b"noise")
    refused(quantizing, "data")
    for index in range(8):
        (folder / f"{index}.png").write_bytes(picture())
    quantizing.done("quantize", "m.onnx", "--data", "data", "--preprocess", "unit", "--no-validate", "--force")


def test_a_pipe_is_not_waited_for(quantizing: Place) -> None:
    os.mkfifo(quantizing.folder / "data.npz")
    refused(quantizing, "data.npz")


@pytest.mark.parametrize(
    "body",
    [
        "raise RuntimeError('no camera')",
        "return None",
        "return 5",
        "yield {'x': 'text'}",
        "yield [1, 2]",
        "yield {}",
        "import nothing_of_this_name",
        "raise SystemExit(0)",
        "raise KeyError",
        "yield {'x': __import__('numpy').zeros((1, 3, 8, 8), 'float32')}, object(), 3",
    ],
)
def test_hooks_that_fail_name_themselves(quantizing: Place, body: str) -> None:
    (quantizing.folder / "hook.py").write_text(f"def feeds():\n    {body}\n")
    for command in (["quantize", "m.onnx", "--data"], ["validate", "m.onnx", "m.onnx", "--eval"]):
        ran = quantizing.run(*command, "hook.py:feeds", *(["--force"] if command[0] == "quantize" else []))
        assert ran.code == 4, ran.err
        assert "hook.py" in ran.err


@pytest.mark.parametrize("text", ["def feeds(:", "1/0", "\x00", "import sys; sys.exit(0)"])
def test_hooks_that_do_not_load(quantizing: Place, text: str) -> None:
    (quantizing.folder / "hook.py").write_text(text)
    ran = quantizing.run("quantize", "m.onnx", "--data", "hook.py:feeds", "--force")
    assert ran.code == 4, ran.err
