"""What all tests share: where the model zoo lies, and a hypothesis profile that is quiet on slow machines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

for variable in ("GITHUB_ACTIONS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):  # where the tests run is not what they test
    os.environ.pop(variable, None)

settings.register_profile("onnxqp", deadline=None, max_examples=25)
settings.load_profile("onnxqp")


def zoo_folder() -> Path:
    """The zoo: ONNXQP_ZOO, else ../shared/zoo beside the repository."""
    return Path(os.environ.get("ONNXQP_ZOO") or ROOT.parent / "shared" / "zoo")


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The folder of the zoo; a test that asks for it is skipped where there is none."""
    folder = zoo_folder()
    if not (folder / "zoo.toml").is_file():
        pytest.skip(f"no model zoo at {folder}: set ONNXQP_ZOO")
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever uses the zoo carries its mark, so that `-m "not zoo"` leaves no surprise."""
    for item in items:
        if "zoo" in getattr(item, "fixturenames", ()):
            item.add_marker("zoo")
