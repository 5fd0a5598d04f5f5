"""The task metrics that `--metric` names."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any, TypeAlias

from onnxqp.data.hooks import find_function
from onnxqp.errors import DataError, UsageError
from onnxqp.specs import Array

MetricFunction: TypeAlias = Callable[[list[dict[str, Array]], list[Any]], float]


@dataclass(frozen=True)
class TopK:
    """Share of samples whose label is among the `k` highest scores, in points (0..100)."""

    k: int

    @property
    def name(self) -> str:
        return f"top{self.k}"


@dataclass(frozen=True)
class CustomMetric:
    """A user's function of (list of output dicts, list of labels), one entry per feed; higher is better."""

    name: str
    function: MetricFunction

    def __call__(self, outputs: list[dict[str, Array]], labels: list[Any]) -> float:
        """The metric's value. Raises `UsageError` when the function fails or returns anything but a finite number."""
        try:
            with redirect_stdout(sys.stderr):  # stdout is for results
                value = float(self.function(outputs, labels))
        except Exception as fault:  # the user's code may raise anything
            raise UsageError(
                f"the metric failed: {type(fault).__name__}: {fault}",
                where=self.name,
                hint="it is called with a list of output dicts and a list of labels, and returns one number",
            ) from fault
        if not math.isfinite(value):
            raise UsageError(f"the metric returned {value}", where=self.name, hint="it must return a finite number")
        return value


Metric: TypeAlias = TopK | CustomMetric


_HINT = "--metric takes top1, top5 or file.py:function, with a file and a function that exist"


def parse_metric(text: str) -> Metric:
    """`top1`, `top5`, or `file.py:function`, split at the last colon; the function's name may hold dots.

    Raises `UsageError` when it is none of these or the file cannot be imported. Importing runs the user's code.
    """
    if text in ("top1", "top5"):
        return TopK(int(text[3:]))
    if ":" not in text:
        raise UsageError(f"unknown metric {text!r}", hint=_HINT)
    try:
        function, beside = find_function(text)
    except DataError as fault:
        raise UsageError(f"--metric: {fault.message}", where=text, hint=_HINT) from fault

    def call(outputs: list[dict[str, Array]], labels: list[Any]) -> float:
        with beside():
            return float(function(outputs, labels))

    return CustomMetric(text, call)
