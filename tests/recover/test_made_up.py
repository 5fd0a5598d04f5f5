"""Without data: what made-up pictures may decide, and what noise may not."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import onnxqp
from onnxqp import MeasureOptions, PruneOptions, Result
from onnxqp.recover import recovery_kind
from onnxqp.recover.sampling import affordable
from onnxqp.runtime import Session

SAMPLES = Path(__file__).parents[2] / "sample_models"


def pruned(options: PruneOptions, model: str) -> Result:
    return onnxqp.prune(onnxqp.load(SAMPLES / model), options=options, measure=MeasureOptions(validate=False))


def kept(result: Result, model: str) -> float:
    """The share of predictions on real digits that stay."""
    images = np.load(SAMPLES / "data" / "calib.npz")["image"][:128]
    sessions = Session(SAMPLES / model), Session(result.model)
    ours, theirs = (
        [int(np.argmax(next(iter(session.run({"image": image[None]}).values())))) for image in images]
        for session in sessions
    )
    return float(np.mean(np.equal(ours, theirs)))


@pytest.mark.parametrize("model", ["mobile_cnn.onnx", "vit.onnx"])
def test_made_up_pictures_give_back_what_real_ones_would(model: str) -> None:
    """Cutting alone by L1 leaves half of the predictions; means of made-up pictures did worse than that."""
    alone = pruned(PruneOptions(macs_ratio=0.75, recover="none", criterion="l1", allocation="uniform"), model)
    found = pruned(PruneOptions(macs_ratio=0.75), model)
    assert found.report.pruning is not None
    assert found.report.pruning.recovery is not None
    assert found.report.pruning.recovery.kind == "least-squares"
    assert kept(found, model) > max(kept(alone, model), 0.85)


def test_noise_recovers_nothing_of_itself() -> None:
    assert recovery_kind("auto", "data") == recovery_kind("auto", "pictures") == "least-squares"
    assert recovery_kind("auto", "noise") is None
    assert recovery_kind("bias", "noise") == "bias"
    assert recovery_kind("none", "data") is None


def test_samples_that_memory_allows_come_from_all_over() -> None:
    feeds = [{"x": np.full(100, place, np.float32)} for place in range(50)]
    assert affordable(iter(feeds), 50 * 400) == feeds
    found = [int(feed["x"][0]) for feed in affordable(feeds, 10 * 400)]
    assert found == list(range(0, 50, 8))
    assert len(affordable(feeds, 1)) == 1


@pytest.mark.parametrize("count", [40, 400])
def test_samples_beyond_what_memory_allows_are_not_held(count: int) -> None:
    budget, size = 2**20, 2**16
    tracemalloc.start()
    try:
        kept = affordable(({"x": np.full(size // 4, place, np.float32)} for place in range(count)), budget)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert budget / 2 <= len(kept) * size <= budget
    assert kept[-1]["x"][0] > 0.8 * count
    assert peak < budget + 4 * size
