"""Files that are written: where they may go, and how they come there whole or not at all.

What is to be written is drafted in a temporary folder beside its place, forced to the disk and renamed: the old file
survives anything that goes wrong.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from onnxqp.errors import OutputError, UsageError

_DRAFTS: set[Path] = set()  # the temporary folders of this process


def check(
    path: Path, *, force: bool, inputs: Sequence[str | Path | None] = (), option: str = "--output", what: str = "output"
) -> None:
    """Refuse an output that is one of the inputs (also through links), that exists, or whose folder is missing.

    `option` is what names it on the command line, for the hints, and `what` is what it is called.
    """
    other_name = f"choose another {option}"
    try:
        path.exists()
    except (OSError, ValueError) as err:  # a name too long, a null character
        reason = err.strerror if isinstance(err, OSError) else str(err)
        raise OutputError(f"is no name for a file: {reason}", where=str(path), hint=other_name) from err
    for other in (Path(item) for item in inputs if item is not None):
        if path.exists() and other.exists() and path.samefile(other):
            raise UsageError(f"the {what} is the same file as {other}", where=str(path), hint=other_name)
    if path.is_dir():
        raise OutputError(f"the {what} is a folder", where=str(path), hint=f"give a file name with {option}")
    if path.exists() and not path.is_file():
        raise OutputError(f"the {what} is no regular file", where=str(path), hint=other_name)
    if path.exists() and not force:
        raise OutputError(
            f"the {what} exists", where=str(path), hint=f"pass --force to replace it, or choose another {option}"
        )
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"the {what}'s folder does not exist", where=str(folder), hint="create it first")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"the {what}'s folder cannot be written", where=str(folder), hint=other_name)


def write(path: Path, fill: Callable[[IO[bytes]], object], *, what: str = "") -> None:
    """Write a file with `fill`, whole or not at all; an older one is replaced. Raises OutputError."""
    with failing(path, what), drafting(path) as folder:
        draft = folder / path.name
        with draft.open("wb") as file:
            fill(file)
        sync(draft)
        draft.replace(path)


@contextlib.contextmanager
def failing(path: Path, what: str = "") -> Iterator[None]:
    """What the system refuses, as an OutputError of `path`."""
    try:
        yield
    except OSError as err:
        raise OutputError(
            f"{what and f'the {what} '}cannot be written: {err.strerror or err}",
            where=str(path),
            hint="check free space and permissions; an earlier file is untouched",
        ) from err


@contextlib.contextmanager
def drafting(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`; those that a killed run left behind are removed on the way."""
    for stale in path.parent.glob(".onnxqp-*"):
        pid = stale.name.split("-")[1]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(stale, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f".onnxqp-{os.getpid()}-", dir=path.parent))
    _DRAFTS.add(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _DRAFTS.discard(folder)


def remove_drafts() -> None:
    """Take away what is half-written, in a process that ends without further notice."""
    for folder in list(_DRAFTS):
        shutil.rmtree(folder, ignore_errors=True)


def rename(draft: Path, path: Path, *, force: bool) -> None:
    """Give a finished file its name; without `force` never in place of a file that came up meanwhile."""
    if not force:
        try:
            os.link(draft, path)
            return
        except FileExistsError as err:
            raise OutputError("another run wrote the output meanwhile", where=str(path), hint="pass --force") from err
        except OSError:  # a file system without hard links
            check(path, force=False)
    draft.replace(path)


def sync(path: Path) -> None:
    """Wait until the disk has a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
