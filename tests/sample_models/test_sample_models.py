"""The sample models are what their README says: size, accuracy, structure, and data without overlap."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from PIL import Image

ROOT = Path(__file__).resolve().parents[2] / "sample_models"
NAMES = ("residual_cnn", "mobile_cnn", "vit", "keras_cnn")


@cache
def judge() -> ModuleType:
    """sample_models/judge.py, which is no package."""
    spec = importlib.util.spec_from_file_location("sample_models_judge", ROOT / "judge.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def load(name: str) -> onnx.ModelProto:
    return onnx.load(ROOT / f"{name}.onnx")


@cache
def arrays(part: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of `part` in the layout of the model."""
    layout = "_nhwc" if name == "keras_cnn" else ""
    with np.load(ROOT / "data" / f"{part}{layout}.npz") as data:
        assert set(data.files) == {"image", "labels"}
        return data["image"], data["labels"]


@cache
def accuracy(name: str) -> float:
    return judge().accuracy(str(ROOT / f"{name}.onnx"), *arrays("eval", name))


def folder() -> tuple[np.ndarray, np.ndarray]:
    """The image folder as pixels [n, 32, 32, 3] and labels."""
    paths = sorted((ROOT / "data" / "images").glob("*/*.png"))
    return np.stack([np.asarray(Image.open(path)) for path in paths]), np.array([int(p.parent.name) for p in paths])


def nodes(name: str, op_type: str) -> list[onnx.NodeProto]:
    return [node for node in load(name).graph.node if node.op_type == op_type]


def weights(name: str, node: onnx.NodeProto) -> np.ndarray | None:
    """The second input of `node`, when it is an initializer."""
    found = [tensor for tensor in load(name).graph.initializer if tensor.name == node.input[1]]
    return numpy_helper.to_array(found[0]) if found else None


def attribute(node: onnx.NodeProto, key: str, default: object) -> object:
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == key), default)


def producer(name: str, value: str) -> onnx.NodeProto | None:
    return next((node for node in load(name).graph.node if value in node.output), None)


