"""Calibration files: nothing is lost on the way, shards add up to one pass, and damaged or foreign files say so."""

import dataclasses
import io
import json
import zipfile

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxqp import model as files
from onnxqp.calibrate import store
from onnxqp.calibrate.observers import ChannelMean, Histogram
from onnxqp.calibrate.statistics import Part, Statistics
from onnxqp.errors import DataError, OutputError, UsageError

RNG = np.random.default_rng(0)
SAMPLES = [(RNG.normal(0, 10.0 ** RNG.integers(-3, 4), (2, 3, 5))).astype(np.float32) for _ in range(7)]


def seen(samples, shard="1/1", **changes):
    """Statistics of two values over `samples`: one with channel means, one of zeros alone, and one never seen."""
    found = Statistics("ab12", parts=[Part(len(samples), "data", shard, len(SAMPLES), **changes)])
    found.histograms = {"x": Histogram(), "größe/0:1": Histogram(), "never": Histogram()}
    found.means = {"x": ChannelMean(1), "never": ChannelMean(-1)}
    for sample in samples:
        found.histograms["x"].update(sample)
        found.histograms["größe/0:1"].update(sample * 0)
        found.means["x"].update(sample)
    return found


def same(one, other):
    """Every field of every observer, also those that do not exist yet."""
    assert dataclasses.replace(one, histograms={}, means={}) == dataclasses.replace(other, histograms={}, means={})
    for kind in ("histograms", "means"):
        ours, theirs = getattr(one, kind), getattr(other, kind)
        assert list(ours) == list(theirs)
        for name in ours:
            assert vars(ours[name]).keys() == vars(theirs[name]).keys()
            for field, value in vars(ours[name]).items():
                assert np.array_equal(value, vars(theirs[name])[field]), (kind, name, field)


def test_what_is_written_is_read(tmp_path):
    whole = seen(SAMPLES)
    whole.histograms["x"].update(np.array([np.nan, np.inf], np.float32))
    store.save(whole, tmp_path / "a.npz")
    same(store.read(tmp_path / "a.npz"), whole)
    assert whole.samples == 7
    assert whole.source == "data"


def test_the_file_is_plain_and_always_the_same(tmp_path):
    store.save(seen(SAMPLES), tmp_path / "a.npz")
    store.save(store.read(tmp_path / "a.npz"), tmp_path / "b.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as one, np.load(tmp_path / "b.npz") as other:
        assert all(np.array_equal(one[name], other[name]) for name in one.files)
        assert json.loads(one["header"].tobytes())["histograms"] == ["x", "größe/0:1", "never"]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.npz", "b.npz"]


def test_a_file_is_small(tmp_path):
    whole = seen(SAMPLES)
    whole.histograms = {f"value{i}": whole.histograms["größe/0:1"] for i in range(1000)}
    store.save(whole, tmp_path / "a.npz")
    assert (tmp_path / "a.npz").stat().st_size < 100_000


@given(st.lists(st.integers(0, 2), min_size=len(SAMPLES), max_size=len(SAMPLES)), st.permutations(range(3)))
def test_merged_shards_equal_one_pass(shares, order):
    shards = [seen([s for s, share in zip(SAMPLES, shares, strict=True) if share == i], f"{i + 1}/3") for i in order]
    merged, *others = shards
    for other in others:
        merged.merge(other)
    whole = seen(SAMPLES)
    assert merged.samples == whole.samples
    assert merged.missing_shards() == []
    merged.parts = whole.parts
    same(merged, whole)


def test_shards_that_are_missing_are_named():
    merged = seen(SAMPLES[::3], "1/3")
    assert merged.missing_shards() == ["2/3", "3/3"]
    merged.merge(seen(SAMPLES[2::3], "3/3"))
    assert merged.missing_shards() == ["2/3"]
    assert seen(SAMPLES).missing_shards() == []


def test_what_cannot_be_merged():
    with pytest.raises(UsageError, match="different models"):
        seen(SAMPLES).merge(dataclasses.replace(seen(SAMPLES), model="cd34"))
    with pytest.raises(UsageError, match="different values"):
        seen(SAMPLES).merge(dataclasses.replace(seen(SAMPLES), means={}))
    with pytest.raises(UsageError, match="shard 2/4 is given twice"):
        seen(SAMPLES, "2/4").merge(seen(SAMPLES, "2/4"))
    seen(SAMPLES, "2/4").merge(seen(SAMPLES, "2/4", seed=1))
    twice = seen(SAMPLES)
    twice.merge(seen(SAMPLES))
    assert twice.histograms["x"].count == 2 * seen(SAMPLES).histograms["x"].count


def test_synthetic_is_said_when_a_part_is():
    mixed = seen(SAMPLES)
    mixed.merge(dataclasses.replace(seen(SAMPLES), parts=[Part(3, "synthetic")]))
    assert mixed.source == "synthetic"
    assert mixed.samples == 10


def test_statistics_of_another_model_or_of_too_few_values():
    found = seen(SAMPLES)
    found.require_model("ab12")
    found.require_values(["x"], ["x"])
    with pytest.raises(DataError, match="another model") as caught:
        found.require_model("cd34")
    assert "onnxqp calibrate" in caught.value.hint
    with pytest.raises(DataError, match=r"lack 1 values .* 'y'"):
        found.require_values(["x", "y"], [])
    with pytest.raises(DataError, match="lack 1 values"):
        found.require_values(["größe/0:1"], ["größe/0:1"])


# ---- files that are none ---------------------------------------------------------------------------------------


def rewritten(path, **changes):
    """The same file with some arrays exchanged, or removed where None."""
    with np.load(path) as found:
        arrays = {name: found[name] for name in found.files} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


@pytest.mark.parametrize(
    "changes",
    [
        {"header": None},
        {"header": np.frombuffer(b"{", np.uint8)},
        {"header": np.frombuffer(b"[]", np.uint8)},
        {"header": np.frombuffer(b'{"format": "other"}', np.uint8)},
        {"low": None},
        {"low": np.zeros(1)},
        {"bins": np.zeros(3, np.int64)},
        {"tallies": np.ones(4, np.int64)},
        {"filled": np.array([1, -1, 0])},
        {"filled": np.array([1, 0])},
        {"exponent": np.full(3, 10_000, np.int32)},
        {"count": np.zeros(3, np.int64)},
        {"mean_size": np.array([99, 0])},
    ],
    ids=str,
)
def test_damaged_files_are_refused(tmp_path, changes):
    path = tmp_path / "a.npz"
    store.save(seen(SAMPLES), path)
    rewritten(path, **changes)
    with pytest.raises(DataError, match="not a calibration file") as caught:
        store.read(path)
    assert caught.value.where == str(path)
    assert "--data" in caught.value.hint


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, input=np.zeros((4, 3)), labels=np.arange(4))
    with pytest.raises(DataError, match="not a calibration file"):
        store.read(path)
    path.write_bytes(b"PK\x03\x04 but no archive")
    with pytest.raises(DataError, match="not a calibration file"):
        store.read(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="not a calibration file"):
        store.read(path)
    with pytest.raises(DataError, match="no such file"):
        store.read(tmp_path / "none.npz")
    with pytest.raises(DataError, match="cannot be read"):
        store.read(tmp_path)


