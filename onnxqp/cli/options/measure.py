"""Measuring and judging."""

from __future__ import annotations

import click

from onnxqp.cli.options.declare import MEASURE, gathered, option, switch
from onnxqp.errors import UsageError
from onnxqp.options import MeasureOptions

_threads = option(
    MEASURE,
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="Intra-op threads of the measuring sessions.",
)
_judging = (
    option(
        MEASURE,
        "--metric",
        metavar="top1|top5|file.py:function",
        default="top1",
        show_default=True,
        help="A function takes the list of output dicts and the list of labels, and returns one number, higher is "
        "better.",
    ),
    option(MEASURE, "--output-name", metavar="NAME", help="The output that holds the class scores; default the first."),
    _threads,
)


def _judged(metric: str, output_name: str | None, threads: int) -> MeasureOptions:
    if metric not in ("top1", "top5") and ":" not in metric:
        raise UsageError(f"--metric: unknown metric {metric!r}", hint="use top1, top5 or file.py:function")
    return MeasureOptions(metric, output_name, threads)


def _measured(metric: str, output_name: str | None, threads: int, no_validate: bool) -> MeasureOptions:
    judged = _judged(metric, output_name, threads)
    return MeasureOptions(judged.metric, judged.output_name, judged.threads, validate=not no_validate)


judging = gathered("measure", _judged, *_judging)
measuring = gathered(
    "measure",
    _measured,
    *_judging,
    switch(
        MEASURE,
        "--no-validate",
        help="Skip the final latency, accuracy and fidelity measurements. The result is still verified.",
    ),
)
timing = gathered("measure", lambda threads: MeasureOptions(threads=threads), _threads)