def readme_row(name: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| `{name}\.onnx` \|(.*)\|$", text, re.MULTILINE)
    assert row is not None, f"no row for {name}"
    return [cell.strip() for cell in row.group(1).split("|")]


def percent(cell: str) -> float:
    assert cell.endswith(" %")
    return float(cell.removesuffix(" %"))


@pytest.mark.parametrize("name", NAMES)
def test_accuracy_is_the_readmes_and_neither_poor_nor_perfect(name: str) -> None:
    assert accuracy(name) == pytest.approx(percent(readme_row(name)[2]), abs=0.2)
    assert 90 <= accuracy(name) <= 99.5


@pytest.mark.parametrize("name", NAMES)
def test_size_is_the_readmes_and_small(name: str) -> None:
    size = (ROOT / f"{name}.onnx").stat().st_size
    assert size < 2_000_000
    assert readme_row(name)[1] == f"{size / 1e6:.2f} MB"


@pytest.mark.parametrize("name", NAMES)
def test_blind_halving_hurts(name: str) -> None:
    halved = judge().halve_filters(load(name)).SerializeToString()
    remaining = judge().accuracy(halved, *arrays("eval", name))
    assert remaining < accuracy(name) - 3
    assert remaining == pytest.approx(percent(readme_row(name)[3]), abs=1.0)


@pytest.mark.parametrize("name", NAMES)
def test_any_batch_size_gives_the_same_logits(name: str) -> None:
    (image,) = load(name).graph.input
    assert image.name == "image"
    assert image.type.tensor_type.shape.dim[0].dim_param
    session = onnxruntime.InferenceSession(load(name).SerializeToString(), providers=["CPUExecutionProvider"])
    images, _ = arrays("eval", name)
    together = session.run(["logits"], {"image": images[:5]})[0]
    one_by_one = [session.run(["logits"], {"image": images[i : i + 1]})[0] for i in range(5)]
    np.testing.assert_allclose(np.concatenate(one_by_one), together, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_no_path_of_the_building_machine_is_left_in_the_file(name: str) -> None:
    content = (ROOT / f"{name}.onnx").read_bytes()
    for trace in (b"site-packages", b"sample_models", b"/tmp/", b"/home/", b"architectures.py"):
        assert trace not in content


def test_residual_cnn_has_unfused_batch_norm_and_strided_shortcuts() -> None:
    convolutions = nodes("residual_cnn", "Conv")
    assert len(nodes("residual_cnn", "BatchNormalization")) == len(convolutions) == 9
    assert all(len(node.input) == 2 for node in convolutions), "a bias would mean that BatchNorm was folded"
    strided = [
        n for n in convolutions if attribute(n, "kernel_shape", []) == [1, 1] and attribute(n, "strides", []) == [2, 2]
    ]
    assert len(strided) == 2
    sums = {value for node in nodes("residual_cnn", "Add") for value in node.input}
    normed = {node.input[0]: node.output[0] for node in nodes("residual_cnn", "BatchNormalization")}
    assert all(normed[node.output[0]] in sums for node in strided)


def test_mobile_cnn_has_depthwise_convolutions_squeeze_and_excite_and_both_activations() -> None:
    depthwise = [n for n in nodes("mobile_cnn", "Conv") if attribute(n, "group", 1) > 1]
    assert len(depthwise) == 5
    assert all(weights("mobile_cnn", n).shape[:2] == (attribute(n, "group", 1), 1) for n in depthwise)
    gates = [n for n in nodes("mobile_cnn", "Mul") if producer("mobile_cnn", n.input[1]).op_type == "HardSigmoid"]
    assert len(gates) == 5
    for gate in gates:
        chain, value = [], gate.input[1]
        while value != gate.input[0]:
            node = producer("mobile_cnn", value)
            chain.append(node.op_type)
            value = node.input[0]
        assert chain == ["HardSigmoid", "Conv", "Relu", "Conv", "ReduceMean"]
    clips = nodes("mobile_cnn", "Clip")
    initializers = {t.name: numpy_helper.to_array(t) for t in load("mobile_cnn").graph.initializer}
    assert clips
    assert all([float(initializers[bound]) for bound in clip.input[1:]] == [0, 6] for clip in clips)
    assert nodes("mobile_cnn", "HardSwish")


def test_vit_has_layer_norm_fused_qkv_and_gelu() -> None:
    shapes = [w.shape for n in nodes("vit", "MatMul") if (w := weights("vit", n)) is not None]
    fused = [shape for shape in shapes if shape[1] == 3 * shape[0]]
    assert len(fused) == len(nodes("vit", "Softmax")) == len(nodes("vit", "Gelu")) == 4
    assert len(nodes("vit", "LayerNormalization")) == 2 * 4 + 1


def test_keras_cnn_is_channels_last_with_transposes() -> None:
    (image,) = load("keras_cnn").graph.input
    assert [dim.dim_value for dim in image.type.tensor_type.shape.dim[1:]] == [32, 32, 3]
    permutations = {node.input[0]: attribute(node, "perm", []) for node in nodes("keras_cnn", "Transpose")}
    assert permutations["image"] == [0, 3, 1, 2]
    assert [0, 2, 3, 1] in permutations.values(), "Flatten sees the channels last"
    assert load("keras_cnn").producer_name == "tf2onnx"


def digests(pixels: np.ndarray) -> set[str]:
    return {hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() for image in pixels}


def test_calibration_evaluation_and_image_folder_are_disjoint() -> None:
    calib, evaluation = (
        np.rint(arrays(part, "vit")[0].transpose(0, 2, 3, 1) * 255).astype(np.uint8) for part in ("calib", "eval")
    )
    parts = [digests(pixels) for pixels in (calib, evaluation, folder()[0])]
    assert [len(part) for part in parts] == [256, 1000, 100]
    assert len(set.union(*parts)) == sum(len(part) for part in parts)


@pytest.mark.parametrize("part", ["calib", "eval"])
def test_channels_last_data_is_the_first_half(part: str) -> None:
    images, labels = arrays(part, "vit")
    half = len(images) // 2
    channels_last, their_labels = arrays(part, "keras_cnn")
    np.testing.assert_array_equal(channels_last, images[:half].transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(their_labels, labels[:half])


@pytest.mark.parametrize("name", NAMES)
def test_image_folder_divided_by_255_is_the_same_kind_of_input(name: str) -> None:
    pixels, labels = folder()
    images = pixels.astype(np.float32) / np.float32(255)
    images = images if name == "keras_cnn" else np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    assert judge().accuracy(str(ROOT / f"{name}.onnx"), images, labels) >= 90
    assert np.bincount(labels).tolist() == [9, 10, 10, 10, 10, 10, 11, 10, 10, 10]
