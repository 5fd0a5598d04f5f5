"""The command line over a stand-in for the public functions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from fake_api import FakeApi, Ran

from onnxqp.cli import main


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    fake = FakeApi()
    module = ModuleType("onnxqp.api")
    for name in (
        "inspect",
        "quantize",
        "prune",
        "validate",
        "bench",
        "calibrate",
        "debug",
        "sensitivity",
        "operators",
        "doctor",
    ):
        setattr(module, name, fake.function(name))
    monkeypatch.setitem(sys.modules, "onnxqp.api", module)
    monkeypatch.setattr(sys.modules["onnxqp"], "api", module, raising=False)
    return fake


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Ran:
        code = main(arguments)
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return call
