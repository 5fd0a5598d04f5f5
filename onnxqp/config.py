"""The configuration file: `onnxqp.toml`, or `[tool.onnxqp]` in `pyproject.toml`.

    model = "model.onnx"          # used when the command line names none
    data = "calibration"          # keys are spelled like the long options, without the dashes
    preprocess.mine = {resize = 256, crop = 224}    # `--preprocess mine`

    [quantize]                    # for one command; beats the keys above
    method = "percentile"

    [prune.layers]                # ratios of their own for layers, by globs on node names; the last that matches counts
    "*/conv1" = 0.25
    "head*" = 0

    [budgets]                     # the gates of every command that has them; beats the keys above too
    max-drop = 0.5
    min-size-ratio = 3

The command line beats the file. An unknown key is an error, so that no misspelt budget passes unnoticed. Which keys
there are, and of which kind, the caller says: the command line derives it from its own options.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias

from onnxqp.errors import UsageError

FILE = "onnxqp.toml"
PROJECT_FILE = "pyproject.toml"
PREPROCESS = "preprocess"
BUDGETS = "budgets"
LAYERS = "layers"
_LAYERED = "ratio"  # a command with this option may hold the table `layers`
CODE_KEYS = ("data", "eval", "metric")  # their values may name Python code: file.py:function

Table: TypeAlias = Mapping[str, Any]


class Kind(Enum):
    """What TOML must hold for an option; the value is how a message says it."""

    FLAG = "true or false"
    INTEGER = "a whole number"
    NUMBER = "a number"
    TEXT = "a string"
    TEXTS = "a list of strings"
    SCALAR = "a number or a string"


_TYPES: Mapping[Kind, tuple[type, ...]] = {
    Kind.FLAG: (bool,),
    Kind.INTEGER: (int,),
    Kind.NUMBER: (int, float),
    Kind.TEXT: (str,),
    Kind.SCALAR: (int, float, str),
}

Keys: TypeAlias = Mapping[str, Kind]


@dataclass(frozen=True)
class Configuration:
    """A file that was read and checked. `path` is None where there is none.

    `trusted`: the user named the file. One that was merely found in the current folder may not name Python code.
    """

    path: Path | None = None
    trusted: bool = False
    commands: Mapping[str, Table] = field(default_factory=dict)  # command -> key -> value, common keys merged in
    preprocess: Mapping[str, Table] = field(default_factory=dict)
    layers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # command -> glob -> ratio

    def values(self, command: str) -> Table:
        return self.commands.get(command, {})

    def refuse_code(self, key: str, value: object) -> None:
        """Raise UsageError when `value`, which this file gave for `key`, names code that the user never asked to run.

        Any colon counts: what a file of that very name would hold is nothing to guess about.
        """
        if self.path is None or self.trusted or key not in CODE_KEYS:
            return
        if isinstance(value, str) and ":" in value:
            raise _error(
                self.path,
                f"{key} = {value!r} names Python code, and this file was found by itself",
                f"pass --config {self.path} to run its code, or name it on the command line with --{key}",
            )


def find(folder: Path) -> Path | None:
    """The configuration of `folder`: its onnxqp.toml, else its pyproject.toml when that has a `[tool.onnxqp]`."""
    own = folder / FILE
    if own.is_file():
        return own
    project = folder / PROJECT_FILE
    if project.is_file() and "onnxqp" in _tool(_parse(project)):
        return project
    return None


def read(path: Path, commands: Mapping[str, Keys], *, trusted: bool, gates: Collection[str] = ()) -> Configuration:
    """Read and check a file against the keys of each command; `gates` are those that `[budgets]` may hold.

    Raises UsageError for a file that cannot be read, an unknown key or a value of the wrong kind.
    """
    content = _section(path)
    preprocess, content = _split_preprocess(content, path)
    budgets = _table(content, BUDGETS, path)
    for key in budgets:
        _refuse_unknown(key, gates, path, f" in [{BUDGETS}]")
    common = {key: value for key, value in content.items() if key not in commands and key != BUDGETS}
    known = {key for keys in commands.values() for key in keys}
    for key in common:
        _refuse_unknown(key, [*known, *commands, BUDGETS], path, "")
    result, layers = {}, {}
    for command, keys in commands.items():
        own = dict(_table(content, command, path))
        if _LAYERED in keys:
            layers[command] = _ratios(own.pop(LAYERS, {}), path, command)
        for key in own:
            _refuse_unknown(key, keys, path, f" in [{command}]")
        merged = {key: value for key, value in {**common, **budgets}.items() if key in keys} | dict(own)
        result[command] = {key: _checked(key, value, keys[key], path) for key, value in merged.items()}
    return Configuration(path, trusted, result, preprocess, layers)


def _section(path: Path) -> dict[str, Any]:
    content = _parse(path)
    tool = _tool(content)
    if "onnxqp" in tool:
        section = tool["onnxqp"]
    elif path.name == PROJECT_FILE:
        raise _error(path, "has no [tool.onnxqp] table", f"add one, or use a file of its own: {FILE}")
    else:
        section = content
    if not isinstance(section, dict):
        raise _error(path, "tool.onnxqp must be a table", "write [tool.onnxqp] above its keys")
    return section


def _table(content: Mapping[str, Any], name: str, path: Path) -> Table:
    table = content.get(name, {})
    if not isinstance(table, Mapping):
        raise _error(path, f"{name} must be a table", f"write [{name}] above its keys")
    return table


def _ratios(table: Any, path: Path, command: str) -> dict[str, float]:
    """The table of ratios by glob; raises UsageError for what is none."""
    name = f"{command}.{LAYERS}"
    if not isinstance(table, Mapping):
        raise _error(path, f"{name} must be a table", f'write [{name}] and below it "GLOB" = 0.25')
    for glob, ratio in table.items():
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio < 1:
            raise _error(path, f"{name}: {glob!r} must be at least 0 and below 1, found {ratio!r}", f'"{glob}" = 0.25')
    return {glob: float(ratio) for glob, ratio in table.items()}


def _tool(content: Mapping[str, Any]) -> Mapping[str, Any]:
    tool = content.get("tool", {})
    return tool if isinstance(tool, Mapping) else {}


def _parse(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as err:
        raise _error(path, f"cannot be read: {err.strerror or err}", "check the path of the configuration") from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise _error(path, f"is not valid TOML: {err}", "strings need quotes, tables need [brackets]") from err


def _split_preprocess(content: dict[str, Any], path: Path) -> tuple[dict[str, Table], dict[str, Any]]:
    """The tables `[preprocess.NAME]`, and the rest; `preprocess = "…"` is the option and stays in the rest."""
    tables = content.get(PREPROCESS)
    if not isinstance(tables, dict):
        return {}, content
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise _error(
                path,
                f"preprocess.{name} must be a table",
                f"write [preprocess.NAME] and below it {name} = …; then choose it with --preprocess NAME",
            )
    return tables, {key: value for key, value in content.items() if key != PREPROCESS}


def _refuse_unknown(key: str, known: Iterable[str], path: Path, place: str) -> None:
    names = sorted(set(known))
    if key in names:
        return
    near = get_close_matches(key.replace("_", "-"), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "keys are the long options without their dashes: see --help"
    raise _error(path, f"unknown key {key!r}{place}", hint)


def _checked(key: str, value: Any, kind: Kind, path: Path) -> Any:
    if kind is Kind.TEXTS:
        texts = [value] if isinstance(value, str) else value
        if isinstance(texts, list) and all(isinstance(item, str) for item in texts):
            return texts
    elif isinstance(value, _TYPES[kind]) and (kind is Kind.FLAG or not isinstance(value, bool)):
        return value
    shown = f"{type(value).__name__} {value!r}"
    raise _error(path, f"{key} must be {kind.value}, found {shown[:80]}", f"write {key} = {_example(kind)}")


def _example(kind: Kind) -> str:
    examples = {
        Kind.FLAG: "true",
        Kind.INTEGER: "8",
        Kind.NUMBER: "0.5",
        Kind.TEXT: '"…"',
        Kind.TEXTS: '["…"]',
        Kind.SCALAR: '8 or "…"',
    }
    return examples[kind]


def _error(path: Path, message: str, hint: str) -> UsageError:
    return UsageError(message, where=str(path), hint=hint)
