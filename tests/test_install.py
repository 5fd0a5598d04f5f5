"""What a stranger installs: the wheel and the sdist are built, and the wheel runs in an environment of its own.

That environment lies at a path with blanks and letters that are not ASCII. It takes onnxruntime and the rest from PyPI;
where that cannot be reached the tests are skipped, and say so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

LIMIT = 420  # seconds of any one step
PIP = ("-m", "pip", "--disable-pip-version-check", "--timeout", "15", "--retries", "1")
LEFT_OUT = (".git", ".venv", ".ci-venv", "demo", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", "dist")


@dataclass(frozen=True)
class Installed:
    """The program in its environment, what was built, and a folder to work in."""

    program: Path
    wheel: Path
    sdist: Path
    folder: Path

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
        """Without HOME, in the locale C, without a terminal, with nothing of the environment but PATH."""
        bare = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", **variables}
        return subprocess.run(
            [self.program, *arguments],
            cwd=self.folder,
            env=bare,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )


def step(command: list[str | Path], **options: object) -> None:
    """Run it; skips where PyPI is out of reach, fails with what was said otherwise."""
    ran = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False, **options)  # type: ignore[call-overload]
    if ran.returncode and any(words in ran.stderr + ran.stdout for words in _UNREACHABLE):
        pytest.skip("PyPI cannot be reached: the installed wheel was not tested")
    assert ran.returncode == 0, ran.stderr + ran.stdout


_UNREACHABLE = (
    "NewConnectionError",
    "ConnectTimeoutError",
    "Could not find a version",
    "ProxyError",
    "ReadTimeoutError",
)


@pytest.fixture(scope="module")
def installed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    place = tmp_path_factory.mktemp("a place with spaces, é and 模型")
    source, built, environment = place / "source", place / "dist", place / "environment"
    shutil.copytree(root, source, ignore=shutil.ignore_patterns(*LEFT_OUT))
    step([sys.executable, "-m", "venv", environment])
    python = environment / "bin" / "python"
    step([python, *PIP, "install", "--quiet", "build", "hatchling"])
    step([python, "-m", "build", "--no-isolation", "--outdir", built, source])  # the sdist, and from it the wheel
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    step([python, *PIP, "install", "--quiet", wheel])
    folder = place / "work"
    folder.mkdir()
    shutil.copy(root / "sample_models" / "mobile_cnn.onnx", folder / "my modél.onnx")
    return Installed(environment / "bin" / "onnxqp", wheel, sdist, folder)


def test_the_wheel_holds_the_package_and_nothing_else(installed: Installed, root: Path) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    tops = {name.split("/")[0].split("-")[0] for name in names}
    assert tops == {"onnxqp"}
    ours = {str(path.relative_to(root)) for path in (root / "onnxqp").rglob("*") if path.suffix in (".py", ".css")}
    assert ours <= set(names)
    assert "onnxqp/py.typed" in names


def test_the_sdist_holds_what_a_packager_needs(installed: Installed) -> None:
    with tarfile.open(installed.sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "onnxqp/__init__.py", "tests/conftest.py"} <= names
    assert not any(name.startswith((".venv", ".git/", "demo")) for name in names)


def test_it_answers_without_home_locale_or_terminal(installed: Installed) -> None:
    ran = installed.run("doctor", "--json")
    assert ran.returncode == 0, ran.stderr.decode()
    assert json.loads(ran.stdout)["versions"]["onnxqp"]
    assert b"\x1b" not in ran.stdout + ran.stderr


def test_it_prunes_and_quantizes_from_a_path_with_blanks(installed: Installed) -> None:
    """In the folder of its only model, whose name has a blank and a letter that the locale does not know."""
    for command, product in (
        (("prune", "--ratio", "0.5"), "my modél.pruned.onnx"),
        (("quantize", "--target", "x64-avx2"), "my modél.int8.onnx"),
    ):
        report = f"a report {command[0]}.html"
        ran = installed.run(*command, "--samples", "8", "--no-validate", "--report", report)
        assert ran.returncode == 0, ran.stderr.decode()
        assert (installed.folder / product).stat().st_size > 0
        assert "modél" in (installed.folder / report).read_text(encoding="utf-8")
    assert not list(installed.folder.glob(".onnxqp-*"))


def test_errors_are_two_lines_there_too(installed: Installed) -> None:
    ran = installed.run("inspect", "no such modél.onnx")
    assert ran.returncode == 3
    assert [line.split(b":")[0] for line in ran.stderr.splitlines()] == [b"error", b"hint"]
