"""`.npy` and `.npz` files, and folders of `.npz`.

Which axis counts the samples. For an input of declared shape S, its array A is read as

- *rows*: as many axes as S, and S[0] is 1 or open: sample i is A[i:i+1], with a leading axis of 1;
- *stack*: one axis more than S, A[i] fits S: sample i is A[i] (a fixed batch of several, states of several layers);
- *pixels*: `uint8` pictures for a floating-point image input, with a preprocessing: picture i is A[i] (one picture
  alone, [H, W, C] or [C, H, W], is a whole array);
- *whole*: A fits S as it stands (a scalar, a rate, an initial state) or with a leading axis of 1 added: the same for
  every sample.

Rows, stacks and pictures must agree in their number, which is the number of samples; where there is none of them, the
file is one sample. An array of one row, beside others with more, is the same for every sample too.
"""

from __future__ import annotations

import zipfile
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Literal, TypeAlias

from onnxqp.data.check import Signature, check_names, conform, fits, shape_hint, show_shape
from onnxqp.data.files import files_in, require_file
from onnxqp.data.labels import labels_of
from onnxqp.data.npy_format import Header, MappedRows, PackedRows, Rows, damage, read_header
from onnxqp.errors import DataError
from onnxqp.specs import Array, Feed, InputSpec

Reading: TypeAlias = Literal["rows", "stack", "pixels", "whole"]

LABEL_KEYS = ("labels", "label")
_MAX_UNPACKED = 1 << 36  # 64 GiB in one archive
_SUSPECT_UNPACKED, _SUSPECT_RATIO = 1 << 28, 300  # 256 MiB; data worth calibrating on packs less well than this


@dataclass(frozen=True)
class Column:
    """How the array for one input is read. `member`: its name in the archive, None for a `.npy` file."""

    spec: InputSpec
    member: str | None
    header: Header
    reading: Reading

    @property
    def count(self) -> int | None:
        """How many samples it holds; None if it is the same for all."""
        return None if self.reading == "whole" else self.header.shape[0]


@dataclass(frozen=True)
class ArrayFile:
    """One `.npy` or `.npz` file: which array feeds which input, and how many samples that makes."""

    path: Path
    columns: tuple[Column, ...]
    count: int
    labels: tuple[object, ...] | None
    signature: Signature

    def read(self, indices: Sequence[int]) -> Iterator[tuple[Feed, str]]:
        """Feed and origin of these samples; indices ascend."""
        with ExitStack() as stack:
            rows = {column.spec.name: rows for column, rows in zip(self.columns, self._open(stack), strict=True)}
            whole = {c.spec.name: self._whole(c, rows[c.spec.name]) for c in self.columns if c.reading == "whole"}
            for index in indices:
                origin = f"{self.path}[{index}]"
                feed: Feed = {}
                for column in self.columns:
                    name = column.spec.name
                    same = column.reading == "whole"
                    feed[name] = whole[name] if same else self._sample(column, rows[name].row(index), origin)
                yield feed, origin

    def _open(self, stack: ExitStack) -> Iterator[Rows]:
        archive: zipfile.ZipFile | None = None
        for column in self.columns:
            where = f"{self.path}[{column.spec.name}]"
            with damage(where):
                rows: Rows
                if column.member is None:
                    rows = MappedRows(self.path, column.header)
                else:
                    archive = archive or stack.enter_context(zipfile.ZipFile(self.path))
                    stream = stack.enter_context(archive.open(column.member))
                    rows = PackedRows(stream, column.header, where)
            yield rows

    def _whole(self, column: Column, rows: Rows) -> Array:
        array, declared = rows.whole(), column.spec.shape
        if self.signature.pixels is not None and self.signature.takes_pixels(column.spec.name, array.dtype):
            array = self.signature.pixels.from_array(array, str(self.path))
        elif declared is not None and array.ndim == len(declared) - 1:
            array = array[None]
        return conform(array, column.spec, str(self.path))

    def _sample(self, column: Column, row: Array, origin: str) -> Array:
        if column.reading == "pixels" and self.signature.pixels is not None:
            row = self.signature.pixels.from_array(row, origin)
        elif column.reading == "rows":
            row = row[None]
        return conform(row, column.spec, origin)


