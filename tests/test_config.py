"""The configuration file: found, read, checked; what it may not do."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxqp.config import Configuration, Keys, Kind, find, read
from onnxqp.errors import UsageError

QUANTIZE: Keys = {
    "model": Kind.TEXT,
    "data": Kind.TEXT,
    "metric": Kind.TEXT,
    "method": Kind.TEXT,
    "samples": Kind.INTEGER,
    "max-drop": Kind.NUMBER,
    "max-size": Kind.SCALAR,
    "include": Kind.TEXTS,
    "per-tensor": Kind.FLAG,
}
BENCH: Keys = {"model": Kind.TEXT, "data": Kind.TEXT, "samples": Kind.INTEGER}
COMMANDS = {"quantize": QUANTIZE, "bench": BENCH, "prune": {"ratio": Kind.NUMBER}}


def written(folder: Path, text: str, name: str = "onnxqp.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str, *, name: str = "onnxqp.toml", trusted: bool = True) -> Configuration:
    return read(written(folder, text, name), COMMANDS, trusted=trusted)


def refused(folder: Path, text: str, **options: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(folder, text, **options)
    assert caught.value.where is not None
    assert caught.value.hint
    return caught.value


def test_common_keys_reach_the_commands_that_have_them(tmp_path: Path) -> None:
    found = load(tmp_path, 'samples = 8\nmethod = "mse"\n[bench]\nsamples = 9\n')
    assert found.values("quantize") == {"samples": 8, "method": "mse"}
    assert found.values("bench") == {"samples": 9}
    assert found.values("doctor") == {}


def test_a_project_file_holds_a_section(tmp_path: Path) -> None:
    text = "[project]\nname = 'x'\n[tool.onnxqp]\nsamples = 8\n[tool.onnxqp.quantize]\nmethod = 'mse'\n"
    assert load(tmp_path, text, name="pyproject.toml").values("quantize") == {"samples": 8, "method": "mse"}


def test_every_kind_of_value(tmp_path: Path) -> None:
    text = 'max-drop = 1\nmax-size = "12MB"\ninclude = "conv*"\nper-tensor = true\n'
    assert load(tmp_path, text).values("quantize") == {
        "max-drop": 1,
        "max-size": "12MB",
        "include": ["conv*"],
        "per-tensor": True,
    }


def test_finding_prefers_the_own_file_and_ignores_strangers(tmp_path: Path) -> None:
    assert find(tmp_path) is None
    written(tmp_path, "[tool.ruff]\n", "pyproject.toml")
    assert find(tmp_path) is None
    project = written(tmp_path, "[tool.onnxqp]\n", "pyproject.toml")
    assert find(tmp_path) == project
    own = written(tmp_path, "")
    assert find(tmp_path) == own


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("max_drop = 1", "unknown key 'max_drop'", "did you mean 'max-drop'?"),
        ("sample = 1", "unknown key 'sample'", "did you mean 'samples'?"),
        ("zzz = 1", "unknown key 'zzz'", "--help"),
        ("[quantise]\n", "unknown key 'quantise'", "did you mean 'quantize'?"),
        ("[quantize]\nmetod = 'mse'", "unknown key 'metod' in [quantize]", "did you mean 'method'?"),
        ("[bench]\nmethod = 'mse'", "unknown key 'method' in [bench]", "--help"),
        ("samples = '8'", "samples must be a whole number, found str '8'", "write samples = 8"),
        ("samples = true", "samples must be a whole number, found bool True", "write samples = 8"),
        ("max-drop = 'x'", "max-drop must be a number", "write max-drop = 0.5"),
        ("max-size = true", "max-size must be a number or a string", "write max-size"),
        ("include = [1]", "include must be a list of strings", "write include"),
        ("per-tensor = 1", "per-tensor must be true or false", "write per-tensor = true"),
        ("quantize = 1", "quantize must be a table", "[quantize]"),
        ("samples = ", "is not valid TOML", "quotes"),
        ("[preprocess]\nresize = 3", "preprocess.resize must be a table", "[preprocess.NAME]"),
    ],
)
def test_mistakes_are_named_with_the_file_and_the_remedy(tmp_path: Path, text: str, message: str, hint: str) -> None:
    error = refused(tmp_path, text)
    assert message in error.message
    assert hint in (error.hint or "")
    assert error.where == str(tmp_path / "onnxqp.toml")


def test_a_project_file_without_a_section_is_a_mistake_when_named(tmp_path: Path) -> None:
    assert "no [tool.onnxqp]" in refused(tmp_path, "[project]\n", name="pyproject.toml").message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "missing.toml", tmp_path, tmp_path / "binary.toml"):
        with pytest.raises(UsageError):
            read(path, COMMANDS, trusted=True)


def test_preprocessing_tables_have_names(tmp_path: Path) -> None:
    found = load(tmp_path, "[preprocess.mine]\nresize = 64\n")
    assert found.preprocess == {"mine": {"resize": 64}}
    assert found.values("quantize") == {}


@pytest.mark.parametrize("key", ["data", "eval", "metric"])
@pytest.mark.parametrize("value", ["feeds.py:calibration", "package.module:function"])
def test_a_found_file_may_not_name_code(tmp_path: Path, key: str, value: str) -> None:
    found = read(written(tmp_path, ""), COMMANDS, trusted=False)
    with pytest.raises(UsageError) as caught:
        found.refuse_code(key, value)
    assert f"--config {tmp_path / 'onnxqp.toml'}" in (caught.value.hint or "")
    read(written(tmp_path, ""), COMMANDS, trusted=True).refuse_code(key, value)
    found.refuse_code(key, "images")
    found.refuse_code("model", value)
    Configuration().refuse_code(key, value)


def test_ratios_of_layers(tmp_path: Path) -> None:
    found = load(tmp_path, '[prune]\nratio = 0.5\n[prune.layers]\n"*/conv1" = 0.25\nstem = 0\n')
    assert found.layers == {"prune": {"*/conv1": 0.25, "stem": 0.0}}
    assert found.values("prune") == {"ratio": 0.5}
    for wrong in ("[prune.layers]\nstem = 1.5\n", '[prune.layers]\nstem = "half"\n', "[prune]\nlayers = 3\n"):
        assert "prune.layers" in refused(tmp_path, wrong).message
    assert "unknown key 'layers'" in refused(tmp_path, "[quantize.layers]\nstem = 0.5\n").message
