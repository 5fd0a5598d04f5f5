"""Budgets in a file: gates for every command that has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_api import FakeApi, Ran

from onnxqp.options import Gates

Run = Callable[..., Ran]
BUDGETS = 'max-drop = 0.5\nmin-size-ratio = 3\nmax-size = "2MB"\n'


@pytest.mark.parametrize(
    ("name", "text"),
    [("onnxqp.toml", f"[budgets]\n{BUDGETS}"), ("pyproject.toml", f"[tool.onnxqp.budgets]\n{BUDGETS}")],
)
def test_every_command_with_gates_keeps_them(run: Run, api: FakeApi, name: str, text: str) -> None:
    Path(name).write_text(text)
    for command in (["quantize", "m.onnx"], ["prune", "m.onnx", "--ratio", "0.5"], ["validate", "m.onnx", "n.onnx"]):
        assert run(*command).code == 0
    for _, _, options in api.calls:
        assert options["gates"] == Gates(max_drop=0.5, max_size=2_000_000, min_size_ratio=3.0)


def test_commands_without_gates_do_not_mind_them(run: Run, api: FakeApi) -> None:
    Path("onnxqp.toml").write_text(f"[budgets]\n{BUDGETS}")
    assert run("bench", "m.onnx").code == 0
    assert run("inspect", "m.onnx").code == 0


def test_nearer_words_beat_them(run: Run, api: FakeApi) -> None:
    """Common keys, then budgets, then the command's own table, then the command line."""
    Path("onnxqp.toml").write_text(
        "max-drop = 9\nmin-speedup = 1.1\n[budgets]\nmax-drop = 0.5\nmin-agreement = 99\n"
        "[quantize]\nmin-agreement = 98\n"
    )
    run("quantize", "m.onnx", "--min-speedup", "1.5")
    assert api.options["gates"] == Gates(max_drop=0.5, min_agreement=98.0, min_speedup=1.5)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[budgets]\nmax-dorp = 1", "onnxqp.toml: unknown key 'max-dorp' in [budgets]", "did you mean 'max-drop'?"),
        ("[budgets]\nsamples = 1", "onnxqp.toml: unknown key 'samples' in [budgets]", ""),
        ("budgets = 1", "onnxqp.toml: budgets must be a table", "[budgets]"),
        ("[budget]\nmax-drop = 1", "onnxqp.toml: unknown key 'budget'", "did you mean 'budgets'?"),
        ('[budgets]\nmax-drop = "much"', "onnxqp.toml: max-drop must be a number", "max-drop = 0.5"),
        ("[budgets]\nmin-agreement = 101", "onnxqp.toml: min-agreement: 101 is out of range", ""),
    ],
)
def test_a_misspelt_budget_never_passes_unnoticed(run: Run, api: FakeApi, text: str, message: str, hint: str) -> None:
    Path("onnxqp.toml").write_text(text)
    ran = run("quantize", "m.onnx")
    assert ran.code == 2
    assert ran.error[0].startswith(message)
    assert hint in ran.error[1]
    assert not api.calls
