"""`.npy`, `.npz` and folders of `.npz`: readings, labels, casts, and every damage."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxqp.data import PRESETS, read
from onnxqp.data.npy_format import PackedRows, read_header
from onnxqp.errors import DataError
from onnxqp.specs import InputSpec

FLOAT, INT64 = np.dtype(np.float32), np.dtype(np.int64)
IMAGE = InputSpec("x", FLOAT, ("N", 3, 8, 8))
IDS = (InputSpec("input_ids", INT64, ("N", "S")), InputSpec("attention_mask", INT64, ("N", "S")))


def rows(count: int, *shape: int, dtype: object = np.float32) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, *shape)).astype(dtype)


def refused(spec: object, inputs: object = (IMAGE,), **options: object) -> DataError:
    with pytest.raises(DataError) as caught:
        list(read(str(spec), inputs, **options))
    assert caught.value.hint
    return caught.value


# ---- what works ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_rows_become_samples_with_labels(tmp_path, save):
    x, labels = rows(20, 3, 8, 8), np.arange(20) % 10
    save(tmp_path / "d.npz", x=x, labels=labels)
    drawn = read(str(tmp_path / "d.npz"), [IMAGE], samples=5, seed=3, classes=10)
    assert len(drawn) == 5
    assert len(list(drawn)) == 5
    for _ in range(2):  # as often as one likes
        for index, sample in zip(drawn.indices, drawn.samples(), strict=True):
            np.testing.assert_array_equal(sample.feed["x"], x[index : index + 1])
            assert sample.label == labels[index]
            assert sample.origin.endswith(f"d.npz[{index}]")
    assert drawn.labels == [int(labels[index]) for index in drawn.indices]
    assert (drawn.source, drawn.warnings) == ("data", ())


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_a_single_input_model(tmp_path, order):
    x = np.asarray(rows(6, 3, 8, 8), order=order)
    np.save(tmp_path / "d.npy", x)
    drawn = read(str(tmp_path / "d.npy"), [IMAGE])
    np.testing.assert_array_equal(np.concatenate([feed["x"] for feed in drawn.feeds()]), x)
    assert drawn.labels is None


def test_npz_in_fortran_order(tmp_path):
    x = np.asfortranarray(rows(6, 3, 8, 8))
    np.savez_compressed(tmp_path / "d.npz", x=x)
    drawn = read(str(tmp_path / "d.npz"), [IMAGE], samples=3)
    np.testing.assert_array_equal(np.concatenate([f["x"] for f in drawn.feeds()]), x[list(drawn.indices)])


def test_a_folder_of_npz_reads_file_after_file(tmp_path):
    parts = [rows(count, 3, 8, 8) for count in (3, 1, 4)]
    for number, part in enumerate(parts):
        np.savez(tmp_path / f"{number}.npz", x=part, label=np.full(len(part), number))
    drawn = read(str(tmp_path), [IMAGE], classes=3)
    np.testing.assert_array_equal(np.concatenate([f["x"] for f in drawn.feeds()]), np.concatenate(parts))
    assert drawn.labels == [0, 0, 0, 1, 2, 2, 2, 2]
    some = read(str(tmp_path), [IMAGE], samples=4, seed=1)
    expected = np.concatenate(parts)[list(some.indices)]
    np.testing.assert_array_equal(np.concatenate([f["x"] for f in some.feeds()]), expected)


def test_a_folder_of_single_samples_of_different_widths(tmp_path):
    for width in (3, 5, 4):
        np.savez(tmp_path / f"{width}.npz", input_ids=np.arange(width), attention_mask=np.ones(width, np.int32))
    drawn = read(str(tmp_path), IDS)
    assert [feed["input_ids"].shape for feed in drawn.feeds()] == [(1, 3), (1, 4), (1, 5)]
    assert {feed["attention_mask"].dtype for feed in drawn.feeds()} == {INT64}
    assert [len(labels) for _, labels in drawn.batches(8)] == [1, 1, 1]


def test_constants_and_stacks(tmp_path):
    inputs = [
        InputSpec("input", FLOAT, (None, None)),
        InputSpec("state", FLOAT, (2, None, 4)),
        InputSpec("sr", INT64, ()),
    ]
    sound, states = rows(5, 32), rows(5, 2, 1, 4)
    np.savez(tmp_path / "same.npz", input=sound, state=states[0], sr=np.int64(16000))
    np.savez(tmp_path / "each.npz", input=sound, state=states, sr=np.array([16000], np.int32))
    same = list(read(str(tmp_path / "same.npz"), inputs).feeds())
    each = list(read(str(tmp_path / "each.npz"), inputs).feeds())
    assert len(same) == len(each) == 5
    for index in range(5):
        np.testing.assert_array_equal(same[index]["state"], states[0])
        np.testing.assert_array_equal(each[index]["state"], states[index])
        assert same[index]["sr"].shape == each[index]["sr"].shape == ()
        assert each[index]["input"].shape == (1, 32)


def test_one_row_beside_many_is_the_same_for_all(tmp_path):
    np.savez(tmp_path / "d.npz", input_ids=np.ones((3, 4), np.int64), attention_mask=np.ones((1, 4), np.int64))
    feeds = list(read(str(tmp_path / "d.npz"), IDS).feeds())
    assert len(feeds) == 3
    assert all(feed["attention_mask"].shape == (1, 4) for feed in feeds)


@pytest.mark.parametrize("have", [np.float64, np.float16, ">f4"])
def test_floats_are_cast(tmp_path, have):
    np.savez(tmp_path / "d.npz", x=rows(2, 3, 8, 8).astype(have))
    assert next(read(str(tmp_path / "d.npz"), [IMAGE]).feeds())["x"].dtype == np.float32


def test_integers_are_cast_where_no_value_changes(tmp_path):
    spec = [InputSpec("x", np.dtype(np.int32), ("N", 2))]
    np.savez(tmp_path / "d.npz", x=np.array([[1, 2]], np.int64))
    assert next(read(str(tmp_path / "d.npz"), spec).feeds())["x"].dtype == np.int32
    np.savez(tmp_path / "d.npz", x=np.array([[1, 2**40]], np.int64))
    assert "do not fit int32" in str(refused(tmp_path / "d.npz", spec))


@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (4, 8, 8, 3), (3, 8, 8), (8, 8, 3)])
def test_uint8_pictures_go_through_the_preprocessing(tmp_path, shape):
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.savez(tmp_path / "d.npz", x=x)
    drawn = read(str(tmp_path / "d.npz"), [IMAGE], preprocess=PRESETS["unit"])
    assert len(drawn) == (4 if len(shape) == 4 else 1)
    first = next(drawn.feeds())["x"][0]
    picture = x[0] if len(shape) == 4 else x
    expected = picture if picture.shape[0] == 3 else picture.transpose(2, 0, 1)
    np.testing.assert_allclose(first, expected / 255, atol=1e-6)


def test_uint8_pictures_of_another_size_are_resized(tmp_path):
    np.save(tmp_path / "d.npy", np.full((2, 20, 30), 51, np.uint8))
    drawn = read(str(tmp_path / "d.npy"), [InputSpec("x", FLOAT, (1, 1, 8, 8))], preprocess=PRESETS["unit"])
    assert [feed["x"].shape for feed in drawn.feeds()] == [(1, 1, 8, 8)] * 2
    np.testing.assert_allclose(next(drawn.feeds())["x"], 0.2, atol=1e-6)


def test_preprocessing_of_prepared_floats_is_a_warning(tmp_path):
    np.save(tmp_path / "d.npy", rows(2, 3, 8, 8))
    (warning,) = read(str(tmp_path / "d.npy"), [IMAGE], preprocess=PRESETS["unit"]).warnings
    assert "not applied" in warning


def test_arrays_that_are_no_inputs_are_ignored_with_a_warning(tmp_path):
    np.savez(tmp_path / "d.npz", x=rows(2, 3, 8, 8), score=np.ones(7))
    (warning,) = read(str(tmp_path / "d.npz"), [IMAGE]).warnings
    assert "'score'" in warning


@pytest.mark.parametrize(
    ("labels", "plain"),
    [
        (np.array([[1], [2]]), [1, 2]),
        (np.array([1.0, 2.0]), [1, 2]),
        (np.array([0.5, 2.0]), [0.5, 2]),
        (np.array([1, 2], np.uint8), [1, 2]),
    ],
)
def test_labels_are_plain_numbers(tmp_path, labels, plain):
    np.savez(tmp_path / "d.npz", x=rows(2, 3, 8, 8), labels=labels)
    found = read(str(tmp_path / "d.npz"), [IMAGE]).labels
    assert found == plain
    assert all(isinstance(label, int | float) for label in found)


def test_an_input_may_be_called_labels(tmp_path):
    spec = [InputSpec("labels", INT64, ("N", 2))]
    np.savez(tmp_path / "d.npz", labels=np.ones((3, 2), np.int64), label=np.arange(3))
    drawn = read(str(tmp_path / "d.npz"), spec)
    assert drawn.labels == [0, 1, 2]
    assert next(drawn.feeds())["labels"].shape == (1, 2)


def test_unlabelled_reading_does_not_look_at_labels(tmp_path):
    np.savez(tmp_path / "d.npz", x=rows(2, 3, 8, 8), labels=np.array([500, 600, 700]))
    assert read(str(tmp_path / "d.npz"), [IMAGE], classes=10, labelled=False).labels is None


def test_only_minus_infinity_in_a_mask_passes(tmp_path):
    spec = [InputSpec("attn_mask", FLOAT, ("N", 3))]
    np.save(tmp_path / "d.npy", np.array([[0, 0, -np.inf]], np.float32))
    assert len(list(read(str(tmp_path / "d.npy"), spec))) == 1
    np.save(tmp_path / "d.npy", np.array([[0, np.nan, -np.inf]], np.float32))
    assert "1 of 3 values" in str(refused(tmp_path / "d.npy", spec))


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path):
    np.savez_compressed(tmp_path / "d.npz", x=np.zeros((400, 3, 64, 64), np.float32))  # 19 MB unpacked
    np.save(tmp_path / "d.npy", np.zeros((400, 3, 64, 64), np.float32))
    spec = [InputSpec("x", FLOAT, ("N", 3, 64, 64))]
    for name in ("d.npz", "d.npy"):
        tracemalloc.start()
        assert sum(1 for _ in read(str(tmp_path / name), spec, samples=None).feeds()) == 400
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
        tracemalloc.stop()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=0, max_size=3),
    st.sampled_from(["<f4", ">f8", "|u1", "<i8", "|b1"]),
    st.booleans(),
    st.data(),
)
def test_packed_rows_are_the_rows_of_numpy(shape, dtype, fortran, data):
    array = np.arange(int(np.prod([5, *shape]))).reshape(5, *shape).astype(dtype)
    array = np.asarray(array, order="F" if fortran else "C")
    stream = io.BytesIO()
    np.save(stream, array)
    size = stream.tell()
    stream.seek(0)
    header = read_header(stream, size, "here")
    assert (header.shape, header.dtype, header.offset + header.nbytes) == (array.shape, array.dtype, size)
    stream.seek(0)
    packed = PackedRows(stream, header, "here")
    for index in sorted(data.draw(st.sets(st.integers(0, 4)))):
        np.testing.assert_array_equal(packed.row(index), array[index])


# ---- faults --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrays", "told", "hint"),
    [
        ({"y": rows(2, 3, 8, 8)}, "no array for input 'x': found 'y', expected 'x'", "rename it to 'x'"),
        ({"x": rows(2, 3, 8, 9)}, "found shape [2, 3, 8, 9], expected [N, 3, 8, 8]", "numbers must match"),
        ({"x": rows(2, 8, 8, 3)}, "found shape [2, 8, 8, 3]", "looks like NHWC"),
        ({"x": rows(2, 3, 8, 8).astype(np.uint8)}, "found uint8, expected float32", "--preprocess"),
        ({"x": rows(2, 3, 8, 8).astype(np.int64)}, "found int64, expected float32", "astype"),
        ({"x": rows(0, 3, 8, 8)}, "holds no samples", "length 0"),
        ({"x": rows(2, 3, 8, 8), "labels": np.arange(3)}, "3 labels for 2 samples", "one label per sample"),
        ({"x": rows(2, 3, 8, 8), "labels": np.array([0, 10])}, "label 10 is out of range 0..9", "numbered from 1"),
        ({"x": rows(2, 3, 8, 8), "labels": np.array([0, -1])}, "label -1 is out of range", "numbered from 0"),
        ({"x": rows(2, 3, 8, 8), "labels": np.array(["a", "b"])}, "'a' is no class number", "0 to 9"),
    ],
)
def test_faults_of_an_npz(tmp_path, arrays, told, hint):
    np.savez(tmp_path / "d.npz", **arrays)
    error = refused(tmp_path / "d.npz", classes=10)
    assert told in str(error)
    assert hint in str(error.hint)
    assert "d.npz" in str(error.where)


def test_the_missing_batch_axis_and_the_other_layout_are_explained(tmp_path):
    np.save(tmp_path / "d.npy", rows(2, 3, 4, 5))
    spec = [InputSpec("x", FLOAT, ("N", 4, 5, 3))]
    assert "looks like NCHW" in str(refused(tmp_path / "d.npy", spec).hint)
    np.save(tmp_path / "d.npy", rows(3, 4, 5))
    assert "expected [8, 4, 5]" in str(refused(tmp_path / "d.npy", [InputSpec("x", FLOAT, (8, 4, 5))]))
    assert "fixed at 8" in str(refused(tmp_path / "d.npy", [InputSpec("x", FLOAT, (8, 4, 5))]).hint)


def test_a_bad_value_is_named_with_its_sample(tmp_path):
    x = rows(6, 3, 8, 8)
    x[4, 0, 0, 0], x[4, 1, 1, 1] = np.nan, np.inf
    np.savez(tmp_path / "d.npz", x=x)
    error = refused(tmp_path / "d.npz")
    assert "input 'x': 2 of 192 values are NaN or infinite" in str(error)
    assert str(error.where).endswith("d.npz[4]")


def test_values_beyond_the_inputs_type(tmp_path):
    np.save(tmp_path / "d.npy", np.full((1, 2), 1e300))
    assert "infinite" in str(refused(tmp_path / "d.npy", [InputSpec("x", FLOAT, ("N", 2))]))


def test_arrays_of_different_lengths(tmp_path):
    np.savez(tmp_path / "d.npz", input_ids=np.ones((3, 4), np.int64), attention_mask=np.ones((2, 4), np.int64))
    assert "'input_ids' 3, 'attention_mask' 2" in str(refused(tmp_path / "d.npz", IDS))


def test_one_array_for_two_inputs(tmp_path):
    np.save(tmp_path / "d.npy", np.ones((3, 4), np.int64))
    assert ".npz" in str(refused(tmp_path / "d.npy", IDS).hint)


def test_pickles_are_refused(tmp_path):
    witness = tmp_path / "witness"

    class Bomb:
        def __reduce__(self):
            return (witness.touch, ())

    np.save(tmp_path / "d.npy", np.array([Bomb()], object), allow_pickle=True)
    np.savez(tmp_path / "d.npz", x=np.array([Bomb()], object))
    np.savez(tmp_path / "l.npz", x=rows(1, 3, 8, 8), labels=np.array([Bomb()], object))
    for name in ("d.npy", "d.npz", "l.npz"):
        assert "Python objects" in str(refused(tmp_path / name))
    assert not witness.exists()


def test_a_header_that_claims_more_than_the_file_holds(tmp_path):
    np.save(tmp_path / "d.npy", rows(4, 3, 8, 8))
    whole = (tmp_path / "d.npy").read_bytes()
    (tmp_path / "d.npy").write_bytes(whole.replace(b"(4, 3, 8, 8)", b"(9**9,3,8,8)"[:12]))
    refused(tmp_path / "d.npy")
    (tmp_path / "d.npy").write_bytes(whole.replace(b"(4, 3, 8, 8), }         ", b"(68719476736, 3, 8, 8), }"[:24]))
    refused(tmp_path / "d.npy")
    (tmp_path / "d.npy").write_bytes(whole[:-1])
    assert "claims float32 [4, 3, 8, 8] (3072 bytes), the file holds 3071" in str(refused(tmp_path / "d.npy"))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{", b"hello, world", b"PK\x03\x04"])
def test_what_is_no_npy(tmp_path, content):
    for name in ("d.npy", "d.npz"):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name)


@pytest.mark.parametrize("descr", ["'|O'", "[('a', '<f4')]", "'no such type'", "__import__('os')"])
def test_odd_headers(tmp_path, descr):
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (2, 3, 8, 8), }}\n".encode()
    (tmp_path / "d.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(9000))
    refused(tmp_path / "d.npy")


def test_a_damaged_archive(tmp_path):
    np.savez_compressed(tmp_path / "d.npz", x=rows(20, 3, 8, 8))
    data = bytearray((tmp_path / "d.npz").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "d.npz").write_bytes(data)
    refused(tmp_path / "d.npz")
    (tmp_path / "d.npz").write_bytes(data[: len(data) // 2])
    refused(tmp_path / "d.npz")


def test_random_damage_is_always_a_data_error(tmp_path):
    np.savez_compressed(tmp_path / "d.npz", x=rows(4, 3, 8, 8), labels=np.arange(4))
    np.save(tmp_path / "d.npy", rows(4, 3, 8, 8))
    random = np.random.default_rng(0)
    for name in ("d.npz", "d.npy"):
        whole = (tmp_path / name).read_bytes()
        for _ in range(150):
            data = bytearray(whole[: random.integers(1, len(whole) + 1)])
            for place in random.integers(0, len(data), 3):
                data[place] = random.integers(0, 256)
            (tmp_path / name).write_bytes(data)
            with suppress(DataError):  # nothing else may come out
                list(read(str(tmp_path / name), [IMAGE], classes=10))


def test_a_zip_bomb(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (400000, 3, 8, 8), }\n"
    path = tmp_path / "d.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
        member.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
        for _ in range(300):
            member.write(bytes(1 << 20))
    assert (tmp_path / "d.npz").stat().st_size < 1 << 20
    assert "unpacks from" in str(refused(tmp_path / "d.npz"))


def test_an_encrypted_archive(tmp_path):
    np.savez(tmp_path / "d.npz", x=rows(2, 3, 8, 8))
    data = bytearray((tmp_path / "d.npz").read_bytes())
    data[6] |= 1  # the flag in the local header
    data[data.rfind(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "d.npz").write_bytes(data)
    assert "cannot be read" in str(refused(tmp_path / "d.npz"))


def test_labels_in_only_some_files_of_a_folder(tmp_path):
    np.savez(tmp_path / "0.npz", x=rows(1, 3, 8, 8))
    np.savez(tmp_path / "1.npz", x=rows(1, 3, 8, 8), label=1)
    assert "label all or none" in str(refused(tmp_path).hint)


@pytest.mark.parametrize("name", ["nothing", "nothing.npz", "nothing.npy", ""])
def test_what_is_missing_lists_the_accepted_forms(tmp_path, name):
    error = refused(tmp_path / name if name else "")
    assert "folder" in str(error.hint) or "nothing" in str(error)


def test_other_files_and_folders(tmp_path):
    (tmp_path / "d.csv").write_text("1,2")
    assert "accepted" in str(refused(tmp_path / "d.csv").hint)
    assert "accepted" in str(refused(tmp_path).hint)
    np.savez(tmp_path / "d.npz", x=rows(1, 3, 8, 8))
    (tmp_path / "a.png").write_bytes(b"")
    assert "other data" in str(refused(tmp_path))


def test_pipes_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "d.npz")
    assert "regular file" in str(refused(tmp_path / "d.npz"))


def test_a_link_to_itself(tmp_path):
    (tmp_path / "d.npz").symlink_to(tmp_path / "d.npz")
    refused(tmp_path / "d.npz")
