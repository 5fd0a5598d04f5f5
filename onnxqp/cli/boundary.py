"""Where exceptions end: two lines on stderr, an exit code, and with `--json` an object on stdout."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import click

from onnxqp import outputs
from onnxqp.cli import github, streams
from onnxqp.cli.usage import explain
from onnxqp.errors import (
    EXIT_BUG,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    OnnxqpError,
    OutputError,
    ResourceError,
    UsageError,
)
from onnxqp.report.text import printable

_DEFAULT_HINTS = {
    "verification": "nothing was written; please report the model, with what onnxqp doctor prints",
    "usage": "see onnxqp --help",
    "model": "export the model again, or check it with onnxqp inspect",
    "data": "see the data formats in onnxqp quantize --help",
    "unsupported": "onnxqp inspect shows what can be done with the model",
    "output": "choose another path",
    "resource": "try fewer --samples or a smaller --batch-size",
}
_NO_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EIO}
_NO_NAME = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR}
_PATIENCE = 0.7  # seconds between a signal and the end, come what may
_NO_ROOM = {errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN}


@dataclass
class Invocation:
    """How this run wants its errors; known before the arguments are parsed, since that may fail."""

    json: bool = False
    debug: bool = False
    alone: bool = False  # the process is ours: it may be ended when it does not answer a signal


class Stopped(BaseException):
    """A signal asked the process to end. Not an Exception: no pass may take it for a failure of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = EXIT_TERMINATED if number == signal.SIGTERM else EXIT_INTERRUPTED


@dataclass(frozen=True)
class Failure:
    """What is said of an exception."""

    code: int
    kind: str
    message: str
    hint: str
    where: str | None = None


def run(command: Callable[[], Any], invocation: Invocation) -> int:
    """The exit code of `command`, which returns its own or raises."""
    streams.prepare()
    try:
        with _signals(), _impatience(invocation), warnings.catch_warnings():
            if not invocation.debug:
                warnings.simplefilter("ignore")
            code = command()
            sys.stdout.flush()
            return int(code or 0)
    except BaseException as error:
        if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):
            streams.abandon_stdout()  # the reader has seen enough: `onnxqp --help | head -3`
            return 0
        if isinstance(error, SystemExit):  # click's shell completion
            raise
        return _report(error, invocation)


def _report(error: BaseException, invocation: Invocation) -> int:
    failure = describe(error)
    with contextlib.suppress(OSError):
        if invocation.debug:
            traceback.print_exception(error, file=sys.stderr)
        where = failure.where
        place = f"{where}: " if where and where not in failure.message else ""
        message, hint = (github.tamed(printable(text)) for text in (place + failure.message, failure.hint))
        sys.stderr.write(f"error: {message}\nhint: {hint}\n")
        github.publish_failure(place + failure.message, failure.hint)
    try:
        if invocation.json:
            sys.stdout.write(github.tamed_json(json.dumps({"error": _fields(failure)}, indent=2)) + "\n")
        sys.stdout.flush()
    except OSError:
        streams.abandon_stdout()
    return failure.code


def _fields(failure: Failure) -> dict[str, object]:
    keys = ("code", "kind", "message", "where", "hint")
    return {key: getattr(failure, key) for key in keys if getattr(failure, key) is not None}


def describe(error: BaseException) -> Failure:
    """The failure that an exception stands for; whatever nobody foresaw is a bug of ours."""
    error = _stop_behind(error) or error
    if isinstance(error, click.ClickException):
        error = explain(error)
    elif isinstance(error, MemoryError):
        error = ResourceError("out of memory")
    elif isinstance(error, OSError):
        error = _system_error(error)
    if isinstance(error, OnnxqpError):
        return Failure(error.code, error.kind, error.message, error.hint or _DEFAULT_HINTS[error.kind], error.where)
    if isinstance(error, Stopped | KeyboardInterrupt | click.Abort):
        code = error.code if isinstance(error, Stopped) else EXIT_INTERRUPTED
        kind = "terminated" if code == EXIT_TERMINATED else "interrupted"
        return Failure(code, kind, kind, "no half-written file is left behind; run the command again")
    name = type(error).__name__
    return Failure(
        EXIT_BUG,
        "internal",
        f"internal error in onnxqp: {name}: {error}" if str(error) else f"internal error in onnxqp: {name}",
        "this is a bug: please report it with what --debug and onnxqp doctor print",
    )


def _stop_behind(error: BaseException) -> Stopped | None:
    """The signal that led to `error`: one that arrives while an extension module loads comes out as an ImportError."""
    link: BaseException | None = error
    while link is not None and not isinstance(link, Stopped):
        link = link.__cause__ or link.__context__
    return link


def _system_error(error: OSError) -> Exception:
    reason = error.strerror or str(error)
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
    if error.errno in _NO_WRITE:
        return OutputError(f"cannot be written: {reason}", where=where, hint="check free space and permissions")
    if error.errno in _NO_NAME:
        return UsageError(f"no file can have this name: {reason}", where=where, hint="check the paths that you gave")
    if error.errno in _NO_ROOM:
        return ResourceError(f"the system refused: {reason}", where=where)
    return error


# ---- signals ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGINT and SIGTERM as exceptions, so that temporary files are removed on the way out."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        old = {number: signal.signal(number, _stop) for number in numbers}
    except ValueError:  # not the main thread: signals are somebody else's business
        yield
        return
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


@contextlib.contextmanager
def _impatience(invocation: Invocation) -> Iterator[None]:
    """Ends the process when a signal was not obeyed for a while.

    Python handles signals between two of its own instructions, and one call into onnxruntime or LAPACK can last
    minutes. The interpreter writes the signal's number into a pipe at once; a thread waits there.
    """
    if not invocation.alone or threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(reader, invocation), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)  # the thread sees the end of the pipe, and leaves


def _wait(reader: int, invocation: Invocation) -> None:
    told = os.read(reader, 1)
    if told and not select.select([reader], [], [], _PATIENCE)[0]:
        outputs.remove_drafts()
        os._exit(_report(Stopped(told[0]), invocation))
    os.close(reader)