def test_a_cut_file_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    store.save(seen(SAMPLES), path)
    content = path.read_bytes()
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises(DataError):
            store.read(path)


def test_pickles_and_archives_that_blow_up_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, header=np.array([{}], object))
    with pytest.raises(DataError, match="not a calibration file"):
        store.read(path)
    content = io.BytesIO()
    np.save(content, np.zeros(10_000_000, np.uint8))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.npy", content.getvalue())
    with pytest.raises(DataError, match="not a calibration file"):
        store.read(path)


def test_a_file_of_another_version_says_so(tmp_path):
    path = tmp_path / "a.npz"
    store.save(seen(SAMPLES), path)
    with np.load(path) as found:
        header = json.loads(found["header"].tobytes())
    rewritten(path, header=np.frombuffer(json.dumps(header | {"version": 1}).encode(), np.uint8))
    with pytest.raises(DataError, match="version 1"):
        store.read(path)


def test_where_a_file_cannot_be_written(tmp_path):
    with pytest.raises(UsageError, match=r"ends in \.npz") as caught:
        store.save(seen(SAMPLES), tmp_path / "a.json")
    assert "a.npz" in caught.value.hint
    with pytest.raises(OutputError):
        store.save(seen(SAMPLES), tmp_path / "none" / "a.npz")


# ---- which model -------------------------------------------------------------------------------------------------


def linear(weight, path=None, external=False):
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    sides = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 40]) for n in "xy"]
    graph = helper.make_graph([node], "g", sides[:1], sides[1:], [numpy_helper.from_array(weight, "w")])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    if path is None:
        return ir.from_proto(proto)
    import onnx

    onnx.save(proto, path, save_as_external_data=external, location="w.data", size_threshold=0)
    return files.load(path)


@pytest.mark.parametrize("external", [False, True])
def test_the_hash_covers_the_weights(tmp_path, external):
    hashes = []
    for index, value in enumerate((1.0, 1.0, 2.0)):
        folder = tmp_path / str(index)
        folder.mkdir()
        path = folder / "m.onnx"
        hashes.append(store.model_hash(linear(np.full((40, 40), value, np.float32), path, external), path))
    assert hashes[0] == hashes[1] != hashes[2]
    if not external:
        assert hashes[0] == files.file_hash(tmp_path / "0" / "m.onnx")


def test_a_model_in_memory_has_a_hash():
    one, other = (store.model_hash(linear(np.full((40, 40), v, np.float32)), None) for v in (1.0, 2.0))
    assert len(one) == 64
    assert one != other


def test_a_member_in_an_unknown_compression_is_refused(tmp_path):
    path = tmp_path / "s.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.npy", b"x" * 100)
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        content[content.index(mark) + place] = 99
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        store.read(path)
