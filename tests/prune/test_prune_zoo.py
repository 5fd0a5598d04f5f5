"""Real models: cut in half, proven, and they still run."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx_ir as ir
import pytest

from onnxqp.model import load, to_bytes
from onnxqp.normalize import normalize
from onnxqp.options import PruneOptions
from onnxqp.prune import plan, prune_model
from onnxqp.prune.pruning import Plan
from onnxqp.runtime import Session
from onnxqp.specs import Feed

WHOLE = {  # models whose weights are all in groups that can be cut, and the share of MACs that half the channels leave
    "resnet20_cifar10": 0.27,
    "resnet56_cifar10": 0.27,
    "resnet8_cifar10_mlperf": 0.27,
    "squeezenet1.1_imagenet": 0.34,
    "mobilenet_v1_0.25_imagenet": 0.31,
    "vww96_mobilenet_mlperf": 0.31,
    "st_mobilenet_v2_035_128": 0.33,
    "st_yamnet_256_64x96": 0.28,
    "vit_cifar10_ibp_3_3_8": 0.31,
    "mnist_cntk": 0.31,
    "yolox_nano": 0.32,
    "nanodet_m_320": 0.33,
    "ultraface_rfb320": 0.32,
    "yunet_n_dynamic": 0.31,
    "skin_clothes_hair_pan_mbv3s": 0.31,
    "super_resolution_espcn_x3": 0.28,
    "magika_standard_v3_3": 0.27,
    "minilm_l6": 0.51,
}


@pytest.fixture(scope="module")
def feeds(zoo: Path) -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("zoo_feeds", zoo / "feeds.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = path


def opened(zoo: Path, feeds: ModuleType, name: str) -> tuple[ir.Model, list[Feed]]:
    model = load(zoo / "models" / f"{name}.onnx")
    normalize(model)
    return model, list(itertools.islice(getattr(feeds, name)(), 2))


def weights_in_groups(made: Plan) -> float:
    """Share of the elements of convolution and product weights of which some channel can be cut."""
    free = np.zeros(made.labels.count, np.bool_)
    for group in made.grouping.groups:
        free[group.classes] = True
    total = inside = 0
    for name in {weight.value for weight in made.labels.weights}:
        value = made.model.graph.initializers.get(name)
        if value is not None and value.const_value is not None:
            total += value.const_value.size
            families = made.labels.families(name)
            inside += any(free[made.grouping.roots[f.labels]].any() for f in families) * value.const_value.size
    return inside / total


@pytest.mark.parametrize("name", WHOLE)
def test_half_of_a_model(zoo: Path, feeds: ModuleType, name: str) -> None:
    model, samples = opened(zoo, feeds, name)
    options = PruneOptions(ratio=0.5)
    assert weights_in_groups(plan(model, options)) > 0.99
    result = prune_model(model, samples, options, step=8)
    pruning = result.pruning
    assert not result.warnings
    assert pruning.proof is not None
    assert pruning.proof.checked
    assert pruning.macs_ratio is not None
    assert pruning.macs_ratio < WHOLE[name]
    assert all(group.after < group.before for group in pruning.groups)
    assert all(entry.reason for entry in pruning.pinned)
    found = Session(to_bytes(result.model)).run(samples[0])
    expected = Session(model).run(samples[0])
    assert {key: array.shape for key, array in found.items()} == {key: a.shape for key, a in expected.items()}


def test_networks_inside_branches(zoo: Path, feeds: ModuleType) -> None:
    model, samples = opened(zoo, feeds, "silero_vad")
    result = prune_model(model, samples, PruneOptions(ratio=0.5), step=8)
    assert result.pruning.proof is not None
    assert result.pruning.proof.checked
    assert len(result.pruning.groups) == 8  # four convolutions for each sampling rate
    assert all(group.after < group.before for group in result.pruning.groups)


def test_states_that_the_caller_keeps(zoo: Path, feeds: ModuleType) -> None:
    model, samples = opened(zoo, feeds, "dtln_1")
    result = prune_model(model, samples, PruneOptions(ratio=0.5), step=8)
    assert result.pruning.proof is not None
    assert result.pruning.proof.checked
    assert result.pruning.macs_ratio is not None
    assert result.pruning.macs_ratio < 0.37
    found = Session(to_bytes(result.model)).run(samples[0])
    expected = Session(model).run(samples[0])
    assert {key: array.shape for key, array in found.items()} == {key: a.shape for key, a in expected.items()}


def test_a_model_that_is_recurrent_in_part(zoo: Path, feeds: ModuleType) -> None:
    model, samples = opened(zoo, feeds, "gtcrn_simple")
    result = prune_model(model, samples, PruneOptions(ratio=0.5), step=8)
    assert result.pruning.proof is not None
    assert result.pruning.proof.checked
    assert not any("recurrent" in entry.reason for entry in result.pruning.pinned)


def test_other_batch_and_image_sizes(zoo: Path, feeds: ModuleType) -> None:
    model, samples = opened(zoo, feeds, "yunet_n_dynamic")
    result = prune_model(model, samples, PruneOptions(ratio=0.5), step=8)
    session = Session(to_bytes(result.model))
    session.run({"input": np.zeros((2, 3, 96, 160), np.float32)})


def test_global_allocation_and_threshold(zoo: Path, feeds: ModuleType) -> None:
    model, samples = opened(zoo, feeds, "resnet20_cifar10")
    for options in (PruneOptions(ratio=0.4, allocation="global", criterion="l2"), PruneOptions(threshold=0.8)):
        result = prune_model(model, samples, options, step=8)
        assert result.pruning.proof is not None
        assert result.pruning.proof.checked
        assert all(group.after >= 1 for group in result.pruning.groups)
