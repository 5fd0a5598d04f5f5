"""Sample sets: batches, holding back, overlap; and inputs made up from the signature."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from onnxqp.data import PRESETS, from_feeds, hold_back, overlap, read, resolve_shapes, synthesize
from onnxqp.data.samples import draw
from onnxqp.errors import UnsupportedError, UsageError
from onnxqp.specs import InputSpec

FLOAT, INT64 = np.dtype(np.float32), np.dtype(np.int64)


def sequence(*widths: int, inputs: tuple[InputSpec, ...] | None = None):
    inputs = inputs or (InputSpec("x", FLOAT, ("N", "S")),)
    feeds = [
        ({spec.name: np.full((1, width), number, np.float32) for spec in inputs}, number)
        for number, width in enumerate(widths)
    ]
    return from_feeds(feeds, inputs, samples=None)


# ---- batches -------------------------------------------------------------------------------------------------


def test_only_neighbours_of_equal_width_are_stacked():
    shapes = [(feed["x"].shape, labels) for feed, labels in sequence(4, 4, 4, 5, 5, 4).batches(2)]
    assert shapes == [((2, 4), [0, 1]), ((1, 4), [2]), ((2, 5), [3, 4]), ((1, 4), [5])]


@pytest.mark.parametrize(
    ("leading", "stacked"),
    [
        (("N", "N"), True),
        (("N", "M"), False),
        (("N", 1), False),
        ((1, 1), False),
        ((None, None), False),
        ((None,), True),
        (("N",), True),
        ((1,), False),
    ],
)
def test_batching_needs_one_open_leading_axis(leading, stacked):
    inputs = tuple(InputSpec(f"x{place}", FLOAT, (axis, 4)) for place, axis in enumerate(leading))
    samples = sequence(4, 4, 4, inputs=inputs)
    assert samples.can_batch == stacked
    assert [len(labels) for _, labels in samples.batches(8)] == ([3] if stacked else [1, 1, 1])


def test_states_and_scalars_are_never_batched():
    inputs = (InputSpec("x", FLOAT, ("N", 4)), InputSpec("state", FLOAT, (2, "N", 8)), InputSpec("sr", INT64, ()))
    feed = {"x": np.zeros((1, 4)), "state": np.zeros((2, 1, 8)), "sr": np.int64(8000)}
    samples = from_feeds([feed, feed], inputs)
    assert [len(labels) for _, labels in samples.batches(4)] == [1, 1]
    assert next(samples.batches(4))[1] == [None]


def test_feeds_of_several_rows_are_passed_as_they_are():
    samples = from_feeds([{"x": np.zeros((3, 4))}] * 2, [InputSpec("x", FLOAT, ("N", 4))])
    assert [feed["x"].shape for feed, _ in samples.batches(4)] == [(3, 4), (3, 4)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=12), st.integers(1, 5))
def test_batches_hold_every_sample_once_and_in_order(widths, size):
    samples = sequence(*widths)
    labels, values = [], []
    for feed, some in samples.batches(size):
        assert len(feed["x"]) == len(some) <= size
        labels += some
        values += [int(row[0]) for row in feed["x"]]
    assert labels == values == list(range(len(widths)))


# ---- drawing and splitting -----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 3))
def test_a_draw_is_without_replacement_and_ascends(total, samples, seed):
    chosen = draw(total, samples, seed)
    assert len(set(chosen)) == len(chosen) == min(total, samples)
    assert list(chosen) == sorted(chosen)
    assert 0 <= chosen[0] <= chosen[-1] < total
    assert chosen == draw(total, samples, seed)


@pytest.mark.parametrize(("count", "held"), [(5, 1), (9, 1), (10, 2), (256, 51), (320, 64), (1000, 64)])
def test_a_fifth_is_held_back_but_at_most_64(count, held):
    samples = sequence(*[2] * count).warned("told once")
    calibration, evaluation = hold_back(samples)
    assert (len(calibration), len(evaluation)) == (count - held, held)
    assert sorted(calibration.labels + evaluation.labels) == list(range(count))
    assert (calibration.warnings, evaluation.warnings) == (("told once",), ())
    assert hold_back(samples)[1].indices == evaluation.indices
    assert [int(feed["x"][0, 0]) for feed in evaluation.feeds()] == evaluation.labels


def test_what_is_held_back_is_not_simply_the_end():
    _, evaluation = hold_back(sequence(*[2] * 100))
    assert min(evaluation.indices) < 50


@pytest.mark.parametrize("count", [1, 4])
def test_few_samples_are_reused_with_a_warning(count):
    calibration, evaluation = hold_back(sequence(*[2] * count))
    assert calibration.indices == evaluation.indices
    assert "flatters" in calibration.warnings[0]


def test_overlap_by_content_of_feeds_and_files(tmp_path):
    spec = [InputSpec("x", FLOAT, ("N", 3, 8, 8))]
    for folder, levels in (("a", (1, 2, 3)), ("b", (3, 4, 1, 1))):
        (tmp_path / folder).mkdir()
        for number, level in enumerate(levels):
            Image.new("RGB", (8, 8), (level,) * 3).save(tmp_path / folder / f"{number}.png")
    one, other = (read(str(tmp_path / folder), spec, preprocess=PRESETS["unit"]) for folder in "ab")
    assert overlap(one, other) == 3
    assert overlap(one.subset([1]), other) == 0
    np.savez(tmp_path / "c.npz", x=np.full((1, 3, 8, 8), 2 / 255, np.float32))
    assert overlap(one, read(str(tmp_path / "c.npz"), spec)) == 1
    assert overlap(sequence(2, 3), sequence(3, 2)) == 0  # same values, other shapes
    assert overlap(sequence(2, 3), sequence(2, 3)) == 2


# ---- synthetic inputs ----------------------------------------------------------------------------------------


def one(spec: InputSpec, **options: object) -> np.ndarray:
    return next(synthesize([spec], samples=1, seed=0, **options).feeds())[spec.name]


def test_synthetic_samples_are_seeded_and_say_what_they_are():
    spec = [InputSpec("x", FLOAT, ("N", 3, 32, 32))]
    first, again, other = (synthesize(spec, samples=3, seed=seed) for seed in (0, 0, 1))
    assert len(first) == 3
    assert first.source == "synthetic"
    assert "synthetic" in first.warnings[0]
    for left, right in zip(first.feeds(), again.feeds(), strict=True):
        np.testing.assert_array_equal(left["x"], right["x"])
    for left, right in zip(first.feeds(), first.feeds(), strict=True):
        np.testing.assert_array_equal(left["x"], right["x"])
    assert not np.array_equal(next(first.feeds())["x"], next(other.feeds())["x"])
    assert overlap(first, first.subset([1, 2])) == 2


@pytest.mark.parametrize(("shape", "axis"), [(("N", 3, 64, 48), 1), (("N", 64, 48, 3), 3)])
def test_pictures_have_the_statistics_of_pictures(shape, axis):
    samples = synthesize([InputSpec("x", FLOAT, shape)], samples=64, seed=0)
    pictures = np.moveaxis(np.concatenate([feed["x"] for feed in samples.feeds()]), axis, 1)
    assert pictures.shape == (64, 3, 64, 48)
    assert abs(pictures.mean()) < 0.3
    assert 0.7 < pictures.std() < 1.3
    assert np.abs(pictures).max() <= 2.5
    neighbours = np.corrcoef(pictures[..., 1:].ravel(), pictures[..., :-1].ravel())[0, 1]
    colours = np.corrcoef(pictures[:, 0].ravel(), pictures[:, 1].ravel())[0, 1]
    assert neighbours > 0.6
    assert 0.7 < colours < 0.95
    brightness = pictures.mean((1, 2, 3))
    assert brightness.std() > 0.2  # pictures differ


def test_the_amplitude_of_pictures_falls_about_as_one_over_frequency():
    samples = synthesize([InputSpec("x", FLOAT, (1, 1, 128, 128))], samples=32, seed=0)
    planes = np.concatenate([feed["x"][0] for feed in samples.feeds()])
    power = (np.abs(np.fft.rfft2(planes)) ** 2).mean(0)
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128)[None])
    band = (frequency > 2 / 128) & (frequency < 0.4)
    slope = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]
    assert slope == pytest.approx(-2.2, abs=0.4)


def test_pictures_in_a_range_and_in_uint8():
    values = one(InputSpec("x", FLOAT, (1, 3, 64, 64)), ranges={"x": (0.0, 1.0)})
    assert 0 <= values.min() < values.max() <= 1
    pixels = one(InputSpec("x", np.dtype(np.uint8), (1, 64, 64, 3)))
    assert pixels.dtype == np.uint8
    assert 40 < pixels.mean() < 215


def test_other_floats_are_normal_noise():
    values = one(InputSpec("x", FLOAT, (1, 257, 100)))
    assert abs(values.mean()) < 0.05
    assert values.std() == pytest.approx(1, abs=0.05)
    correlation = np.corrcoef(values[0, :, 1:].ravel(), values[0, :, :-1].ravel())[0, 1]
    assert abs(correlation) < 0.05


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_integers_stay_below_their_limit(dtype):
    spec = InputSpec("ids", np.dtype(dtype), ("N", 500))
    limited = one(spec, limits={"ids": 30})
    assert limited.dtype == dtype
    assert (limited.min(), limited.max()) == (0, 29)
    if dtype != np.uint8:
        assert 0 <= one(spec).min() < one(spec).max() < 16


def test_masks_positions_rates_and_others():
    assert one(InputSpec("attention_mask", INT64, ("N", 5))).tolist() == [[1] * 5]
    assert one(InputSpec("attn_mask", FLOAT, ("N", 3))).tolist() == [[1] * 3]
    assert one(InputSpec("Mask", np.dtype(bool), (2,))).tolist() == [True, True]
    assert set(one(InputSpec("flags", np.dtype(bool), (64,))).tolist()) == {True, False}
    assert one(InputSpec("position_ids", INT64, (1, 4)), limits={"position_ids": 3}).tolist() == [[0, 1, 2, 0]]
    assert one(InputSpec("sr", INT64, ())) == 16000
    assert one(InputSpec("count", INT64, (1,))).tolist() == [1]
    assert one(InputSpec("half", np.dtype(np.float16), (4,))).dtype == np.float16
    assert one(InputSpec("z", np.dtype(np.complex64), (4,))).dtype == np.complex64
    assert one(InputSpec("text", np.dtype(object), (2,))).tolist() == ["text", "text"]


@pytest.mark.parametrize(
    ("shape", "resolved"),
    [
        (("N", 3, "H", "W"), (1, 3, 224, 224)),
        (("batch", "height", "width", 3), (1, 224, 224, 3)),
        ((None, None), (1, 16)),
        (("seq", 1, 80), (16, 1, 80)),
        ((None, 64, None), (1, 64, 16)),
        ((4, 3, None, None), (4, 3, 224, 224)),
        ((), ()),
    ],
)
def test_open_sizes_have_defaults(shape, resolved):
    assert resolve_shapes([InputSpec("x", FLOAT, shape)], {}) == {"x": resolved}


def test_one_name_is_one_size():
    ids, mask = InputSpec("ids", INT64, ("B", "S")), InputSpec("mask", INT64, ("B", "P + S"))
    past = InputSpec("past", FLOAT, ("B", 4, "P", 8))
    assert resolve_shapes([mask, ids, past], {"ids": (2, 7)}) == {"ids": (2, 7), "past": (2, 4, 16, 8), "mask": (2, 23)}
    assert resolve_shapes([ids, mask], {"ids": (2, 7), "mask": (2, 9)})["mask"] == (2, 9)


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        ({"y": (1,)}, "no input 'y'"),
        ({"ids": (1, 2, 3)}, "declares"),
        ({"image": (1, 4, 8, 8)}, "declares"),
        ({"ids": (1, -2)}, "negative"),
        ({"ids": (1, 7), "image": (2, 3, 8, 8)}, "'B' is 1 elsewhere"),
    ],
)
def test_shapes_that_contradict_the_model(shapes, told):
    inputs = [InputSpec("ids", INT64, ("B", "S")), InputSpec("image", FLOAT, ("B", 3, "H", "W"))]
    with pytest.raises(UsageError, match=told):
        resolve_shapes(inputs, shapes)


def test_what_cannot_be_made_up():
    with pytest.raises(UnsupportedError, match="declares no shape") as caught:
        synthesize([InputSpec("x", FLOAT, None)], samples=1, seed=0)
    assert "--shape x:" in str(caught.value.hint)
    assert one(InputSpec("x", FLOAT, None), shapes={"x": (2, 3)}).shape == (2, 3)
    with pytest.raises(UnsupportedError, match="nothing that numpy holds"):
        synthesize([InputSpec("x", None, None)], samples=1, seed=0)
    with pytest.raises(UsageError, match="at least 1"):
        synthesize([InputSpec("x", FLOAT, (1,))], samples=0, seed=0)
