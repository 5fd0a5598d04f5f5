"""Class labels: from folder names, `classes.txt`, `labels.csv`, or arrays.

A name becomes a number by the first rule that applies: every name is an integer; `classes.txt` in the folder or its
parent (one name per line, the first line is class 0); the name's place in sorted order, which is only right when there
are as many names as classes.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from onnxqp.data.files import require_file
from onnxqp.errors import DataError
from onnxqp.specs import Array

CLASSES_FILE = "classes.txt"
LABELS_FILE = "labels.csv"
_HEADERS = {"file", "filename", "file_name", "image", "path", "name"}
_MAX_TEXT_BYTES = 1 << 28


def class_numbers(names: Iterable[str], folder: Path, classes: int | None) -> tuple[dict[str, int], list[str]]:
    """The class of each name, and warnings. `classes`: how many the model has, None if that is unknown."""
    distinct = sorted(set(names))
    if all(re.fullmatch(r"[0-9]{1,9}", name) for name in distinct):
        numbers = {name: int(name) for name in distinct}
        if len(set(numbers.values())) < len(numbers):
            raise DataError("two class names are the same number", where=str(folder), hint="for example '1' and '01'")
        check_range(numbers.values(), classes, str(folder))
        return numbers, []
    for file in (folder / CLASSES_FILE, folder.resolve().parent / CLASSES_FILE):
        if file.exists():
            return _from_classes_file(distinct, file, classes)
    if classes is not None and len(distinct) != classes:
        background = (
            f"; a model of {classes} classes with background first needs a first line for it"
            if classes == len(distinct) + 1
            else ""
        )
        raise DataError(
            f"{len(distinct)} class names and {classes} classes: which name is which class is unknown",
            where=str(folder),
            hint=f"put {CLASSES_FILE} there or beside it: one name per line in the model's order{background}",
        )
    return {name: place for place, name in enumerate(distinct)}, []


def _from_classes_file(names: Sequence[str], file: Path, classes: int | None) -> tuple[dict[str, int], list[str]]:
    lines = [line.strip() for line in _read_text(file).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    numbers: dict[str, int] = {}
    for number, line in enumerate(lines):
        if line and line in numbers:
            raise DataError(f"{line!r} stands there twice", where=str(file), hint="one class per line")
        numbers[line] = number
    unknown = [name for name in names if name not in numbers]
    if unknown:
        raise DataError(
            f"{unknown[0]!r} and {len(unknown) - 1} more are not listed"
            if len(unknown) > 1
            else f"{unknown[0]!r} is not listed",
            where=str(file),
            hint="one class name per line, as the folders or labels are called",
        )
    chosen = {name: numbers[name] for name in names}
    check_range(chosen.values(), classes, str(file))
    if classes is not None and len(lines) != classes:
        return chosen, [f"{file.name} lists {len(lines)} classes, the model has {classes}: are labels shifted?"]
    return chosen, []


def read_labels_file(file: Path, classes: int | None) -> tuple[list[tuple[Path, int]], list[str]]:
    """The images and labels that a `labels.csv` lists (`file,label`, a heading is allowed), and warnings.

    Paths are relative to its folder and may not lead out of it.
    """
    rows = _rows(file)
    if rows and rows[0][0].strip().lower() in _HEADERS:
        rows = rows[1:]
    if not rows:
        raise DataError("lists no images", where=str(file), hint="one line per image: file,label")
    pairs: list[tuple[Path, str]] = []
    seen: set[str] = set()
    for row in rows:
        name, label = row[0].strip(), row[1].strip()
        inside = PurePosixPath(name.replace("\\", "/"))
        if inside.is_absolute() or ".." in inside.parts:
            raise DataError(f"{name!r} leads out of the folder", where=str(file), hint="paths are relative to the file")
        if str(inside) in seen:
            raise DataError(f"{name!r} is listed twice", where=str(file), hint="one line per image")
        seen.add(str(inside))
        path = file.parent / inside
        if not path.is_file():
            raise DataError(f"{name!r} does not exist", where=str(file), hint="paths are relative to the file's folder")
        pairs.append((path, label))
    numbers, warnings = class_numbers((label for _, label in pairs), file.parent, classes)
    return [(path, numbers[label]) for path, label in pairs], warnings


def _rows(file: Path) -> list[list[str]]:
    try:
        rows = [row for row in csv.reader(_read_text(file).splitlines()) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"is no CSV: {error}", where=str(file), hint="one line per image: file,label") from error
    for row in rows:
        if len(row) != 2 or not row[0].strip() or not row[1].strip():
            raise DataError(
                f"a line has {len(row)} fields: {','.join(row)[:80]!r}", where=str(file), hint="each line: file,label"
            )
    return rows


def _read_text(file: Path) -> str:
    if require_file(file) > _MAX_TEXT_BYTES:
        raise DataError("is larger than 256 MB", where=str(file), hint="expected a short text file")
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"is no UTF-8 text: {error}", where=str(file), hint="save it as UTF-8") from error


# ---- labels that come as arrays ----------------------------------------------------------------------------


def labels_of(array: Array, classes: int | None, origin: str) -> list[object]:
    """One label per row: numbers as Python numbers, [n, 1] as [n], rows of several numbers as they are."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 0:
        array = array[None]
    labels = [plain_label(label) for label in array]
    if classes is not None:
        check_range(labels, classes, origin)
    return labels


def plain_label(label: object) -> object:
    """A numpy scalar as a Python number, whole floats included; everything else as it is."""
    if isinstance(label, np.ndarray) and label.size == 1:
        label = label.reshape(())[()]
    if isinstance(label, np.generic):
        label = label.item()
    return int(label) if isinstance(label, float) and label.is_integer() else label


def check_range(labels: Iterable[object], classes: int | None, origin: str) -> None:
    """Every label must be a class of the model: an integer in [0, classes)."""
    if classes is None:
        return
    for label in labels:
        if isinstance(label, bool) or not isinstance(label, int):
            raise DataError(
                f"label {label!r} is no class number", where=origin, hint=f"integers from 0 to {classes - 1}"
            )
        if not 0 <= label < classes:
            hint = f"the model has {classes} classes, numbered from 0"
            if label == classes:
                hint += "; are the labels numbered from 1?"
            raise DataError(f"label {label} is out of range 0..{classes - 1}", where=origin, hint=hint)
