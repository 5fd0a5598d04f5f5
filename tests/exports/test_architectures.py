"""Ten well-known network structures, exported by PyTorch: half of every group goes, proven, at other sizes too."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("onnxscript", reason="onnxscript, which torch.onnx needs, is not installed")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from architectures import NETWORKS  # noqa: E402

from onnxqp.model import clone, load, to_bytes  # noqa: E402
from onnxqp.normalize import normalize  # noqa: E402
from onnxqp.options import PruneOptions  # noqa: E402
from onnxqp.prune import prune_model  # noqa: E402
from onnxqp.runtime import Session  # noqa: E402

LARGER = {0: 3, 1: 17, 2: 96, 3: 128}  # sizes of symbolic axes in a second run


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("architectures")

    def path_of(name):
        path = folder / f"{name}.onnx"
        if not path.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                NETWORKS[name].export(str(path))
        return path

    return path_of


def feed_of(name, *, larger=False):
    network = NETWORKS[name]
    feed = {key: tensor.numpy() for key, tensor in network.example(1).items()}
    if not larger:
        return feed
    random = np.random.default_rng(0)
    found = {}
    for key, array in feed.items():
        shape = [LARGER[axis] if axis in network.symbolic else size for axis, size in enumerate(array.shape)]
        if key == "mask":
            found[key] = np.ones(shape, array.dtype)
        elif network.words is not None:
            found[key] = random.integers(0, network.words, shape).astype(array.dtype)
        else:
            found[key] = random.normal(size=shape).astype(array.dtype)
    return found


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_half_of_every_group_goes_and_the_rest_computes_the_same(name, exported):
    model = load(exported(name))
    normal = clone(model)
    normalize(normal)
    done = prune_model(normal, [feed_of(name)], PruneOptions(ratio=0.5), step=8)
    assert done.warnings == ()
    assert done.pruning.proof.checked
    assert done.pruning.macs_ratio <= 0.45
    assert all(group.after < group.before for group in done.pruning.groups)
    assert [entry.reason for entry in done.pruning.pinned] == ["graph output 'y'"]
    pruned, original = Session(to_bytes(done.model)), Session(model)
    larger = feed_of(name, larger=True)
    assert pruned.run(larger)["y"].shape == original.run(larger)["y"].shape
