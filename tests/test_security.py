"""What SECURITY.md promises, held against the source: no code from data, no network, nothing unpacked onto the disk."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import onnxqp

PACKAGE = Path(onnxqp.__file__).parent
TREES = {path.relative_to(PACKAGE): ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
POLICY = (PACKAGE.parent / "SECURITY.md").read_text(encoding="utf-8")

# Modules that run code from data, reach a network, or unpack archives onto the disk.
DANGEROUS = {
    *("pickle", "cPickle", "dill", "shelve", "marshal", "joblib", "cloudpickle", "yaml"),
    *("socket", "urllib", "http", "ftplib", "requests", "httpx", "aiohttp", "smtplib", "webbrowser"),
    *("tarfile",),
}
# Hooks are the user's own code, asked for by name; their loader is the one place that imports it.
RUNS_CODE = {"eval", "exec", "compile", "__import__"}


def imported() -> Iterator[tuple[Path, str]]:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name.split(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield path, node.module.split(".")[0]


def calls() -> Iterator[tuple[Path, ast.Call, str]]:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                function = node.func
                name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
                yield path, node, name


def test_no_module_that_runs_data_or_reaches_a_network_is_imported() -> None:
    assert [(str(path), name) for path, name in imported() if name in DANGEROUS] == []


def test_nothing_is_evaluated() -> None:
    found = [(str(path), name) for path, call, name in calls() if name in RUNS_CODE and isinstance(call.func, ast.Name)]
    assert {path for path, _ in found} == {"data/hooks.py"}, "the loader of hooks, which are asked for by name"


def test_only_hooks_are_imported_by_name() -> None:
    where = {
        str(path) for path, _, name in calls() if name in ("import_module", "spec_from_file_location", "exec_module")
    }
    # deferred.py executes modules that it names itself, later than they were imported
    assert where <= {"data/hooks.py", "data/__init__.py", "__init__.py", "api/__init__.py", "cli/deferred.py"}


def test_arrays_are_loaded_without_pickle() -> None:
    for path, call, name in calls():
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        if name == "load" and isinstance(owner, ast.Name) and owner.id == "np":
            allowed = {word.arg: word.value for word in call.keywords}.get("allow_pickle")
            assert isinstance(allowed, ast.Constant), path
            assert allowed.value is False, path


def test_no_shell_and_no_extraction() -> None:
    for path, call, name in calls():
        assert name not in ("system", "popen", "extractall"), path
        shell = {word.arg: word.value for word in call.keywords}.get("shell")
        assert shell is None, path


@pytest.mark.parametrize(
    "words",
    ["pickle", "network", "64 megapixels", "external data", "file.py:function", "--config", "child process", "Report"],
)
def test_the_policy_names_what_is_promised(words: str) -> None:
    assert words in POLICY
