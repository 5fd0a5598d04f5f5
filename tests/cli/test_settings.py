"""The configuration file and the model that is meant when none is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_api import FakeApi, Ran

from onnxqp.options import Gates

Run = Callable[..., Ran]


def test_the_command_line_beats_the_file_and_the_file_beats_defaults(run: Run, api: FakeApi) -> None:
    Path("onnxqp.toml").write_text(
        'samples = 7\nmax-drop = 0.5\nmax-size = "2MB"\ninclude = ["a", "b"]\nno-validate = true\nshape = "x:1,2"\n'
        '[quantize]\nmethod = "mse"\nper-tensor = true\n[prune]\nratio = 0.25\nround-to = 2\n'
    )
    run("quantize", "m.onnx", "--samples", "9")
    run("prune", "m.onnx")
    (_, _, quantize), (_, _, prune) = api.calls
    assert quantize["data"].samples == 9
    assert quantize["data"].shapes == {"x": (1, 2)}
    assert quantize["gates"] == Gates(max_drop=0.5, max_size=2_000_000)
    assert quantize["options"].method == "mse"
    assert quantize["options"].per_tensor
    assert quantize["options"].selection.include == ("a", "b")
    assert not quantize["measure"].validate
    assert prune["data"].samples == 7
    assert prune["options"].ratio == 0.25
    assert prune["options"].round_to == 2


def test_a_named_file_is_used_instead_of_the_found_one(run: Run, api: FakeApi) -> None:
    Path("onnxqp.toml").write_text("samples = 7")
    Path("ci.toml").write_text("samples = 8")
    run("quantize", "m.onnx", "--config", "ci.toml")
    assert api.options["data"].samples == 8


def test_a_project_file_works_too(run: Run, api: FakeApi) -> None:
    Path("pyproject.toml").write_text("[tool.onnxqp.bench]\nthreads = 2\n")
    run("bench", "m.onnx")
    assert api.options["measure"].threads == 2


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("max_drop = 1", "onnxqp.toml: unknown key 'max_drop'", "did you mean 'max-drop'?"),
        ("[quantize]\nmethod = 'mimax'", "onnxqp.toml: method: 'mimax' is not one of", "did you mean minmax?"),
        ("samples = 0", "onnxqp.toml: samples: 0 is not in the range", "quantize --help"),
        ("speedup = 2", "onnxqp.toml: unknown key 'speedup'", "did you mean"),
        ("json = 1", "onnxqp.toml: json must be true or false", "json = true"),
    ],
)
def test_mistakes_in_the_file_name_it(run: Run, api: FakeApi, text: str, message: str, hint: str) -> None:
    Path("onnxqp.toml").write_text(text)
    ran = run("quantize", "m.onnx")
    assert ran.code == 2
    assert message in ran.error[0]
    assert hint in ran.error[1]
    assert not api.calls


@pytest.mark.parametrize("key", ["data", "eval", "metric"])
def test_code_runs_only_from_a_named_file(run: Run, api: FakeApi, key: str) -> None:
    Path("onnxqp.toml").write_text(f'{key} = "hook.py:function"')
    ran = run("quantize", "m.onnx")
    assert ran.code == 2
    assert "names Python code" in ran.error[0]
    assert "--config onnxqp.toml" in ran.error[1]
    assert not api.calls
    assert run("inspect", "m.onnx").code == 0  # uses no data
    assert run("quantize", "m.onnx", "--config", "onnxqp.toml").code == 0
    named = "top5" if key == "metric" else "other.npz"
    assert run("quantize", "m.onnx", f"--{key}", named).code == 0
    assert run("quantize", "m.onnx", f"--{key}", "hook.py:function").code == 0


def test_a_preprocessing_table_is_chosen_by_name(run: Run, api: FakeApi) -> None:
    Path("onnxqp.toml").write_text("[preprocess.mine]\nresize = 64\n")
    run("quantize", "m.onnx", "--preprocess", "mine")
    run("quantize", "m.onnx", "--preprocess", "vit")
    assert [call[2]["data"].preprocess for call in api.calls] == [{"resize": 64}, "vit"]


def test_json_may_be_configured(run: Run, api: FakeApi) -> None:
    Path("onnxqp.toml").write_text("json = true")
    assert run("quantize", "m.onnx").out.startswith("{")


def test_help_does_not_need_a_sound_configuration(run: Run) -> None:
    Path("onnxqp.toml").write_text("nonsense")
    assert run("quantize", "--help").code == 0


# ---- MODEL left out ------------------------------------------------------------------------------------------


def test_the_only_model_is_meant_again_and_again(run: Run, api: FakeApi) -> None:
    for name in ("net.onnx", "net.int8.onnx", "net.pruned.onnx", "net.compressed.onnx"):
        Path(name).touch()
    for command in (["inspect"], ["quantize"], ["prune", "--ratio", "0.5"]):
        assert run(*command).code == 0
    assert run("bench").code == 0
    assert [call[1][0] for call in api.calls] == ["net.onnx", "net.onnx", "net.onnx", ["net.onnx"]]


def test_a_configured_model_is_meant_first(run: Run, api: FakeApi) -> None:
    Path("net.onnx").touch()
    Path("onnxqp.toml").write_text('model = "models/a.onnx"\n[prune]\nmodel = "models/b.onnx"\n')
    run("quantize")
    run("prune", "--ratio", "0.5")
    run("quantize", "c.onnx")
    assert [call[1][0] for call in api.calls] == ["models/a.onnx", "models/b.onnx", "c.onnx"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "the current folder holds no .onnx file"),
        (["a.int8.onnx"], "only results of onnxqp: a.int8.onnx"),
        (["b.onnx", "a.onnx", "a.int8.onnx"], "the current folder holds 2: a.onnx, b.onnx"),
        ([f"{i}.onnx" for i in range(10)], "6.onnx, 7.onnx and 2 more"),
    ],
)
def test_otherwise_the_choice_is_the_users(run: Run, api: FakeApi, names: list[str], message: str) -> None:
    for name in names:
        Path(name).touch()
    ran = run("quantize")
    assert ran.code == 2
    assert message in ran.error[0]
    assert not api.calls
