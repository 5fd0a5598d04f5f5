"""Zeros by pattern: where they are, what the file makes of them, and that the result is the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prune_checks import Build

import onnxqp
from onnxqp.errors import UnsupportedError, UsageError
from onnxqp.model import from_proto, to_bytes
from onnxqp.normalize import normalize
from onnxqp.options import PruneOptions, Selection
from onnxqp.protos import to_proto
from onnxqp.prune import make_sparse
from onnxqp.prune.packed import pack_zeros
from onnxqp.prune.patterns import SparseResult, n_of_m
from onnxqp.recover.input_sizes import element_scores
from onnxqp.runtime import Session, optimized_graph


def network(width: int = 32) -> tuple[ir.Model, Build]:
    """Two convolutions and a product, wide enough that packing pays."""
    build = Build()
    x = build.input(1, 16, 8, 8)
    x = build.op("Relu", build.conv(x, 16, width, 3))
    x = build.op("Relu", build.conv(x, width, width, 3))
    x = build.op("Flatten", build.op("GlobalAveragePool", x))
    return build.model(build.op("Gemm", x, build.weight(width, 64), build.weight(64))), build


def made(pattern: str, model: ir.Model, build: Build, **options: Any) -> tuple[SparseResult, dict[str, np.ndarray]]:
    """The result, and its weights as the runtime sees them, by the name of what they came from."""
    done = make_sparse(model, [build.feed], PruneOptions(pattern=pattern, **options))
    dense = from_proto(to_proto(done.model))
    normalize(dense)
    arrays = [value.const_value.numpy() for value in dense.graph.initializers.values() if value.const_value is not None]
    return done, {str(array.shape): array for array in arrays if array.ndim > 1 and array.dtype == np.float32}


def test_half_of_every_weight() -> None:
    model, build = network()
    done, weights = made("unstructured", model, build, ratio=0.5)
    assert done.pruning.sparsity is not None
    assert done.pruning.sparsity.ratio == pytest.approx(0.5, abs=0.01)
    assert len(weights) == 3
    for array in weights.values():
        assert np.mean(array == 0) == pytest.approx(0.5, abs=0.01)
    for value in model.graph.initializers.values():
        before = value.const_value.numpy() if value.const_value is not None else np.zeros(1)
        after = weights.get(str(before.shape))
        if after is not None:
            np.testing.assert_array_equal(after[after != 0], before[after != 0])
            assert np.abs(before[after == 0]).max() <= np.abs(after[after != 0]).min()


def test_a_threshold_is_relative_to_the_mean() -> None:
    model, build = network()
    _, weights = made("unstructured", model, build, threshold=0.5)
    for value in model.graph.initializers.values():
        before = value.const_value.numpy() if value.const_value is not None else np.zeros(1)
        after = weights.get(str(before.shape))
        if after is not None:
            np.testing.assert_array_equal(after == 0, np.abs(before) < 0.5 * np.abs(before).mean())


def test_all_layers_compete() -> None:
    model, build = network()
    for value in model.graph.initializers.values():
        array = value.const_value.numpy() if value.const_value is not None else np.zeros(1)
        if array.shape == (32, 64):
            flat = array.copy()
            flat[:, 32:] *= 1e-3  # small beside the mean of its own layer
            value.const_value = ir.tensor(flat, name=value.name)
    done, weights = made("unstructured", model, build, ratio=0.2, allocation="global")
    assert done.pruning.sparsity is not None
    assert done.pruning.sparsity.ratio == pytest.approx(0.2, abs=0.01)
    assert np.mean(weights["(32, 64)"] == 0) > 0.45


@pytest.mark.parametrize("pattern", ["2:4", "1:4", "4:8"])
def test_n_of_m_along_the_input_channels(pattern: str) -> None:
    model, build = network()
    kept, of = (int(part) for part in pattern.split(":"))
    done, weights = made(pattern, model, build)
    for array in weights.values():
        along = np.moveaxis(array, 1 if array.ndim == 4 else 0, -1)
        counts = np.count_nonzero(along.reshape(*along.shape[:-1], -1, of), axis=-1)
        assert (counts == kept).all()
    assert done.pruning.sparsity is not None
    assert done.pruning.sparsity.ratio == pytest.approx(1 - kept / of)


def test_blocks_of_four_outputs() -> None:
    model, build = network()
    _, weights = made("block", model, build, ratio=0.75)
    for array in weights.values():
        along = np.moveaxis(array, 0 if array.ndim == 4 else 1, -1)
        counts = np.count_nonzero(along.reshape(*along.shape[:-1], -1, 4), axis=-1)
        assert set(np.unique(counts)) == {0, 4}
        assert np.mean(counts == 0) == pytest.approx(0.75, abs=0.01)


def test_what_is_excluded_or_too_narrow_stays_dense() -> None:
    model, build = network()
    done, weights = made("2:4", model, build, selection=Selection(exclude=("Conv0",)))
    assert done.pruning.sparsity is not None
    assert [note.node for note in done.pruning.sparsity.left] == ["Conv0"]
    assert np.count_nonzero(weights["(32, 16, 3, 3)"]) == weights["(32, 16, 3, 3)"].size
    with pytest.raises(UnsupportedError, match="zeroes nothing"):
        made("32:64", model, build)


def test_ratios_of_their_own() -> None:
    model, build = network()
    _, weights = made("unstructured", model, build, ratio=0.5, layers=(("Conv*", 0.25), ("Conv2", 0.75)))
    assert np.mean(weights["(32, 16, 3, 3)"] == 0) == pytest.approx(0.25, abs=0.01)
    assert np.mean(weights["(32, 32, 3, 3)"] == 0) == pytest.approx(0.75, abs=0.01)


def test_the_file_shrinks_and_the_runtime_computes_on_dense_weights() -> None:
    model, build = network(64)
    before = Session(model).run(build.feed)
    done, _ = made("unstructured", model, build, ratio=0.7)
    assert done.pruning.sparsity is not None
    assert done.pruning.sparsity.packed == 3
    assert len(to_bytes(done.model)) < 0.45 * len(to_bytes(model))
    kinds = {node.op_type for node in optimized_graph(done.model).graph.node}
    assert not kinds & {"BitShift", "CumSum", "Cast"}
    after = Session(to_bytes(done.model)).run(build.feed)
    assert {name: array.shape for name, array in after.items()} == {name: a.shape for name, a in before.items()}
    assert any("faster" in warning for warning in done.warnings)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.5, 0.98), st.sampled_from([np.float32, np.float64]))
def test_packed_weights_come_back_bit_by_bit(rows: int, columns: int, share: float, dtype: Any) -> None:
    random = np.random.default_rng(rows * 41 + columns)
    array = random.normal(size=(rows, 7, columns)).astype(dtype)
    array[random.random(array.shape) < share] = 0
    build = Build()
    weight = build.const(array, dtype)
    nothing = build.input(1, array=np.zeros((1,), np.int64))
    reads = build.op("Cast", nothing, to=11 if dtype is np.float64 else 1)
    model = from_proto(build.proto(build.op("Add", reads, weight)))
    packed = pack_zeros(model)
    (found,) = Session(model).run(build.feed).values()
    np.testing.assert_array_equal(found, array)
    assert packed == (found.nbytes * 0.95 > np.count_nonzero(array) * array.itemsize + array.size / 8 + 900)


def test_inputs_of_unlike_size_count() -> None:
    """Wanda: a weight on a large input goes after one on a small input."""
    build = Build()
    x = build.input(64, 4, array=np.tile(np.array([100.0, 1.0, 1.0, 1.0], np.float32), (64, 1)))
    model = build.model(build.op("MatMul", x, build.const(np.full((4, 4), 0.5), np.float32)))
    scores = element_scores(model, [build.feed])
    (found,) = scores.values()
    np.testing.assert_allclose(found[0] / found[1], 100.0)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"pattern": "half", "ratio": 0.5}, "no pattern"),
        ({"pattern": "4:2"}, "no pattern"),
        ({"pattern": "unstructured"}, "exactly one of --ratio"),
        ({"pattern": "2:4", "ratio": 0.3}, "itself says"),
        ({"pattern": "block", "macs_ratio": 0.5}, "cannot be met"),
        ({"pattern": "block", "ratio": 0.5, "criterion": "reconstruction"}, "knows no"),
        ({"pattern": "block", "ratio": 0.5, "recover": "bias"}, "not recovered"),
    ],
)
def test_contradictions(options: dict[str, Any], match: str) -> None:
    model, build = network()
    with pytest.raises(UsageError, match=match):
        onnxqp.prune(model, options=PruneOptions(**options), data=[build.feed])


def test_names_of_patterns() -> None:
    assert n_of_m("2:4") == (2, 4)
    assert n_of_m("structured") is None


def test_the_whole_way() -> None:
    model, build = network()
    report = onnxqp.prune(model, options=PruneOptions(pattern="2:4", ratio=0.5), data=[build.feed] * 8).report
    assert report.pruning is not None
    assert report.pruning.proof is not None
    assert report.pruning.proof.checked
    assert report.calibration is None