@dataclass(frozen=True)
class ArraySource:
    """The samples of one or more array files, one after the other."""

    parts: tuple[ArrayFile, ...]
    labels: tuple[object, ...] | None
    files: None = None

    def __len__(self) -> int:
        return sum(part.count for part in self.parts)

    def read(self, indices: Sequence[int]) -> Iterator[tuple[Feed, str]]:
        ends = list(accumulate(part.count for part in self.parts))
        at = 0
        while at < len(indices):
            number = bisect_right(ends, indices[at])
            start = ends[number] - self.parts[number].count
            stop = at
            while stop < len(indices) and indices[stop] < ends[number]:
                stop += 1
            yield from self.parts[number].read([index - start for index in indices[at:stop]])
            at = stop


# ---- opening -----------------------------------------------------------------------------------------------


def npy_source(path: Path, signature: Signature) -> tuple[ArraySource, list[str]]:
    """A `.npy` file for a model of one input, and warnings."""
    if len(signature.inputs) != 1:
        names = ", ".join(repr(spec.name) for spec in signature.inputs)
        raise DataError(
            f"one array for a model of {len(signature.inputs)} inputs: {names}",
            where=str(path),
            hint="write a .npz with one array per input, by name",
        )
    size = require_file(path)
    with damage(str(path)), path.open("rb") as stream:
        header = read_header(stream, size, str(path))
    spec = signature.inputs[0]
    column = _column(spec, None, header, signature, str(path))
    return _joined([_array_file(path, [column], None, signature)]), _unused_preprocessing([column], signature)


def npz_source(
    path: Path, signature: Signature, *, classes: int | None, labelled: bool
) -> tuple[ArraySource, list[str]]:
    """A `.npz` file whose keys are input names, and warnings."""
    file, warnings = _npz_file(path, signature, classes, labelled)
    return _joined([file]), warnings


def npz_folder_source(
    folder: Path, signature: Signature, *, classes: int | None, labelled: bool
) -> tuple[ArraySource, list[str]]:
    """All `.npz` files of a folder in the order of their names, and warnings (each told once)."""
    opened = [_npz_file(path, signature, classes, labelled) for path in files_in(folder, ".npz")]
    warnings = list(dict.fromkeys(warning for _, found in opened for warning in found))
    parts = [part for part, _ in opened]
    without = [part.path for part in parts if part.labels is None]
    if 0 < len(without) < len(parts):
        raise DataError(
            "has no labels, other files of the folder have", where=str(without[0]), hint="label all or none"
        )
    return _joined(parts), warnings


def _joined(parts: Sequence[ArrayFile]) -> ArraySource:
    labels = [label for part in parts for label in part.labels or ()]
    return ArraySource(tuple(parts), tuple(labels) if labels else None)


def _npz_file(path: Path, signature: Signature, classes: int | None, labelled: bool) -> tuple[ArrayFile, list[str]]:
    where = str(path)
    size = require_file(path)
    with damage(where), zipfile.ZipFile(path) as archive:
        infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist() if not info.is_dir()}
        _check_bomb([info.file_size for info in infos.values()], size, where)
        label_key = _label_key(infos, signature)
        extra = check_names([key for key in infos if key != label_key], signature.inputs, where, strict=False)
        columns = []
        for spec in signature.inputs:
            info = infos[spec.name]
            with archive.open(info) as stream:
                header = read_header(stream, info.file_size, f"{path}[{spec.name}]")
            columns.append(_column(spec, info.filename, header, signature, f"{path}[{spec.name}]"))
        labels = None
        if labelled and label_key is not None:
            labels = _labels(archive, infos[label_key], classes, f"{path}[{label_key}]")
    warnings = _unused_preprocessing(columns, signature)
    if extra:
        warnings.append(f"{path.name}: {', '.join(map(repr, extra))} ignored, the model has no such input")
    return _array_file(path, columns, labels, signature), warnings


