"""The task metrics that `--metric` names."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from onnxqp.errors import UsageError
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


def parse_metric(text: str) -> Metric:
    """`top1`, `top5`, or `file.py:function`, split at the last colon; the function's name may hold dots.

    Raises `UsageError` when it is none of these or the file cannot be imported. Importing runs the user's code.
    """
    if text.startswith("top") and text[3:].isdigit() and int(text[3:]) in (1, 5):
        return TopK(int(text[3:]))
    file, colon, function = text.rpartition(":")
    if not colon or not file.endswith(".py") or not function:
        raise UsageError(f"unknown metric {text!r}", hint="--metric takes top1, top5 or file.py:function")
    target: Any = _import(Path(file))
    for part in function.split("."):
        try:
            target = getattr(target, part)
        except AttributeError:
            raise UsageError(f"{file} has no {function!r}", where=text, hint="define the function there") from None
    if not callable(target):
        raise UsageError(f"{function!r} in {file} is not a function", where=text, hint="name a function")
    return CustomMetric(text, target)


def _import(path: Path) -> Any:
    if not path.is_file():
        raise UsageError(f"there is no file {path}", where=str(path), hint="--metric takes file.py:function")
    spec = importlib.util.spec_from_file_location(f"_onnxqp_metric_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be imported", where=str(path), hint="name a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look a module up by its name
    try:
        spec.loader.exec_module(module)
    except Exception as fault:  # the user's code may raise anything
        raise UsageError(
            f"importing {path} failed: {type(fault).__name__}: {fault}", where=str(path), hint="mend the file"
        ) from fault
    return module
