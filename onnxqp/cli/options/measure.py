"""Measuring and judging."""

from __future__ import annotations

from dataclasses import replace

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


def _measured(
    metric: str,
    output_name: str | None,
    threads: int,
    profile: str | None,
    save_profile: str | None,
    no_validate: bool,
) -> MeasureOptions:
    return replace(
        _judged(metric, output_name, threads), validate=not no_validate, profile=profile, save_profile=save_profile
    )


judging = gathered("measure", _judged, *_judging)
measuring = gathered(
    "measure",
    _measured,
    *_judging,
    option(
        MEASURE,
        "--profile",
        metavar="FILE",
        help="Decide by the measurements in a file of --save-profile: the same result, to the byte, as then.",
    ),
    option(MEASURE, "--save-profile", metavar="FILE", help="Keep the measurements that decisions rest on, as JSON."),
    switch(
        MEASURE,
        "--no-validate",
        help="Skip the final latency, accuracy and fidelity measurements. The result is still verified.",
    ),
)
timing = gathered("measure", lambda threads: MeasureOptions(threads=threads), _threads)
