from __future__ import annotations

from pathlib import Path

import pytest
from place import Place


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Place:
    """An empty folder with older results, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, capsys)
