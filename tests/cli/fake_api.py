"""A stand-in for the public functions: what reaches them, and what becomes of their report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import sample_reports

from onnxqp.report.records import Report


@dataclass
class FakeApi:
    """Records each call, and answers with a report or by raising."""

    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    report: Report = field(default_factory=sample_reports.quantized)
    error: BaseException | None = None
    facts: Any = None

    def function(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append((name, arguments, options))
            if self.error is not None:
                raise self.error
            return self.facts if name in ("operators", "doctor") else SimpleNamespace(model=None, report=self.report)

        return call

    @property
    def options(self) -> dict[str, Any]:
        """What the only call got by keyword."""
        (call,) = self.calls
        return call[2]

    @property
    def arguments(self) -> tuple[Any, ...]:
        (call,) = self.calls
        return call[1]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def error(self) -> tuple[str, str]:
        """The two lines of a failure; there may be no third."""
        first, second = self.err.splitlines()
        assert first.startswith("error: ")
        assert second.startswith("hint: ")
        return first[len("error: ") :], second[len("hint: ") :]
