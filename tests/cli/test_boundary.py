"""Where exceptions end: exit codes, two lines, JSON."""

from __future__ import annotations

import errno
import json
import signal
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from fake_api import FakeApi, Ran

from onnxqp.cli.boundary import Stopped
from onnxqp.errors import (
    DataError,
    InternalError,
    ModelError,
    OutputError,
    ResourceError,
    UnsupportedError,
    UsageError,
    VerificationError,
)

Run = Callable[..., Ran]

FAULTS = [
    (VerificationError("it does not load"), 1, "verification"),
    (UsageError("no"), 2, "usage"),
    (ModelError("no such file", where="m.onnx"), 3, "model"),
    (DataError("no"), 4, "data"),
    (UnsupportedError("no"), 5, "unsupported"),
    (OutputError("no"), 6, "output"),
    (OSError(errno.ENOSPC, "No space left on device", "out.onnx"), 6, "output"),
    (PermissionError(errno.EACCES, "Permission denied"), 6, "output"),
    (ResourceError("no"), 7, "resource"),
    (MemoryError(), 7, "resource"),
    (OSError(errno.EMFILE, "Too many open files"), 7, "resource"),
    (InternalError("an assumption"), 70, "internal"),
    (ZeroDivisionError(), 70, "internal"),
    (FileNotFoundError(errno.ENOENT, "nobody expected this", "x"), 70, "internal"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (click.Abort(), 130, "interrupted"),
]


def interrupted_import(number: int) -> ImportError:
    """What loading an extension module raises where a signal arrived meanwhile (seen with onnxruntime's)."""
    error = ImportError("initialization failed")
    error.__cause__ = Stopped(number)
    return error


FAULTS += [
    (interrupted_import(signal.SIGINT), 130, "interrupted"),
    (interrupted_import(signal.SIGTERM), 143, "terminated"),
]


@pytest.mark.parametrize(("fault", "code", "kind"), FAULTS, ids=lambda item: type(item).__name__)
def test_a_fault_is_two_lines_and_a_code(run: Run, api: FakeApi, fault: BaseException, code: int, kind: str) -> None:
    api.error = fault
    ran = run("quantize", "m.onnx")
    assert ran.code == code
    assert all(ran.error)
    assert ran.out == ""
    ran = run("quantize", "m.onnx", "--json")
    assert ran.code == code
    error = json.loads(ran.out)["error"]
    assert (error["code"], error["kind"]) == (code, kind)
    assert (error["message"], error["hint"]) == (error["message"], ran.error[1])


def test_where_stands_in_the_line_and_in_the_object(run: Run, api: FakeApi) -> None:
    api.error = ModelError("no such file", where="m.onnx", hint="check the path")
    ran = run("quantize", "m.onnx", "--json")
    assert ran.error == ("m.onnx: no such file", "check the path")
    expected = {"code": 3, "kind": "model", "message": "no such file", "where": "m.onnx", "hint": "check the path"}
    assert json.loads(ran.out) == {"error": expected}


def test_usage_errors_are_json_too_although_parsing_failed(run: Run) -> None:
    error = json.loads(run("quantize", "--json", "--metod", "x").out)["error"]
    assert error == {
        "code": 2,
        "kind": "usage",
        "message": "no such option: --metod",
        "hint": "did you mean --method?",
    }


def test_a_bug_asks_to_be_reported(run: Run, api: FakeApi) -> None:
    api.error = ValueError("boom")
    message, hint = run("quantize", "m.onnx").error
    assert message == "internal error in onnxqp: ValueError: boom"
    assert "report" in hint


def test_tracebacks_are_shown_on_demand_only(run: Run, api: FakeApi) -> None:
    api.error = DataError("wrong shape")
    assert "Traceback" not in run("quantize", "m.onnx").err
    shown = run("quantize", "m.onnx", "--debug")
    assert "Traceback" in shown.err
    assert shown.err.splitlines()[-2] == "error: wrong shape"
    assert shown.code == 4


def test_names_cannot_add_lines_or_control_the_terminal(run: Run, api: FakeApi) -> None:
    api.error = ModelError("node 'a\n::error::b\x1b[2J' is broken", hint="line\nbreak")
    assert run("quantize", "m.onnx").error == (r"node 'a\n::error::b\x1b[2J' is broken", r"line\nbreak")


def test_a_full_disk_under_a_report_keeps_the_code_of_an_output(
    run: Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    ran = run("quantize", "m.onnx", "--report", "r.md")
    assert ran.code == 6
    assert "No space left" in ran.error[0]
    assert not Path("r.md").exists()
