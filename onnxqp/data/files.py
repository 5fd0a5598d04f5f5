"""Files of a data source: regular ones only, in a fixed order, whatever links, pipes or loops lie around them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from onnxqp.errors import DataError

ACCEPTED = (
    "accepted: a folder of images, .npz, .npy, a folder of .npz, a folder with test_data_set_*, "
    "file.py:function or module:function"
)


def require_file(path: Path) -> int:
    """Size in bytes of a regular file; DataError for anything else (opening a pipe would wait for ever)."""
    try:
        status = path.stat()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        told = "does not exist" if missing else f"cannot be read: {error.strerror}"
        raise DataError(told, where=str(path), hint=ACCEPTED if missing else "check the path") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError("is not a regular file", where=str(path), hint="give a file on disk, no pipe or device")
    return status.st_size


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, sorted by name, hidden entries left out."""
    try:
        with os.scandir(folder) as found:
            return sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"cannot be listed: {error.strerror}", where=str(folder), hint="check its permissions"
        ) from error


def files_below(folder: Path, suffixes: frozenset[str]) -> tuple[list[Path], int]:
    """Regular files with one of these suffixes in a folder and all folders below it, sorted by path.

    Also the number of entries with such a suffix that are no regular files (dangling links, pipes). A folder that was
    already entered is not entered again, so a loop of links ends.
    """
    found: list[Path] = []
    odd = 0
    for entry in _walk(folder):
        if Path(entry.name).suffix.lower() not in suffixes:
            continue
        if _is_file(entry):
            found.append(Path(entry.path))
        else:
            odd += 1
    return sorted(found, key=lambda path: path.parts), odd


def _walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Every entry below a folder that is no folder itself."""
    status = folder.stat()
    seen = {(status.st_dev, status.st_ino)}
    pending = [folder]
    while pending:
        for entry in entries(pending.pop()):
            if not _is_dir(entry):
                yield entry
                continue
            status = entry.stat()
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                pending.append(Path(entry.path))


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def subfolders(folder: Path) -> list[Path]:
    """Folders directly inside this one, sorted by name."""
    return [Path(entry.path) for entry in entries(folder) if _is_dir(entry)]


def files_in(folder: Path, suffix: str) -> list[Path]:
    """Regular files with this suffix directly inside a folder, sorted by name."""
    return [Path(e.path) for e in entries(folder) if _is_file(e) and e.name.lower().endswith(suffix)]
