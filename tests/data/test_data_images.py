"""Folders of images: classes, `classes.txt`, `labels.csv`, and images that are damaged or too large."""

from __future__ import annotations

import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxqp.data import PRESETS, read
from onnxqp.data.preprocess import Preprocessing
from onnxqp.errors import DataError
from onnxqp.specs import InputSpec

SPEC = InputSpec("x", np.dtype(np.float32), ("N", 3, 8, 8))
UNIT = PRESETS["unit"]


def image(path: Path, level: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (level, level, level)).save(path)
    return path


def folders(root: Path, *names: str, each: int = 2) -> Path:
    for place, name in enumerate(names):
        for number in range(each):
            image(root / name / f"{number}.png", place)
    return root


def refused(spec: object, **options: object) -> DataError:
    with pytest.raises(DataError) as caught:
        list(read(str(spec), [SPEC], **({"preprocess": UNIT} | options)))
    assert caught.value.hint
    return caught.value


# ---- labels --------------------------------------------------------------------------------------------------


def test_integer_folders_are_the_classes(tmp_path):
    folders(tmp_path, "7", "10", "002")
    drawn = read(str(tmp_path), [SPEC], preprocess=UNIT, classes=11)
    levels = [round(float(feed["x"].max()) * 255) for feed in drawn.feeds()]
    assert dict(zip(levels, drawn.labels, strict=True)) == {0: 7, 1: 10, 2: 2}
    assert [sample.origin.endswith(".png") for sample in drawn.samples()] == [True] * 6


@pytest.mark.parametrize("inside", [True, False])
def test_classes_txt_in_the_folder_or_beside_it(tmp_path, inside):
    root = folders(tmp_path / "eval", "cat", "dog")
    (root if inside else tmp_path).joinpath("classes.txt").write_text("dog\nbird\ncat\n\n", encoding="utf-8-sig")
    drawn = read(str(root), [SPEC], preprocess=UNIT, classes=3)
    assert drawn.labels == [2, 2, 0, 0]
    assert drawn.warnings == ()


def test_classes_txt_of_another_length_is_a_warning(tmp_path):
    folders(tmp_path, "cat", "dog")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (warning,) = read(str(tmp_path), [SPEC], preprocess=UNIT, classes=3).warnings
    assert "lists 2 classes, the model has 3" in warning


def test_sorted_order_when_there_are_as_many_folders_as_classes(tmp_path):
    folders(tmp_path, "b", "a")
    drawn = read(str(tmp_path), [SPEC], preprocess=UNIT, classes=2)
    assert drawn.labels == [0, 0, 1, 1]


def test_another_number_of_folders_is_refused_with_a_hint(tmp_path):
    folders(tmp_path, "b", "a")
    error = refused(tmp_path, classes=3)
    assert "2 class names and 3 classes" in str(error)
    assert "classes.txt" in str(error.hint)
    assert "background" in str(error.hint)
    assert "background" not in str(refused(tmp_path, classes=1000).hint)
    assert len(read(str(tmp_path), [SPEC], preprocess=UNIT, classes=3, labelled=False)) == 4


def test_folder_names_out_of_range_and_missing_from_the_list(tmp_path):
    folders(tmp_path, "1", "2")
    assert "label 2 is out of range 0..1" in str(refused(tmp_path, classes=2))
    root = folders(tmp_path / "named", "cat", "dog", "emu")
    (root / "classes.txt").write_text("cat\n")
    assert "'dog' and 1 more" in str(refused(root))
    (root / "classes.txt").write_text("cat\ndog\ncat\nemu\n")
    assert "twice" in str(refused(root))
    (root / "classes.txt").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in str(refused(root))
    assert "same number" in str(refused(folders(tmp_path / "zeros", "1", "01")))


def test_images_deeper_in_a_class_folder_belong_to_it(tmp_path):
    image(tmp_path / "0" / "deep" / "a.png")
    image(tmp_path / "1" / "b.png")
    assert read(str(tmp_path), [SPEC], preprocess=UNIT).labels == [0, 1]


def test_a_flat_folder_has_no_labels(tmp_path):
    image(tmp_path / "a.png")
    assert read(str(tmp_path), [SPEC], preprocess=UNIT).labels is None


def test_images_beside_and_inside_folders(tmp_path):
    image(tmp_path / "a.png")
    image(tmp_path / "0" / "a.png")
    drawn = read(str(tmp_path), [SPEC], preprocess=UNIT)
    assert drawn.labels is None
    assert "beside and inside" in drawn.warnings[0]


@pytest.mark.parametrize("heading", ["", "file,label\n", "\ufefffilename,class\n"])
def test_labels_csv(tmp_path, heading):
    for number in range(3):
        image(tmp_path / f"{number}.png", number)
    (tmp_path / "labels.csv").write_text(heading + '2.png, 5\r\n"0.png",1\n\n', encoding="utf-8")
    drawn = read(str(tmp_path), [SPEC], preprocess=UNIT, classes=6)
    assert drawn.labels == [5, 1]
    assert [round(float(feed["x"].max()) * 255) for feed in drawn.feeds()] == [2, 0]
    assert "1 images of the folder are not listed" in drawn.warnings[0]


