"""Files that come into being whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from onnxqp import outputs
from onnxqp.errors import OutputError


def test_what_fails_halfway_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")

    def fill(file: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="the report cannot be written: No space"):
        outputs.write(path, fill, what="report")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.bin"]


def test_a_written_file_is_as_any_other(tmp_path: Path) -> None:
    """A draft is private; what it becomes has the permissions that the process gives its files."""
    path = tmp_path / "x.bin"
    outputs.write(path, lambda file: file.write(b"new"))
    other = tmp_path / "y.bin"
    other.write_bytes(b"")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode == other.stat().st_mode


def test_drafts_of_a_dead_process_go_and_those_of_a_living_one_stay(tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead, mine = tmp_path / f".onnxqp-{int(gone.stdout)}-abc", tmp_path / f".onnxqp-{os.getpid()}-abc"
    for folder in (dead, mine):
        folder.mkdir()
        (folder / "draft").write_bytes(b"half")
    outputs.write(tmp_path / "x.bin", lambda file: file.write(b"new"))
    assert not dead.exists()
    assert mine.exists()


@pytest.mark.parametrize("force", [True, False])
def test_a_device_or_pipe_is_never_replaced(tmp_path: Path, force: bool) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match="no regular file"):
        outputs.check(pipe, force=force)
