"""The command line over the real functions, on a model of a few kilobytes: what users do, and what they do wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from fake_api import Ran
from onnx import TensorProto, helper, numpy_helper

Run = Callable[..., Ran]
SHAPE = (3, 16, 16)


def network() -> onnx.ModelProto:
    """Two convolutions with a residual connection, and a classifier of four classes."""
    draw = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((draw.standard_normal(shape) / 4).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["a"], "add"),
        helper.make_node("Relu", ["a"], ["r2"], "relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["scores"], "classifier", transB=1),
    ]
    weights = [weight("w1", 16, 3, 3, 3), weight("b1", 16), weight("w2", 16, 16, 3, 3), weight("b2", 16)]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *SHAPE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 4])],
        [*weights, weight("w3", 4, 16), weight("b3", 4)],
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """m.onnx with calib.npz and a labelled eval.npz, whose labels are the model's own answers."""
    onnx.save(network(), tmp_path / "m.onnx")
    draw = np.random.default_rng(1)
    np.savez(tmp_path / "calib.npz", x=draw.standard_normal((32, *SHAPE)).astype(np.float32))
    inputs = draw.standard_normal((40, *SHAPE)).astype(np.float32)
    scores = ort.InferenceSession(tmp_path / "m.onnx").run(None, {"x": inputs})[0]
    np.savez(tmp_path / "eval.npz", x=inputs, labels=np.asarray(scores).argmax(axis=1))
    return tmp_path


