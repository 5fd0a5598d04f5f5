"""The documentation, held against the program: commands, options, hints, and the README's own commands."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from onnxqp import errors
from onnxqp.cli.program import onnxqp as program
from onnxqp.report.records import Report

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

_REPORTING = "--json --report --config --quiet --verbose --debug --help"
_SELECTION = "--include --exclude --op-type --target"
_DATA = "--data --preprocess --samples --batch-size --seed --shape --threads"
_JUDGING = "--eval --metric --output-name --max-drop --min-agreement --min-speedup --max-size --min-size-ratio"
_WRITING = "--profile --save-profile --output --force --dry-run --no-validate --keep-failed"
OPTIONS = {
    "inspect": f"--groups --target {_REPORTING}",
    "quantize": "--method --per-tensor --calibration --save-calibration --no-bias-correction --no-equalize "
    f"{_SELECTION} {_DATA} {_JUDGING} {_WRITING} {_REPORTING}",
    "prune": "--ratio --threshold --macs-ratio --params-ratio --latency-ratio --allocation --criterion --round-to "
    "--min-channels --recover --steps --drop-layers --pattern "
    f"{_SELECTION} {_DATA} {_JUDGING} {_WRITING} {_REPORTING}",
    "compress": "--method --per-tensor --no-bias-correction --no-equalize --ratio --threshold --macs-ratio "
    "--params-ratio --latency-ratio --size-ratio --allocation --criterion --round-to --min-channels --recover --steps "
    f"--drop-layers {_SELECTION} {_DATA} {_JUDGING} {_WRITING} {_REPORTING}",
    "validate": f"{_DATA} {_JUDGING} {_REPORTING}",
    "bench": f"{_DATA} {_REPORTING}",
    "debug": f"{_DATA} {_REPORTING}",
    "sensitivity": f"{_DATA} --eval --metric --output-name {_REPORTING}",
    "calibrate": f"--output --shard --merge --force {_DATA.replace(' --threads', '')} {_REPORTING}",
    "ops": "--json --debug --help",
    "doctor": "--json --debug --help",
}


def options(command: click.Command) -> set[str]:
    params = command.get_params(click.Context(command))
    return {max(param.opts, key=len) for param in params if isinstance(param, click.Option)}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def commands_of(text: str, prompt: str = "") -> Iterator[list[str]]:
    """The command lines of a shell block: continuation lines joined, comments removed, output left out."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith(prompt) and (words := shlex.split(line.removeprefix(prompt), comments=True)):
            yield words


# ---- the help --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_a_command_has_exactly_the_options_of_its_contract(name: str) -> None:
    assert options(program.commands[name]) == set(OPTIONS[name].split())


def test_there_are_no_other_commands() -> None:
    assert set(program.commands) == set(OPTIONS)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_everything_explains_itself(name: str) -> None:
    command = program.commands[name]
    assert command.help
    assert command.short_help
    assert getattr(command, "examples", ())
    for param in command.params:
        if isinstance(param, click.Option):
            assert param.help, f"{name} {param.name} has no help"
            assert param.help.endswith("."), f"{name} {param.name}: help is a sentence"


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_examples_in_the_help_are_valid(name: str) -> None:
    for example in getattr(program.commands[name], "examples", ()):
        assert_parses(shlex.split(example))


def test_the_help_states_every_preset() -> None:
    from onnxqp.data.preprocess import PRESETS

    shown = " ".join(program.commands["quantize"].get_help(click.Context(program.commands["quantize"])).split())
    for name, preset in PRESETS.items():
        assert f"{name} {preset.describe()}" in shown


def assert_parses(words: list[str]) -> None:
    """The words are a command line whose command and options exist."""
    assert words[0] == "onnxqp"
    if words[1].startswith("-"):
        assert words[1] in ("--help", "--version")
        return
    command = program.commands[words[1]]
    known = {name for param in command.get_params(click.Context(command)) for name in param.opts}
    for word in words[2:]:
        if word.startswith("-"):
            assert word.split("=")[0] in known, f"{' '.join(words)}: no option {word}"


# ---- hints and messages in the source ----------------------------------------------------------------------------


def texts() -> Iterator[tuple[str, str]]:
    """Every string in the package that is no docstring, with its place."""
    for path in sorted((ROOT / "onnxqp").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documentation = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
            if isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value


def test_options_in_messages_exist() -> None:
    known = {"--version", *(name for command in program.commands.values() for name in options(command))}
    wrong = [
        f"{place}: {found}"
        for place, text in texts()
        for found in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text)
        if found not in known
    ]
    assert wrong == []


