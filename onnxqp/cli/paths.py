"""Files that a run reads and writes are never the same, also through links. Checked before any work is done."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from onnxqp import outputs
from onnxqp.errors import UsageError

# Never read as data, though they may lie in a data folder: `--data . -o model.int8.onnx`.
_NO_DATA = (".onnx", ".md", ".xml", ".html")


def check(
    *,
    models: Sequence[str] = (),
    data: Sequence[str | None] = (),
    output: str | None = None,
    saved: str | None = None,
    profile: str | None = None,
    reports: Sequence[str] = (),
) -> None:
    """Refuse an output, saved statistics, a saved profile or a report that is a model, data, or another output.

    `data` are specifications as the user gave them: a path, or `file.py:function`. Raises UsageError for the same file
    twice and OutputError for a report that cannot be written where it should go.
    """
    sources = [(Path(model), "the model") for model in models]
    sources += [(path, "data") for spec in data if spec for path in _data_paths(spec)]
    written: list[tuple[Path, str]] = []
    named = [(output, "--output"), (saved, "--save-calibration"), (profile, "--save-profile")]
    named += [(report, "--report") for report in reports]
    for name, what in ((name, what) for name, what in named if name):
        path = Path(name)
        for other, role in [*sources, *written]:
            if _same(path, other) or (role == "data" and _inside(path, other)):
                raise UsageError(
                    f"{what} {path} is the same file as {role} {other}", hint=f"choose another path for {what}"
                )
        written.append((path, what))
    for report in reports:
        outputs.check(Path(report), force=True, option="--report", what="report")


def _data_paths(spec: str) -> Iterator[Path]:
    whole = Path(spec)
    if _exists(whole):
        yield whole
    file, colon, _ = spec.rpartition(":")
    if colon and file:
        yield Path(file)


def _same(path: Path, other: Path) -> bool:
    if _exists(path) and _exists(other):
        return path.samefile(other)
    try:
        return path.resolve() == other.resolve()
    except (OSError, ValueError):  # no name that a file could have: whoever opens it says so
        return False


def _inside(path: Path, folder: Path) -> bool:
    """Whether `path` is an existing file that data would be read from in `folder`, under whatever name."""
    if not _exists(path) or not folder.is_dir():
        return False
    wanted = path.stat()
    for place, _, names in os.walk(folder):
        for name in names:
            file = Path(place, name)
            if file.suffix.lower() in _NO_DATA or not _exists(file):
                continue
            found = file.stat()
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    return False


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long or with a null character is no file
        return False
