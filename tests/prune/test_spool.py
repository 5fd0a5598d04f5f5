"""Large models: what a cut makes anew lies in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from prune_checks import Build

from onnxqp.model import load, save
from onnxqp.options import PruneOptions
from onnxqp.prune import prune_model, spool
from onnxqp.prune.spool import spooled
from onnxqp.runtime import Session


def test_small_arrays_stay_and_large_ones_are_mapped() -> None:
    small, large = np.ones(8, np.float32), np.arange(1 << 19, dtype=np.float32).reshape(2, -1)
    assert spooled(small, large=True) is small
    assert spooled(large, large=False) is large
    mapped = spooled(large, large=True)
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, large)


def test_a_large_model_is_proven_from_files_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "LARGE", 1000)
    monkeypatch.setattr(spool, "SMALLEST", 100)
    b = Build()
    x = b.op("Relu", b.conv(b.input(2, 3, 6, 6), 3, 16, 3))
    output = b.conv(x, 16, 4)
    result = prune_model(b.model(output), [b.feed], PruneOptions(ratio=0.5, round_to=1), step=1)
    assert result.pruning.proof is not None
    assert result.pruning.proof.checked
    path = tmp_path / "small.onnx"
    save(result.model, path)
    onnx.checker.check_model(str(path))
    np.testing.assert_array_equal(Session(load(path)).run(b.feed)[output], Session(result.model).run(b.feed)[output])