def answers(path: Path) -> np.ndarray:
    """What onnxruntime makes of a file, seen from outside."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": np.ones((2, *SHAPE), np.float32)})[0])


# ---- what users do -----------------------------------------------------------------------------------------------


def test_quantize_writes_beside_the_input_and_reports(run: Run, folder: Path) -> None:
    data = ("--data", "calib.npz", "--eval", "eval.npz", "--target", "x64-vnni")  # auto decides by a clock
    ran = run("quantize", *data, "--json", "--report", "r.md")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert report["command"] == "quantize"
    assert report["output"]["path"] == "m.int8.onnx"
    assert report["output"]["bytes"] == (folder / "m.int8.onnx").stat().st_size
    assert report["accuracy"]["samples"] == 40
    assert report["calibration"]["source"] == "data"
    assert report["quantization"]["nodes_quantized"] > 0
    assert answers(folder / "m.int8.onnx").shape == (2, 4)
    assert (folder / "r.md").read_text().startswith("# onnxqp quantize: passed")
    assert {each["node"] for each in report["tensors"]} >= {"conv1", "conv2"}, "where the error is made"
    assert "trace" not in report["arguments"]
    assert sum(report["latency"]["candidate"]["histogram"]["counts"]) == report["latency"]["candidate"]["n"]


def test_prune_proves_and_writes_again_and_again(run: Run, folder: Path) -> None:
    ran = run("prune", "--ratio", "0.5", "--data", "calib.npz", "--json")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert report["pruning"]["proof"]["checked"] is True
    assert report["pruning"]["channels_after"] < report["pruning"]["channels_before"]
    assert "tensors" not in report
    assert answers(folder / "m.pruned.onnx").shape == (2, 4)
    assert run("prune", "--ratio", "0.5", "--no-validate").code == 6  # the output exists now
    assert run("prune", "--ratio", "0.5", "--no-validate", "--force").code == 0


def test_validate_bench_and_inspect(run: Run, folder: Path) -> None:
    validated = json.loads(run("validate", "m.onnx", "m.onnx", "--eval", "eval.npz", "--json").out)
    assert validated["accuracy"]["drop"] == 0
    assert validated["fidelity"]["max_abs_diff"] == 0
    benched = json.loads(run("bench", "m.onnx", "m.onnx", "--json").out)
    assert len(benched["models"]) == 2
    inspected = json.loads(run("inspect", "--groups", "--json").out)
    assert inspected["input"]["operators"]["Conv"] == 2
    assert inspected["pruning"]["groups"]


def test_a_dry_run_writes_nothing(run: Run, folder: Path) -> None:
    before = sorted(folder.iterdir())
    for command in (["quantize"], ["prune", "--ratio", "0.5"]):
        ran = run(*command, "--dry-run", "--data", "calib.npz")
        assert ran.code == 0, ran.err
        assert "dry run: nothing written" in ran.out
    assert sorted(folder.iterdir()) == before


def test_a_missed_gate_exits_1_and_writes_nothing(run: Run, folder: Path) -> None:
    arguments = ("quantize", "--data", "calib.npz", "--no-validate", "--max-size", "10", "--json")
    ran = run(*arguments)
    assert ran.code == 1
    report = json.loads(ran.out)
    assert report["passed"] is False
    assert [(gate["name"], gate["passed"]) for gate in report["gates"]] == [("max-size", False)]
    assert not (folder / "m.int8.onnx").exists()
    assert run(*arguments, "--keep-failed").code == 1
    assert (folder / "m.int8.onnx").exists()


def test_synthetic_inputs_are_said_clearly(run: Run, folder: Path) -> None:
    ran = run("quantize", "--no-validate", "--json")
    assert ran.code == 0
    report = json.loads(ran.out)
    assert report["calibration"]["source"] == "synthetic"
    assert any("synthetic" in warning for warning in report["warnings"])
    assert "warning: " in ran.err


def test_a_hook_of_ones_own(run: Run, folder: Path) -> None:
    (folder / "hook.py").write_text(
        "import numpy as np\n"
        "def feeds():\n"
        "    print('talk')\n"
        f"    for i in range(8):\n        yield {{'x': np.full((1, *{SHAPE}), i, np.float32)}}, i % 4\n"
        "def score(outputs, labels):\n"
        "    return float(len(outputs) == len(labels))\n"
    )
    ran = run(
        "validate",
        "m.onnx",
        "m.onnx",
        "--eval",
        "hook.py:feeds",
        "--metric",
        "hook.py:score",
        "--max-drop",
        "0",
        "--json",
    )
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)  # what the hook prints is not on stdout
    assert report["accuracy"]["baseline"] == 1


def test_the_same_run_twice_writes_the_same_bytes(run: Run, folder: Path) -> None:
    """For a named target; `auto` decides by a clock."""
    for name in ("one", "two"):
        options = ("--data", "calib.npz", "--no-validate", "--target", "x64-vnni", "-o", f"{name}.onnx")
        assert run("quantize", "m.onnx", *options).code == 0
    assert (folder / "one.onnx").read_bytes() == (folder / "two.onnx").read_bytes()


# ---- what they do wrong --------------------------------------------------------------------------------------------


def broken_models(folder: Path) -> dict[str, bytes]:
    whole = (folder / "m.onnx").read_bytes()
    external = network()
    onnx.save(external, folder / "e.onnx", save_as_external_data=True, location="e.data", size_threshold=0)
    (folder / "e.data").unlink()
    return {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "html": b"<!DOCTYPE html><html></html>",
        "zip": b"PK\x03\x04" + b"\0" * 40,
        "noise": bytes(range(256)) * 4,
        "external": (folder / "e.onnx").read_bytes(),
    }


@pytest.mark.parametrize("kind", ["empty", "truncated", "lfs", "html", "zip", "noise", "external"])
@pytest.mark.parametrize("command", ["inspect", "quantize", "prune --ratio 0.5", "bench", "validate m.onnx"])
def test_a_broken_model_exits_3(run: Run, folder: Path, kind: str, command: str) -> None:
    (folder / "broken.onnx").write_bytes(broken_models(folder)[kind])
    ran = run(*command.split(), "broken.onnx")
    assert ran.code == 3
    assert "broken.onnx" in ran.error[0] or "e.data" in ran.error[0]
    assert ran.out == ""


def test_a_missing_model_and_a_folder_exit_3(run: Run, folder: Path) -> None:
    assert run("quantize", "none.onnx").code == 3
    assert run("quantize", ".").code == 3


@pytest.mark.parametrize(
    ("name", "arrays"),
    [
        ("shape", {"x": np.zeros((4, 3, 16), np.float32)}),
        ("channels", {"x": np.zeros((4, 5, 16, 16), np.float32)}),
        ("type", {"x": np.zeros((4, *SHAPE), np.complex64)}),
        ("text", {"x": np.full((4, *SHAPE), "a")}),
        ("name", {"y": np.zeros((4, *SHAPE), np.float32)}),
        ("none", {"x": np.zeros((0, *SHAPE), np.float32)}),
        ("pixels", {"x": np.zeros((4, *SHAPE), np.uint8)}),
        ("labels", {"x": np.zeros((4, *SHAPE), np.float32), "labels": np.zeros(3, np.int64)}),
    ],
)
def test_data_that_do_not_fit_exit_4(run: Run, folder: Path, name: str, arrays: dict[str, np.ndarray]) -> None:
    np.savez(folder / "d.npz", **arrays)
    option = "--eval" if name == "labels" else "--data"
    ran = run("quantize", "m.onnx", option, "d.npz")
    assert ran.code == 4
    assert all(ran.error)
    assert not (folder / "m.int8.onnx").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not really", b"hello"])
def test_data_that_cannot_be_read_exit_4(run: Run, folder: Path, content: bytes) -> None:
    (folder / "d.npz").write_bytes(content)
    assert run("quantize", "m.onnx", "--data", "d.npz").code == 4
    assert run("quantize", "m.onnx", "--data", "missing").code == 4


def test_a_hook_that_fails_exits_4_and_names_itself(run: Run, folder: Path) -> None:
    (folder / "hook.py").write_text("def broken():\n    raise RuntimeError('no camera')\n")
    ran = run("quantize", "m.onnx", "--data", "hook.py:broken")
    assert ran.code == 4
    assert "hook.py" in ran.error[0]
    assert "no camera" in ran.error[0]
    assert run("quantize", "m.onnx", "--data", "hook.py:nothing").code == 4


@pytest.mark.parametrize(
    "gates", [["--max-drop", "1"], ["--max-drop", "1", "--no-validate"], ["--min-speedup", "1", "--no-validate"]]
)
def test_a_gate_that_nothing_can_judge_exits_2(run: Run, folder: Path, gates: list[str]) -> None:
    ran = run("quantize", "m.onnx", "--data", "calib.npz", *gates)
    assert ran.code == 2
    assert gates[0] in ran.error[0]
    assert not (folder / "m.int8.onnx").exists()


def test_an_existing_output_is_never_lost(run: Run, folder: Path) -> None:
    (folder / "m.int8.onnx").write_text("precious")
    assert run("quantize", "m.onnx", "--data", "calib.npz").code == 6
    assert run("quantize", "m.onnx", "--no-validate", "--max-size", "10", "--force").code == 1
    assert run("quantize", "m.onnx", "--data", "missing", "--force").code == 4
    assert (folder / "m.int8.onnx").read_text() == "precious"
    assert run("quantize", "m.onnx", "--no-validate", "--force").code == 0
    assert (folder / "m.int8.onnx").read_bytes() != b"precious"


def test_an_output_that_is_the_input_is_refused(run: Run, folder: Path) -> None:
    before = (folder / "m.onnx").read_bytes()
    (folder / "link.onnx").symlink_to("m.onnx")
    os.link(folder / "m.onnx", folder / "hard.onnx")
    for output in ("m.onnx", "./m.onnx", "link.onnx", "hard.onnx"):
        assert run("quantize", "m.onnx", "-o", output, "--force").code == 2
    (folder / "m.int8.onnx").symlink_to("m.onnx")
    assert run("quantize", "m.onnx", "--force").code == 2  # the default output, which is the input by another name
    assert (folder / "m.onnx").read_bytes() == before


def test_an_output_that_cannot_be_written_is_refused_before_the_work(run: Run, folder: Path) -> None:
    for output in ("no/folder.onnx", "."):
        ran = run("quantize", "m.onnx", "--data", "missing", "-o", output)
        assert ran.code == 6, ran.err  # and not 4: the output is looked at first


def test_what_is_quantized_already_is_said_so(run: Run, folder: Path) -> None:
    assert run("quantize", "m.onnx", "--data", "calib.npz", "--no-validate").code == 0
    ran = run("quantize", "m.int8.onnx", "--data", "calib.npz")
    assert ran.code == 5
    assert all(ran.error)


def test_nothing_is_left_behind_by_any_of_it(run: Run, folder: Path) -> None:
    run("quantize", "m.onnx", "--no-validate", "--max-size", "10")
    run("quantize", "m.onnx", "--no-validate")
    run("prune", "m.onnx", "--no-validate", "--ratio", "0.5")
    names = {path.name for path in folder.iterdir()}
    assert names == {"m.onnx", "calib.npz", "eval.npz", "m.int8.onnx", "m.pruned.onnx"}


def test_the_program_as_users_start_it(folder: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "onnxqp", "inspect", "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0
    assert json.loads(ran.stdout)["input"]["path"] == "m.onnx"
    assert ran.stderr == ""


@pytest.mark.parametrize("rule", ["--include nolayer*", "--exclude conv9", "--op-type Covn"])
def test_a_rule_that_fits_no_node_is_told(run: Run, folder: Path, rule: str) -> None:
    """Left unsaid, a misspelt --exclude would quantize what it was to protect."""
    ran = run("quantize", "m.onnx", *rule.split(), "--exclude", "classifier", "--dry-run")
    assert f"warning: {rule} fits no node" in ran.err
    assert "classifier fits" not in ran.err
