"""The hooks, folders and arrays of the model zoo, against the inputs of its models."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import numpy as np
import pytest

from onnxqp.data import PRESETS, hold_back, overlap, read
from onnxqp.specs import InputSpec

ZOO = Path(os.environ.get("ONNXQP_ZOO", Path(__file__).resolve().parents[3] / "shared" / "zoo"))
pytestmark = [
    pytest.mark.zoo,
    pytest.mark.skipif(not (ZOO / "zoo.toml").is_file(), reason="no model zoo (set ONNXQP_ZOO)"),
]
MANIFEST = tomllib.loads((ZOO / "zoo.toml").read_text(encoding="utf-8")) if (ZOO / "zoo.toml").is_file() else {}


def inputs_of(model: str) -> list[InputSpec]:
    return [
        InputSpec(entry["name"], np.dtype(entry["dtype"]), tuple(None if d == "?" else d for d in entry["shape"]))
        for entry in MANIFEST[model]["inputs"]
    ]


@pytest.mark.parametrize("part", ["", "__eval"])
@pytest.mark.parametrize("model", MANIFEST)
def test_every_hook_reads(model, part):
    inputs = inputs_of(model)
    drawn = read(f"{ZOO / 'feeds.py'}:{model}{part}", inputs, samples=4)
    feeds = list(drawn.feeds())
    assert len(feeds) == 4
    for feed in feeds:
        assert list(feed) == [spec.name for spec in inputs]
        assert all(feed[spec.name].dtype == spec.dtype for spec in inputs)
    labelled = part == "__eval" and MANIFEST[model]["score"] == "top1" and "stream" not in MANIFEST[model]
    assert (drawn.labels is not None) == labelled
    assert sum(len(labels) for _, labels in drawn.batches(4)) == 4


@pytest.mark.parametrize("preset", ["imagenet", None])
def test_folders_of_imagenet_agree_with_the_zoos_own_preparation(preset):
    spec = inputs_of("squeezenet1.1_imagenet")
    preprocess = PRESETS[preset] if preset else None
    drawn = read(str(ZOO / "data/imagenet/eval"), spec, preprocess=preprocess, samples=None, classes=1000)
    assert len(drawn) == 500
    assert len(set(drawn.labels)) == 500
    hook = read(f"{ZOO / 'feeds.py'}:squeezenet1.1_imagenet__eval", spec, samples=None, classes=1000)
    assert drawn.labels == hook.labels
    for ours, theirs in zip(drawn.subset(range(3)).feeds(), hook.subset(range(3)).feeds(), strict=True):
        np.testing.assert_allclose(ours["data"], theirs["data"], atol=1e-4)


def test_uint8_arrays_of_cifar_agree_with_the_zoos_own_preparation():
    spec = inputs_of("resnet20_cifar10")
    drawn = read(str(ZOO / "data/cifar10/eval.npz"), spec, preprocess=PRESETS["imagenet"], samples=40, classes=10)
    hook = read(f"{ZOO / 'feeds.py'}:resnet20_cifar10__eval", spec, samples=40, classes=10)
    hook_values = {sample.origin.rsplit("[")[-1]: sample for sample in hook.samples()}
    assert sum(sample.label is not None for sample in drawn.samples()) == 40
    shared = [s for s in drawn.samples() if s.origin.rsplit("[")[-1] in hook_values]
    for sample in shared:
        theirs = hook_values[sample.origin.rsplit("[")[-1]]
        assert sample.label == theirs.label
        np.testing.assert_allclose(sample.feed["input"], theirs.feed["input"], atol=1e-4)
    folder = read(str(ZOO / "data/cifar10/eval_folder"), spec, preprocess=PRESETS["imagenet"], samples=20, classes=10)
    assert set(folder.labels) <= set(range(10))
    assert next(folder.feeds())["input"].shape == (1, 3, 32, 32)


def test_calibration_and_evaluation_do_not_overlap():
    spec = inputs_of("mnist_cntk")
    calibration = read(str(ZOO / "data/mnist/calib.npz"), spec, samples=200, labelled=False)
    evaluation = read(str(ZOO / "data/mnist/eval.npz"), spec, samples=None, classes=10)
    assert overlap(calibration, evaluation) == 0
    assert overlap(*hold_back(calibration)) == 0


def test_sentences_are_never_stacked_unless_equally_long():
    spec = inputs_of("minilm_l6")
    drawn = read(f"{ZOO / 'feeds.py'}:minilm_l6", spec, samples=64)
    assert drawn.can_batch
    batches = list(drawn.batches(8))
    assert sum(len(labels) for _, labels in batches) == 64
    assert len({feed["input_ids"].shape[1] for feed, _ in batches}) > 3
