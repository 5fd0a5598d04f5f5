"""The proof: the pruned model computes what the masked original computes, on real and on random inputs."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.errors import OnnxqpError
from onnxqp.graph import iterate
from onnxqp.ops import rule_for
from onnxqp.prune.spool import is_large
from onnxqp.report.records import Proof
from onnxqp.runtime import Session, as_array
from onnxqp.specs import Feed

TOLERANCE = 1e-3  # of the range of an output, as the house page has it


def random_feeds(feeds: Sequence[Feed], seed: int) -> list[Feed]:
    """Inputs like the given ones and as random: floats of their mean and spread, anything else shuffled."""
    generator = np.random.default_rng(seed)
    return [{name: _random_like(array, generator) for name, array in feed.items()} for feed in feeds]


def _random_like(array: npt.NDArray[Any], generator: np.random.Generator) -> npt.NDArray[Any]:
    if not np.issubdtype(array.dtype, np.floating) or array.size < 2:
        return generator.permutation(array.reshape(-1)).reshape(array.shape)
    spread = float(np.nanstd(array.astype(np.float64))) or 1.0
    noise = generator.normal(float(np.nanmean(array.astype(np.float64))), spread, array.shape)
    return noise.astype(array.dtype)


def prove(masked: ir.Model, pruned: ir.Model, feeds: Sequence[Feed], tolerance: float = TOLERANCE) -> Proof:
    """Run both models on all feeds; `checked` when they agree within `tolerance` of the range of every output.

    `max_abs_diff` is relative to (max - min) of the worst output of the masked model. A model that does not load or run
    is a proof that failed, with the reason.

    Quantized graphs run as they are written: which integers a fused kernel rounds to depends on the sizes it meets.
    """
    worst = 0.0
    try:
        expected = _outputs(masked, feeds)
        for left, right in zip(expected, _outputs(pruned, feeds), strict=True):
            worst = max([worst, *(relative_difference(left[name], right[name]) for name in left)])
    except OnnxqpError as error:
        return Proof(False, None, tolerance, str(error))
    if not worst <= tolerance:
        reason = f"pruned and masked differ by {worst:.2g} of an output's range"
        return Proof(False, worst if np.isfinite(worst) else None, tolerance, reason)
    return Proof(True, worst, tolerance)


def _outputs(model: ir.Model, feeds: Sequence[Feed]) -> list[dict[str, npt.NDArray[Any]]]:
    """What a model makes of all feeds; its session is closed before another is opened."""
    optimize = not any(rule_for(node).quantized for node in iterate(model))
    with opened(model, optimize=optimize) as session:
        runs = (session.run(feed) for feed in feeds)
        return [{name: as_array(output) for name, output in outputs.items()} for outputs in runs]


@contextlib.contextmanager
def opened(model: ir.Model, *, optimize: bool = True) -> Iterator[Session]:
    """A session for a few runs that nobody times.

    That of a large model reads its weights from a file, where they stay: from memory onnxruntime takes a copy.
    """
    if not is_large(model):
        yield Session(model, optimize=optimize, brief=True)
        return
    with tempfile.TemporaryDirectory(prefix="onnxqp-") as folder:
        path = Path(folder) / "model.onnx"
        ir.save(model, path, external_data="model.data")
        session = Session(path, optimize=False, options={"session.disable_prepacking": "1"})
        yield session
        session.close()


def relative_difference(expected: npt.NDArray[Any], found: npt.NDArray[Any]) -> float:
    """Largest difference relative to the range of `expected`; of integers and booleans the share that differs.

    Where both are NaN or the same infinity they agree. Infinite when shapes differ, or only one is finite.
    """
    expected, found = np.asarray(expected), np.asarray(found)
    if expected.shape != found.shape:
        return float("inf")
    if expected.size == 0:
        return 0.0
    if expected.dtype.kind in "biuSUO":
        return float(np.mean(expected != found))
    a, b = expected.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(b[finite]).all():
        return float("inf")
    a, b = a[finite], b[finite]
    if a.size == 0:
        return 0.0
    extent = float(a.max() - a.min()) or float(np.abs(a).max()) or 1.0
    return float(np.abs(a - b).max()) / extent