def test_labels_csv_with_names(tmp_path):
    for name in ("a", "b"):
        image(tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_text("a.png,dog\nb.png,cat\n")
    assert read(str(tmp_path), [SPEC], preprocess=UNIT, classes=2).labels == [1, 0]
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    assert read(str(tmp_path), [SPEC], preprocess=UNIT, classes=2).labels == [0, 1]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "lists no images"),
        ("file,label\n", "lists no images"),
        ("a.png\n", "1 fields"),
        ("a.png,1,2\n", "3 fields"),
        ("b.png,1\n", "does not exist"),
        ("../a.png,1\n", "leads out"),
        ("/a.png,1\n", "leads out"),
        ("a.png,1\na.png,1\n", "twice"),
        ("a.png,9\n", "out of range"),
        ("a.png,cat\n", "1 class names and 3 classes"),
    ],
)
def test_faults_of_labels_csv(tmp_path, content, told):
    image(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text(content)
    assert told in str(refused(tmp_path, classes=3))
    assert len(read(str(tmp_path), [SPEC], preprocess=UNIT, labelled=False)) == 1


# ---- which files ---------------------------------------------------------------------------------------------


def test_the_draw_is_seeded_and_from_the_whole_folder(tmp_path):
    for number in range(40):
        image(tmp_path / f"{number:02}.png", number)
    drawn = [read(str(tmp_path), [SPEC], preprocess=UNIT, samples=8, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0].indices == drawn[1].indices != drawn[2].indices
    assert max(drawn[0].indices) >= 20
    assert len(set(drawn[0].indices)) == len(drawn[0]) == 8


def test_hidden_files_pipes_dangling_links_and_loops(tmp_path):
    image(tmp_path / "a" / "0.png")
    image(tmp_path / "a" / ".hidden.png")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "a" / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "a" / "self.png").symlink_to(tmp_path / "a" / "self.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    drawn = read(str(tmp_path), [SPEC], preprocess=UNIT)
    assert len(drawn) == 1
    assert "3 image names skipped" in drawn.warnings[0]


def test_links_to_images_are_followed(tmp_path):
    image(tmp_path / "store" / "a.png", 7)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").symlink_to(tmp_path / "store" / "a.png")
    assert len(list(read(str(tmp_path / "data"), [SPEC], preprocess=UNIT))) == 1


def test_images_without_preprocessing_are_a_warning(tmp_path):
    image(tmp_path / "a.png", 128)
    colour = read(str(tmp_path), [SPEC])
    assert "imagenet" in colour.warnings[0]
    assert "0.485" in colour.warnings[0]
    grey = read(str(tmp_path), [InputSpec("x", np.dtype(np.float32), (1, 1, 8, 8))])
    assert "unit" in grey.warnings[0]
    np.testing.assert_allclose(next(grey.feeds())["x"], 128 / 255, atol=1e-6)
    pixels = read(str(tmp_path), [InputSpec("x", np.dtype(np.uint8), (1, 8, 8, 3))])
    assert pixels.warnings == ()
    assert next(pixels.feeds())["x"].max() == 128


def test_sizes_that_contradict_the_model_are_a_warning(tmp_path):
    image(tmp_path / "a.png")
    (warning,) = read(str(tmp_path), [SPEC], preprocess=Preprocessing("mine", resize=(64, 64))).warnings
    assert "64x64" in warning
    assert "8x8" in warning


def test_images_for_a_model_of_two_inputs(tmp_path):
    image(tmp_path / "a.png")
    two = [SPEC, InputSpec("size", np.dtype(np.int64), (2,))]
    with pytest.raises(DataError, match="one image input"):
        read(str(tmp_path), two, preprocess=UNIT)


# ---- damage --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "webp", "tif"])
def test_truncated_images(tmp_path, suffix):
    values = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(values).save(path)
    whole = path.read_bytes()
    assert len(list(read(str(tmp_path), [SPEC], preprocess=UNIT))) == 1
    for share in (0.0, 0.01, 0.5):
        path.write_bytes(whole[: int(len(whole) * share)])
        assert str(refused(tmp_path).where) == str(path)


def test_files_that_are_no_image(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    assert "no image" in str(refused(tmp_path))


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims this size, with next to nothing in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0"))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_001, 10_000, 20_000])
def test_image_bombs(tmp_path, side):
    (tmp_path / "a.png").write_bytes(png_of_size(side, side))
    assert "64 megapixels" in str(refused(tmp_path))


def test_a_strip_that_would_explode_when_scaled(tmp_path):
    Image.new("L", (1, 2_000_000)).save(tmp_path / "a.png")
    assert "megapixels" in str(refused(tmp_path, preprocess=PRESETS["imagenet"]))


def test_pixels_of_unknown_scale(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "a.tif")
    assert "32 bits" in str(refused(tmp_path))


def test_random_damage_is_always_a_data_error(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    random = np.random.default_rng(1)
    for suffix in ("png", "jpg", "gif", "tif", "webp", "bmp"):
        folder = tmp_path / suffix
        folder.mkdir()
        Image.fromarray(values).save(folder / f"a.{suffix}")
        whole = (folder / f"a.{suffix}").read_bytes()
        for _ in range(40):
            data = bytearray(whole)
            for place in random.integers(0, len(data), 5):
                data[place] = random.integers(0, 256)
            (folder / f"a.{suffix}").write_bytes(data)
            with suppress(DataError):  # nothing else may come out
                list(read(str(folder), [SPEC], preprocess=UNIT))
