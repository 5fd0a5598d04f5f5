"""Presets, tables and `preprocessor_config.json`; the arithmetic on pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from onnxqp.data import PRESETS, Preprocessing, parse_preprocessing
from onnxqp.data.pixels import PixelInput, fit
from onnxqp.data.processor_config import from_processor_config
from onnxqp.errors import DataError, UsageError
from onnxqp.specs import InputSpec

FLOAT = np.dtype(np.float32)
NCHW = InputSpec("x", FLOAT, ("N", 3, 224, 224))
NHWC = InputSpec("x", FLOAT, ("N", 96, 64, 3))
GREY = InputSpec("x", FLOAT, ("N", 1, 28, 28))


def pixels(spec: InputSpec, preset: str | Preprocessing) -> PixelInput:
    return PixelInput.of([spec], PRESETS[preset] if isinstance(preset, str) else preset, alone=True)


def photo(path: Path, height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return values


def test_presets_are_told_without_numpy():
    code = "import sys; from onnxqp.data import PRESETS; assert 'numpy' not in sys.modules; print(len(PRESETS))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(PRESETS)


def test_the_description_of_a_preset_has_every_fact():
    told = PRESETS["imagenet"].describe()
    for fact in ("shorter side to 256", "centre crop 224x224", "bilinear", "RGB", "layout", "x/255", "0.485", "0.229"):
        assert fact in told
    assert "pad with 114" in PRESETS["yolo"].describe()


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_prepares_a_picture(tmp_path, name):
    photo(tmp_path / "a.png")
    spec = GREY if PRESETS[name].colour == "L" else NCHW
    value = pixels(spec, name).from_file(tmp_path / "a.png")
    assert value.shape == tuple(1 if dim == "N" else dim for dim in spec.shape)
    assert value.dtype == np.float32
    assert np.isfinite(value).all()


def test_imagenet_agrees_with_the_recipe(tmp_path):
    photo(tmp_path / "a.png", 300, 451)
    image = Image.open(tmp_path / "a.png").resize((int(256 * 451 / 300), 256), Image.Resampling.BILINEAR)
    left, top = (image.width - 224) // 2, 16
    expected = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float64) / 255
    expected = (expected - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    value = pixels(NCHW, "imagenet").from_file(tmp_path / "a.png")
    np.testing.assert_allclose(value[0], expected.transpose(2, 0, 1), atol=1e-5)


def test_channels_last_and_bgr(tmp_path):
    values = photo(tmp_path / "a.png", 96, 64)
    value = pixels(NHWC, "caffe").from_file(tmp_path / "a.png")
    np.testing.assert_allclose(value[0], values[..., ::-1] - np.array([103.939, 116.779, 123.68]), atol=1e-4)


def test_a_picture_of_the_final_size_is_not_touched(tmp_path):
    values = photo(tmp_path / "a.png", 32, 32)
    value = pixels(InputSpec("x", FLOAT, (1, 3, 32, 32)), "imagenet").from_file(tmp_path / "a.png")
    expected = (values / 255 - PRESETS["imagenet"].mean) / PRESETS["imagenet"].std
    np.testing.assert_allclose(value[0], expected.transpose(2, 0, 1), atol=1e-5)


def test_sizes_follow_the_model_in_proportion():
    fitted = PRESETS["imagenet"].fitted((112, 112))
    assert (fitted.resize, fitted.crop) == (128, (112, 112))
    assert PRESETS["imagenet"].fitted((None, None)) == PRESETS["imagenet"]
    assert PRESETS["unit"].fitted((10, None)).resize == (10, 224)
    assert Preprocessing(resize=300).fitted((64, 48)).crop == (64, 48)
    both = Preprocessing(resize=(256, 512), crop=(224, 448)).fitted((112, 224))
    assert (both.resize, both.crop) == ((128, 256), (112, 224))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 70), st.integers(1, 70), st.sampled_from(list(PRESETS)))
def test_the_result_has_the_models_size(height, width, rows, columns, name):
    picture = Image.new("RGB", (width, height))
    fitted = fit(picture, PRESETS[name].fitted((rows, columns)), "a picture")
    assert (fitted.height, fitted.width) == (rows, columns)


def test_letterbox_keeps_the_aspect_and_pads_with_grey(tmp_path):
    Image.new("RGB", (100, 50), (255, 0, 0)).save(tmp_path / "a.png")
    value = pixels(InputSpec("x", FLOAT, (1, 3, 40, 40)), "yolo").from_file(tmp_path / "a.png")[0]
    np.testing.assert_allclose(value[:, 0, 0], 114 / 255, atol=1e-6)
    np.testing.assert_allclose(value[:, 20, 20], [1, 0, 0], atol=1e-6)
    assert (value[0] == 1).sum() == 20 * 40


def test_orientation_of_the_camera_is_honoured(tmp_path):
    image = Image.new("RGB", (40, 20))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    image.save(tmp_path / "a.png", exif=exif)
    value = pixels(InputSpec("x", FLOAT, (1, 3, 40, 20)), "unit").from_file(tmp_path / "a.png")[0]
    assert value[0, 0, 19] == 1
    assert value.sum() == 3


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    name = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new(mode, (8, 8)).save(name)
    assert pixels(InputSpec("x", FLOAT, (1, 3, 8, 8)), "unit").from_file(name).shape == (1, 3, 8, 8)


def test_a_palette_with_transparency(tmp_path):
    image = Image.new("RGB", (8, 8), (255, 0, 0)).convert("P")
    image.save(tmp_path / "a.png", transparency=bytes([0] * 256))
    value = pixels(InputSpec("x", FLOAT, (1, 3, 8, 8)), "unit").from_file(tmp_path / "a.png")
    assert value.shape == (1, 3, 8, 8)


def test_sixteen_bits_keep_their_high_byte(tmp_path):
    Image.fromarray(np.full((28, 28), 0x8000, np.uint16)).save(tmp_path / "a.png")
    value = pixels(GREY, "unit").from_file(tmp_path / "a.png")
    np.testing.assert_allclose(value, 128 / 255, atol=1e-6)


def test_uint8_inputs_take_pixels_as_they_are(tmp_path):
    values = photo(tmp_path / "a.png", 16, 16)
    spec = InputSpec("x", np.dtype(np.uint8), (1, 16, 16, 3))
    value = PixelInput.of([spec], None, alone=True).from_file(tmp_path / "a.png")
    assert value.dtype == np.uint8
    np.testing.assert_array_equal(value[0], values)
    with pytest.raises(UsageError, match="fractions"):
        pixels(spec, "imagenet")


@pytest.mark.parametrize(
    ("shape", "picture"),
    [
        ((3, 8, 8), (3, 8, 8)),
        ((8, 8, 3), (8, 8, 3)),
        (("N", 8, 8), (1, 8, 8)),
        (("N", "C", 8, 8), (1, 3, 8, 8)),
        (("N", 8, 8, 1), (1, 8, 8, 1)),
        ((None, 3, None, None), (1, 3, 12, 12)),
    ],
)
def test_layouts(tmp_path, shape, picture):
    photo(tmp_path / "a.png", 12, 12)
    value = pixels(InputSpec("x", FLOAT, shape), Preprocessing()).from_file(tmp_path / "a.png")
    assert value.shape == picture


def test_an_asked_layout_beats_the_guess(tmp_path):
    photo(tmp_path / "a.png", 8, 8)
    spec = InputSpec("x", FLOAT, ("N", "H", "W", "C"))
    assert pixels(spec, Preprocessing(layout="NHWC")).from_file(tmp_path / "a.png").shape == (1, 8, 8, 3)


@pytest.mark.parametrize("shape", [(8, 3, 4, 4), ("N", 784), ("N", 5, 8, 8), None])
def test_inputs_that_hold_no_picture(shape):
    with pytest.raises(DataError, match="one image input"):
        PixelInput.of([InputSpec("x", FLOAT, shape)], None, alone=True)


def test_a_preset_for_other_channels():
    with pytest.raises(UsageError, match="3 channels"):
        pixels(GREY, "imagenet")
    with pytest.raises(UsageError, match="grey"):
        pixels(NCHW, "mnist")


# ---- names and tables ----------------------------------------------------------------------------------------


def test_an_unknown_preset_gets_a_suggestion():
    with pytest.raises(UsageError) as caught:
        parse_preprocessing("imagnet")
    assert "'imagenet'" in str(caught.value.hint)


def test_a_table_may_start_from_a_preset():
    rules = parse_preprocessing({"preset": "imagenet", "crop": 192, "interpolation": "bicubic", "std": [0.2, 0.2, 0.3]})
    assert (rules.resize, rules.crop, rules.interpolation) == (256, (192, 192), "bicubic")
    assert rules.mean == PRESETS["imagenet"].mean
    assert rules.std == (0.2, 0.2, 0.3)


def test_a_table_from_nothing():
    rules = parse_preprocessing({"resize": [8, 9], "layout": "NHWC", "colour": "BGR", "rescale": 1, "pad": 0})
    assert rules == Preprocessing(resize=(8, 9), layout="NHWC", colour="BGR", rescale=1.0, pad=0)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"resise": 8}, "resize"),
        ({"preset": "nothing"}, "presets"),
        ({"resize": -1}, "shorter side"),
        ({"resize": [1, 2, 3]}, "shorter side"),
        ({"crop": "8"}, "square"),
        ({"pad": 300}, "grey level"),
        ({"interpolation": "cubic"}, "bicubic"),
        ({"layout": "CHW"}, "NHWC"),
        ({"mean": [0.1, 0.2]}, "per channel"),
        ({"rescale": "1/255"}, "a number"),
        ({"std": 0}, "no scaling"),
        ({"colour": "L", "mean": [0.1, 0.2, 0.3]}, "give one number"),
        ({"resize": 8, "pad": 0}, "choose one"),
    ],
)
def test_faults_of_a_table(table, told):
    with pytest.raises(UsageError) as caught:
        parse_preprocessing(table)
    assert told in str(caught.value.hint)


# ---- preprocessor_config.json --------------------------------------------------------------------------------

_NORM = {"do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


@pytest.mark.parametrize(
    ("table", "resize", "crop"),
    [
        ({"do_resize": True, "size": {"height": 224, "width": 192}}, (224, 192), None),
        ({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}, 256, (224, 224)),
        ({"size": 224, "feature_extractor_type": "ViTFeatureExtractor"}, (224, 224), None),
        ({"size": 224, "do_center_crop": True, "crop_size": 224}, 224, (224, 224)),
        ({"size": 256, "crop_size": 224, "feature_extractor_type": "DeiTFeatureExtractor"}, (256, 256), (224, 224)),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, 256, (224, 224)),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, (384, 384), None),
        ({"size": 224, "crop_pct": 0.875}, 256, (224, 224)),
        ({"do_resize": False, "size": 224, "do_center_crop": False, "crop_size": 9}, None, None),
        ({"size": 224, "do_center_crop": True}, 224, (224, 224)),
    ],
)
def test_geometry_of_processor_configs(table, resize, crop):
    rules = from_processor_config(table | _NORM)
    assert (rules.resize, rules.crop) == (resize, crop)


def test_scale_of_processor_configs():
    plain = {"size": 8}
    assert from_processor_config(plain).rescale == 1 / 255
    assert from_processor_config(plain | {"do_rescale": False}).rescale == 1
    assert from_processor_config(plain | _NORM | {"do_normalize": False}).mean == (0.0,)
    assert from_processor_config(plain | {"resample": 3}).interpolation == "bicubic"
    assert from_processor_config(plain | {"do_flip_channel_order": True}).colour == "BGR"
    offset = from_processor_config(plain | {"rescale_factor": 1 / 127.5, "rescale_offset": True})
    assert (255 * offset.rescale - offset.mean[0], 0 * offset.rescale - offset.mean[0]) == (1, -1)


@pytest.mark.parametrize(
    "table",
    [
        {"feature_extractor_type": "WhisperFeatureExtractor", "sampling_rate": 16000},
        {"size": {"shortest_edge": 800, "longest_edge": 1333}},
        {"size": 224, "resample": 9},
        {"size": 224, "image_mean": [0.5, "x", 0.5]},
        {"size": 224, "do_normalize": True},
        {"size": 224, "rescale_factor": -1},
        {"size": 224, "crop_size": "big"},
        {"size": 224, "crop_pct": 2},
    ],
)
def test_processor_configs_that_cannot_be_followed(table):
    with pytest.raises(UsageError):
        from_processor_config(table)


def test_a_processor_config_by_file_or_folder(tmp_path):
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({"size": 64} | _NORM), encoding="utf-8")
    assert parse_preprocessing(str(file)) == parse_preprocessing(str(tmp_path))
    assert parse_preprocessing(str(file)).size == (64, 64)


@pytest.mark.parametrize("content", ["{", "[1]", "\xff", "[" * 100_000])
def test_files_that_are_no_processor_config(tmp_path, content):
    file = tmp_path / "c.json"
    file.write_bytes(content.encode("latin1"))
    with pytest.raises(UsageError):
        parse_preprocessing(str(file))


def test_a_missing_processor_config(tmp_path):
    with pytest.raises(UsageError, match="is no file"):
        parse_preprocessing(str(tmp_path / "nothing.json"))
