"""What the user sees: results on stdout, warnings and progress on stderr, report files beside them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import click

from onnxqp.cli import github, streams
from onnxqp.errors import EXIT_DONE, EXIT_GATE_MISSED
from onnxqp.report.records import SCHEMA_VERSION
from onnxqp.report.text import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from onnxqp.report.records import Report

Progress: TypeAlias = Callable[[str, int, int | None], None]

_PIPE_WIDTH = 200  # columns where no terminal says how many: wide enough for every number on one line


@dataclass(frozen=True)
class Screen:
    """How one run presents itself."""

    as_json: bool = False
    reports: tuple[str, ...] = ()
    quiet: bool = False
    verbose: bool = False

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress | None]:
        """A bar on stderr while work goes on; None where stderr is no terminal."""
        if self.quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
            yield None
            return
        bar = _Bar(sys.stderr)
        try:
            yield bar.advance
        finally:
            bar.clear()

    def show(self, report: Report, *, groups: bool = False, every: bool = False) -> int:
        """Write the report files, print the report, and return the exit code that it means."""
        from onnxqp.report import write

        for path in self.reports:
            write.write(report, Path(path))
        github.publish(report)
        if not self.quiet:
            for warning in report.warnings:
                click.echo(f"warning: {github.tamed(printable(warning))}", err=True)
        if self.as_json:
            self._print(github.tamed_json(write.to_json(report)))
        else:
            from onnxqp.report import table

            with github.literal():
                self._print(table.render(report, every=every or self.verbose, groups=groups or self.verbose))
        return EXIT_DONE if report.passed else EXIT_GATE_MISSED

    def show_operators(self, records: Sequence[Any]) -> int:
        """Print operator records: one line each, or every fact of the only one."""
        entries = [dataclasses.asdict(record) for record in records]
        if self.as_json:
            return self._print_object("ops", {"operators": entries})
        if len(entries) == 1:
            return self._print_facts(_flat(entries[0]))
        from onnxqp.report import table

        rows = [{key: _short(value) for key, value in entry.items()} for entry in entries]
        if rows:
            self._print(table.facts("", list(rows[0]), [list(row.values()) for row in rows]))
        return EXIT_DONE

    def show_doctor(self, facts: Mapping[str, Any]) -> int:
        """Print what is known of this installation and machine."""
        return self._print_object("doctor", facts) if self.as_json else self._print_facts(_flat(facts))

    def _print_object(self, command: str, content: Mapping[str, Any]) -> int:
        self._print(json.dumps({"schema_version": SCHEMA_VERSION, "command": command, **content}, indent=2))
        return EXIT_DONE

    def _print_facts(self, rows: Iterator[tuple[str, str]]) -> int:
        from onnxqp.report import table

        self._print(table.facts("", ("", ""), list(rows)))
        return EXIT_DONE

    def _print(self, content: str | RenderableType) -> None:
        try:
            if isinstance(content, str):
                sys.stdout.write(content + "\n")
            else:
                sys.stdout.write(_lines(content))
            sys.stdout.flush()
        except BrokenPipeError:  # the reader left; the verdict stands all the same
            streams.abandon_stdout()


def screen_of(as_json: bool, reports: tuple[str, ...], quiet: bool, verbose: bool, debug: bool) -> Screen:
    """The screen that the options describe. Report names are judged here, before any work."""
    if reports:
        from onnxqp.report.write import check_suffix

        for path in reports:
            check_suffix(Path(path))
    invocation = click.get_current_context().obj
    if invocation is not None:  # the configuration may have asked for JSON
        invocation.json = invocation.json or as_json
        invocation.debug = invocation.debug or debug
    return Screen(as_json, reports, quiet, verbose)


def _lines(content: RenderableType) -> str:
    """`content` as it looks on stdout, without the blanks that fill a table's last column."""
    console = _console(sys.stdout)
    with console.capture() as capture:
        console.print(content)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def _console(stream: IO[str]) -> Console:
    from rich.console import Console

    asked = os.environ.get("COLUMNS", "")
    width = None if stream.isatty() or asked.isdigit() else _PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


class _Bar:
    """One line that is drawn over and over, only when told: no thread that would disturb a stopwatch."""

    _WIDTH = 30
    _PAUSE = 0.1  # seconds between drawings of one stage
    _PATIENCE = 2.0  # seconds of a stage before anything is said of the rest: too early it is a guess

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._stage = ""
        self._drawn = 0.0
        self._begun: dict[str, tuple[float, int]] = {}  # when each stage began, and how far it has come

    def advance(self, stage: str, done: int, total: int | None) -> None:
        now = self._clock()
        begun, before = self._begun.get(stage, (now, 0))
        if done < before:  # the same stage once more
            begun = now
        self._begun[stage] = begun, done
        if stage == self._stage and done != total and now - self._drawn < self._PAUSE:
            return
        self._stage, self._drawn = stage, now
        shown = f" {done}" if done and not total else ""
        if total:
            filled = self._WIDTH * min(done, total) // total
            shown = f" [{'#' * filled:.<{self._WIDTH}}] {done}/{total}{self._rest(now - begun, done, total)}"
        self._write(f"{printable(stage)}{shown}")

    def _rest(self, elapsed: float, done: int, total: int) -> str:
        """What is left, if it goes on as it went so far."""
        if not 0 < done < total or elapsed < self._PATIENCE:
            return ""
        left = elapsed / done * (total - done)
        return f", about {left:.0f} s left" if left < 90 else f", about {left / 60:.0f} min left"

    def clear(self) -> None:
        self._write("")

    def _write(self, text: str) -> None:
        self._stream.write(f"\r\x1b[2K{text}")
        self._stream.flush()


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested facts as lines of a name and a text."""
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", _line(value)


def _short(value: Any) -> str:
    """A fact in one cell: where targets differ, each thing that is said, once."""
    return " / ".join(dict.fromkeys(map(_line, value.values()))) if isinstance(value, dict) else _line(value)


def _line(value: Any) -> str:
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(str(item) for item in sorted(value, key=str))
    return "unknown" if value is None else str(value)