def _label_key(infos: Mapping[str, zipfile.ZipInfo], signature: Signature) -> str | None:
    inputs = {spec.name for spec in signature.inputs}
    return next((key for key in LABEL_KEYS if key in infos and key not in inputs), None)


def _check_bomb(sizes: Sequence[int], packed: int, where: str) -> None:
    total = sum(sizes)
    if total > _MAX_UNPACKED or (total > _SUSPECT_UNPACKED and total > _SUSPECT_RATIO * packed):
        raise DataError(
            f"unpacks from {packed} to {total} bytes, which is refused",
            where=where,
            hint="save it without compression (numpy.savez), or split it into a folder of .npz",
        )


def _labels(archive: zipfile.ZipFile, info: zipfile.ZipInfo, classes: int | None, where: str) -> list[object]:
    with archive.open(info) as stream:
        header = read_header(stream, info.file_size, where)
    with archive.open(info) as stream:
        return labels_of(PackedRows(stream, header, where).whole(), classes, where)


def _column(spec: InputSpec, member: str | None, header: Header, signature: Signature, where: str) -> Column:
    """Chooses how an array is read; DataError with what was found and expected if no way fits."""
    shape, declared = header.shape, spec.shape
    if signature.pixels is not None and signature.takes_pixels(spec.name, header.dtype):
        if not 2 <= len(shape) <= 4:
            raise DataError(
                f"input {spec.name!r}: found uint8 {show_shape(shape)}, expected pictures",
                where=where,
                hint="[n, C, H, W], [n, H, W, C] or [n, H, W]",
            )
        alone = len(shape) == 2 or (len(shape) == 3 and (signature.pixels.layout.channels == 3 or shape[2] == 1))
        return Column(spec, member, header, "whole" if alone else "pixels")
    reading = _reading(shape, declared)
    if reading is None:
        raise DataError(
            f"input {spec.name!r}: found shape {show_shape(shape)}, expected {show_shape(declared)}",
            where=where,
            hint=shape_hint(shape, declared),
        )
    return Column(spec, member, header, reading)


def _reading(shape: tuple[int, ...], declared: tuple[int | str | None, ...] | None) -> Reading | None:
    if declared is None:
        return "rows" if shape else "whole"
    per_sample = not isinstance(declared[0], int) or declared[0] == 1 if declared else False
    if per_sample and len(shape) == len(declared) and fits(shape[1:], declared[1:]):
        return "rows"
    if fits(shape, declared) or (not declared and shape == (1,)):
        return "whole"
    if shape and fits(shape[1:], declared):
        return "stack"
    return "whole" if per_sample and fits(shape, declared[1:]) else None


def _array_file(path: Path, columns: Sequence[Column], labels: list[object] | None, signature: Signature) -> ArrayFile:
    """Settles the number of samples and checks that all arrays and the labels agree on it."""
    most = max((column.count for column in columns if column.count is not None), default=1)
    settled = [
        replace(column, reading="whole") if column.reading == "rows" and column.count == 1 and most > 1 else column
        for column in columns
    ]
    counts = {column.spec.name: column.count for column in settled if column.count is not None}
    if len(set(counts.values())) > 1:
        raise DataError(
            "arrays of different lengths: " + ", ".join(f"{name!r} {count}" for name, count in counts.items()),
            where=str(path),
            hint="the leading axis counts the samples, and must be the same for all",
        )
    count = next(iter(counts.values()), 1)
    if count == 0:
        raise DataError("holds no samples", where=str(path), hint="the leading axis has length 0")
    if labels is not None and len(labels) != count:
        raise DataError(f"{len(labels)} labels for {count} samples", where=str(path), hint="one label per sample")
    return ArrayFile(path, tuple(settled), count, None if labels is None else tuple(labels), signature)


def _unused_preprocessing(columns: Sequence[Column], signature: Signature) -> list[str]:
    if signature.pixels is None or any(signature.takes_pixels(c.spec.name, c.header.dtype) for c in columns):
        return []
    return [
        f"--preprocess is not applied to {signature.pixels.name!r}: its array is not uint8, so it counts as prepared"
    ]