def test_commands_in_messages_exist() -> None:
    wrong = [
        f"{place}: onnxqp {found}"
        for place, text in texts()
        for found in re.findall(r"(?:`|run |see |with |what )onnxqp ([a-z]+)\b", text)
        if found not in program.commands
    ]
    assert wrong == []


# ---- the README ------------------------------------------------------------------------------------------------


def test_readme_lists_every_command_and_option() -> None:
    for name in program.commands:
        assert f"`onnxqp {name}" in README, f"README does not list {name}"
    for name in {option for command in OPTIONS.values() for option in command.split()} - {"--help"}:
        assert f"{name}" in README, f"README does not mention {name}"


def test_readme_lists_every_exit_code() -> None:
    table = dict(re.findall(r"^\| (\d+) \| (.+) \|$", README, flags=re.MULTILINE))
    faults = [item for item in vars(errors).values() if isinstance(item, type) and hasattr(item, "kind")]
    codes = {fault.code for fault in faults if hasattr(fault, "code")}
    assert codes | {errors.EXIT_DONE, errors.EXIT_GATE_MISSED, errors.EXIT_BUG} <= {int(code) for code in table}
    assert {str(errors.EXIT_INTERRUPTED), str(errors.EXIT_TERMINATED)} <= set(table)


def test_readme_names_every_section_of_the_report() -> None:
    missing = [field.name for field in dataclasses.fields(Report) if f"`{field.name}`" not in README]
    assert missing == []


def test_links_inside_the_repository_lead_somewhere() -> None:
    pages = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "sample_models/README.md"]
    pages += [str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")]
    for page in pages:
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target:
                assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"


def test_make_targets_in_the_documentation_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"`?make ([a-z]+)", "\n".join(_code(page))):
            assert target in targets, f"{page}: make {target}"


def _code(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [*re.findall(r"`([^`\n]+)`", text), *re.findall(r"^```\w*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)]


def test_command_lines_in_the_readme_are_valid() -> None:
    lines = [words for block in blocks("bash") for words in commands_of(block)]
    lines += [words for block in blocks("console") for words in commands_of(block, "$ ")]
    ours = [words for words in lines if words[0] == "onnxqp"]
    assert len(ours) >= 4
    for words in ours:
        assert_parses(words)


def test_the_pages_of_the_commands_are_current() -> None:
    ran = subprocess.run(
        [sys.executable, ROOT / "docs" / "build.py", "--check"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, f"{ran.stderr}(make docs writes them)"


def test_command_lines_in_the_documentation_are_valid() -> None:
    pages = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]
    found = [
        block for page in pages for block in re.findall(r"^```bash\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    ]
    lines = [words for block in found for words in commands_of(block)]
    assert len(lines) >= 6
    for words in lines:
        assert_parses(words)
    known = {name for command in program.commands.values() for name in options(command)}
    for page in pages:
        for option in re.findall(r"`(--[a-z][a-z-]+)", page):
            assert option in known, option


def test_the_budgets_of_the_guide_are_budgets(tmp_path: Path) -> None:
    from onnxqp.cli import main

    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^```toml\n(.*?)^```", guide, flags=re.DOTALL | re.MULTILINE)
    (tmp_path / "pyproject.toml").write_text(table.replace("max-drop", "max-dorp"), encoding="utf-8")
    assert main(["validate", "a.onnx", "b.onnx", "--config", str(tmp_path / "pyproject.toml")]) == 2
    (tmp_path / "pyproject.toml").write_text(table, encoding="utf-8")
    assert main(["validate", "a.onnx", "b.onnx", "--config", str(tmp_path / "pyproject.toml")]) == 3, "no such model"


@pytest.mark.slow
def test_the_readmes_commands_work(tmp_path: Path) -> None:
    """Every ```bash block, in the order of the page, in a folder that holds the sample models."""
    shutil.copytree(ROOT / "sample_models", tmp_path / "sample_models", ignore=shutil.ignore_patterns("*.py"))
    script = "\n".join(blocks("bash"))
    assert "onnxqp quantize" in script
    assert "onnxqp prune" in script
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]


@pytest.mark.slow
def test_the_readmes_python_works(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "sample_models", tmp_path / "sample_models", ignore=shutil.ignore_patterns("*.py"))
    for block in blocks("python"):
        ran = subprocess.run(
            [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
        )
        assert ran.returncode == 0, ran.stderr[-2000:]
