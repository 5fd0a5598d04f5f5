"""One specification, many forms: which reader a `--data` or `--eval` argument calls for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import cast

from onnxqp.data.arrays import npy_source, npz_folder_source, npz_source
from onnxqp.data.check import Signature
from onnxqp.data.files import ACCEPTED, files_in
from onnxqp.data.hooks import Factory, collect, load_hook
from onnxqp.data.images import image_source
from onnxqp.data.onnx_test_data import TestDataSource, test_data_sets
from onnxqp.data.pixels import SUFFIXES, PixelInput
from onnxqp.data.preprocess import Preprocessing
from onnxqp.data.samples import SampleSet, Source, draw
from onnxqp.errors import DataError, UsageError
from onnxqp.specs import Feed, InputSpec


def read(
    spec: str,
    inputs: Sequence[InputSpec],
    *,
    preprocess: Preprocessing | None = None,
    samples: int | None = 256,
    seed: int = 0,
    classes: int | None = None,
    labelled: bool = True,
) -> SampleSet:
    """The samples that a specification names, a seeded uniform draw of `samples` of them (None: all).

    `spec`: a folder of images (one folder per class, or flat with or without `labels.csv`), `.npz`, `.npy`, a folder
    of `.npz`, a folder with `test_data_set_*`, `file.py:function` or `module:function`. `inputs`: the model's inputs
    in its order; sizes of `--shape` may be put in, but an open leading axis must stay open, as it counts the samples.
    `classes`: how many classes the model has, if that is known: labels are held against it. `labelled` False: labels
    are not wanted and not looked at (calibration).

    Raises DataError for whatever cannot be read or does not fit the model, now or while the samples are read, and
    UsageError for a preprocessing that does not fit.
    """
    if samples is not None and samples < 1:
        raise UsageError("--samples must be at least 1", hint="256 is the default")
    path = Path(spec)
    if not spec or not _exists(path):
        if ":" in spec:
            return _from_hook(spec, inputs, preprocess, samples, seed, classes, labelled)
        raise DataError("there is no such file or folder", where=spec or "''", hint=ACCEPTED)
    if path.is_dir():
        source, warnings = _folder(path, inputs, preprocess, classes, labelled)
    elif path.suffix.lower() == ".npz":
        source, warnings = npz_source(path, _signature(inputs, preprocess), classes=classes, labelled=labelled)
    elif path.suffix.lower() == ".npy":
        source, warnings = npy_source(path, _signature(inputs, preprocess))
    else:
        raise DataError("is no data that can be read", where=spec, hint=_file_hint(path))
    return _sample_set(source, warnings, inputs, samples, seed, spec)


def from_feeds(
    feeds: Iterable[Feed | tuple[Feed, object]] | Callable[[], Iterable[Feed | tuple[Feed, object]]],
    inputs: Sequence[InputSpec],
    *,
    preprocess: Preprocessing | None = None,
    samples: int | None = 256,
    seed: int = 0,
    classes: int | None = None,
    labelled: bool = True,
    name: str = "data",
) -> SampleSet:
    """Samples handed over as Python objects: feeds or (feed, label) pairs, or a function without arguments that
    gives them; drawn and checked as `read` does. An iterator that can be passed only once is kept in memory."""
    given = feeds if callable(feeds) else None
    factory: Factory = given if given is not None else lambda: cast("Iterable[object]", feeds)
    again = given is not None or iter(cast("Iterable[object]", feeds)) is not feeds
    source, warnings = collect(
        factory,
        name,
        _signature(inputs, preprocess),
        samples=samples,
        seed=seed,
        classes=classes,
        labelled=labelled,
        again=again,
    )
    return SampleSet(source, tuple(range(len(source))), tuple(inputs), "data", name, tuple(warnings))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a link that leads to itself, a name that is too long
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)[:200], hint=ACCEPTED) from error


def _file_hint(path: Path) -> str:
    if path.suffix.lower() in SUFFIXES:
        return f"give the folder that holds the image; {ACCEPTED}"
    if path.suffix.lower() == ".py":
        return f"name the function: {path}:function"
    return ACCEPTED


def _signature(inputs: Sequence[InputSpec], preprocess: Preprocessing | None) -> Signature:
    pixels = None if preprocess is None else PixelInput.of(inputs, preprocess, alone=False)
    return Signature(tuple(inputs), pixels)


def _from_hook(
    spec: str,
    inputs: Sequence[InputSpec],
    preprocess: Preprocessing | None,
    samples: int | None,
    seed: int,
    classes: int | None,
    labelled: bool,
) -> SampleSet:
    signature = _signature(inputs, preprocess)
    source, warnings = collect(
        load_hook(spec), spec, signature, samples=samples, seed=seed, classes=classes, labelled=labelled
    )
    return SampleSet(
        source, tuple(range(len(source))), tuple(inputs), "data", f"{len(source)} samples of {spec}", tuple(warnings)
    )


def _sample_set(
    source: Source, warnings: Sequence[str], inputs: Sequence[InputSpec], samples: int | None, seed: int, spec: str
) -> SampleSet:
    if not len(source):
        raise DataError("holds no samples", where=spec, hint=ACCEPTED)
    indices = draw(len(source), samples, seed)
    description = f"{len(indices)} of {len(source)} samples of {spec}"
    return SampleSet(source, indices, tuple(inputs), "data", description, tuple(warnings))


def _folder(
    path: Path, inputs: Sequence[InputSpec], preprocess: Preprocessing | None, classes: int | None, labelled: bool
) -> tuple[Source, list[str]]:
    sets, arrays = test_data_sets(path), files_in(path, ".npz")
    if arrays and (sets or any(files_in(path, suffix) for suffix in SUFFIXES)):
        raise DataError(
            "the folder holds .npz and other data", where=str(path), hint="keep one kind of data per folder"
        )
    if sets:
        return TestDataSource(tuple(sets), _signature(inputs, preprocess)), []
    if arrays:
        return npz_folder_source(path, _signature(inputs, preprocess), classes=classes, labelled=labelled)
    pixels = PixelInput.of(inputs, preprocess, alone=True)
    source, warnings = image_source(path, pixels, classes=classes, labelled=labelled)
    if preprocess is None and pixels.dtype.kind not in "iu":
        warnings.append(
            f"images without --preprocess: taken as {pixels.preprocessing.name} ({pixels.preprocessing.describe()}); "
            "wrong preprocessing ruins ranges and accuracy"
        )
    if pixels.note:
        warnings.append(pixels.note)
    return source, warnings
