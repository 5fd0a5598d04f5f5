"""The program as a process of its own: start-up, imports, signals, pipes, locales."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAVY = ("numpy", "onnx", "onnx_ir", "onnxruntime", "rich", "PIL")
# The program with its public functions replaced by {body}: what is tested is the process around them.
STAND_IN = """
import sys, types, time, os, signal
sys.path.insert(0, {tests!r})
import sample_reports, onnxqp
from onnxqp.cli import main
def act(*arguments, **options):
    {body}
    return types.SimpleNamespace(report=sample_reports.quantized(warnings=["w" * 10]))
api = types.ModuleType("onnxqp.api")
api.quantize = act
sys.modules["onnxqp.api"] = onnxqp.api = api
sys.exit(main(["quantize", "m.onnx", *sys.argv[1:]]))
"""


def started(body: str, *arguments: str, **options: object) -> subprocess.Popen[str]:
    script = STAND_IN.format(tests=str(Path(__file__).parent.parent), body=body)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen([sys.executable, "-c", script, *arguments], **pipes)  # type: ignore[call-overload]


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
        check=False,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["quantize", "--help"], ["--version"], ["quantize", "--metod"]])
def test_nothing_heavy_is_imported_before_a_command_runs(arguments: list[str]) -> None:
    code = (
        f"import sys; from onnxqp.cli import main; main({arguments!r}); print([m for m in {HEAVY} if m in sys.modules])"
    )
    assert python("-c", code).stdout.splitlines()[-1] == "[]"


def test_importing_the_package_costs_nothing() -> None:
    code = f"import sys, onnxqp; print([m for m in {(*HEAVY, 'click')} if m in sys.modules])"
    assert python("-c", code).stdout.strip() == "[]"


def test_help_costs_little_more_than_starting_python() -> None:
    """In processor time, which a busy machine stretches less than the clock: 0.3 s is promised, 0.1 s is usual."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert python("-m", "onnxqp", "--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(once() for _ in range(5)) < 0.3


def test_version_names_what_a_bug_report_needs() -> None:
    names = [line.split()[0] for line in python("-m", "onnxqp", "--version").stdout.splitlines()]
    assert names == ["onnxqp", "onnx", "onnx_ir", "onnxruntime", "python"]


def test_nothing_given_shows_the_help_and_exits_2() -> None:
    ran = python("-m", "onnxqp")
    assert ran.returncode == 2
    assert ran.stdout.startswith("Usage: onnxqp")
    assert [line.split(":")[0] for line in ran.stderr.splitlines()] == ["error", "hint"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("body", ["time.sleep(30)", "all(iter(lambda: True, None))"], ids=["sleeping", "computing"])
def test_signals_end_it_cleanly(tmp_path: Path, number: int, code: int, body: str) -> None:
    body = f"""
    try:
        open({str(tmp_path / "begun")!r}, "w").close()
        {body}
    except Exception:
        pass
    finally:
        open({str(tmp_path / "cleaned")!r}, "w").close()"""
    process = started(body.strip())
    try:
        while not (tmp_path / "begun").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()  # nothing may compute on when the test has failed
    assert process.returncode == code
    assert [line.split(":")[0] for line in err.splitlines()] == ["error", "hint"]
    assert (tmp_path / "cleaned").exists()


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_a_reader_that_leaves_is_no_fault(arguments: list[str]) -> None:
    process = started("pass", *arguments)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(20) == 0
    assert err == "warning: wwwwwwwwww\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_device_is_an_output_error() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        process = started("pass", "-q", stdout=full)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 6
    assert [line.split(":")[0] for line in err.splitlines()] == ["error", "hint"]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_locale_breaks_the_output(encoding: str) -> None:
    name = ascii("模型é.onnx")  # the script itself must survive the locale
    body = f"sample_reports.quantized = lambda **k: sample_reports.report(input=sample_reports.summary({name}), **k)"
    env = os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    process = started(body, "-q", env=env, text=False)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert err == b""
    assert b".onnx" in out.splitlines()[0]


def test_colour_only_where_it_is_wanted() -> None:
    plain = started("pass", "-q").communicate(timeout=20)[0]
    forced = started("pass", "-q", env=os.environ | {"FORCE_COLOR": "1"}).communicate(timeout=20)[0]
    refused = started("pass", "-q", env=os.environ | {"FORCE_COLOR": "1", "NO_COLOR": "1"}).communicate(timeout=20)[0]
    assert "\x1b" not in plain
    assert "\x1b[" in forced
    assert "\x1b[3" not in refused


def test_json_on_stdout_is_one_object_whatever_happens() -> None:
    assert json.loads(started("pass", "--json").communicate(timeout=20)[0])["command"] == "quantize"
    failed = started("raise RuntimeError('boom')", "--json").communicate(timeout=20)[0]
    assert json.loads(failed)["error"]["code"] == 70
