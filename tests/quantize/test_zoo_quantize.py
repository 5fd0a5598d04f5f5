"""Real models: every one quantizes to what loads, runs and fuses, and two of them keep their accuracy."""

import importlib.util
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from onnxqp.model import load, save
from onnxqp.normalize import normalize
from onnxqp.options import QuantizeOptions
from onnxqp.quantize import quantize_model
from onnxqp.runtime import Session

MODELS = (
    "squeezenet1.1_imagenet",
    "mobilenet_v1_0.25_imagenet",
    "resnet20_cifar10",
    "resnet8_cifar10_mlperf",
    "resnet56_cifar10",
    "vww96_mobilenet_mlperf",
    "vit_cifar10_ibp_3_3_8",
    "mnist_cntk",
    "yolox_nano",
    "nanodet_m_320",
    "ultraface_rfb320",
    "yunet_n_dynamic",
    "skin_clothes_hair_pan_mbv3s",
    "super_resolution_espcn_x3",
    "silero_vad",
    "dtln_1",
    "gtcrn_simple",
    "magika_standard_v3_3",
    "st_mobilenet_v2_035_128",
    "minilm_l6",
    "st_yamnet_256_64x96",
)


def samples(zoo, name, count):
    spec = importlib.util.spec_from_file_location("zoo_feeds", zoo / "feeds.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(itertools.islice(getattr(module, name)(), count))


def quantized(zoo, name, count, **options):
    model = load(zoo / "models" / f"{name}.onnx")
    normalize(model)
    feeds = samples(zoo, name, count)
    return feeds, quantize_model(model, feeds, QuantizeOptions(**options))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["x64-vnni", "x64-avx2"])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_quantizes_loads_runs_and_fuses(zoo, name, target):
    feeds, result = quantized(zoo, name, 3, target=target)
    record = result.quantization
    assert record.unfused == []
    assert record.nodes_fused == record.nodes_quantized
    assert record.nodes_quantized + record.weights_at_rest > 0
    outputs = Session(result.model).run(feeds[0])
    assert all(np.isfinite(array).all() for array in outputs.values() if array.dtype.kind == "f")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "allowed"), [("resnet20_cifar10", 0.5), ("squeezenet1.1_imagenet", 1.0)])
def test_accuracy_holds(zoo, tmp_path, name, allowed):
    _, result = quantized(zoo, name, 256)
    path = tmp_path / "candidate.onnx"
    save(result.model, path)
    judge = [sys.executable, str(zoo / "evaluate.py"), name, str(path)]
    verdict = json.loads(subprocess.run(judge, capture_output=True, check=True, text=True).stdout)
    assert verdict["fp32"] - verdict["value"] <= allowed, verdict
