"""onnxqp debug"""

from __future__ import annotations

import click

from onnxqp.cli import options, paths
from onnxqp.cli.command import Command
from onnxqp.cli.screen import Screen
from onnxqp.options import DataOptions, MeasureOptions


@click.command(
    cls=Command,
    short_help="Show where a candidate goes wrong, and why.",
    examples=(
        "onnxqp debug model.onnx model.int8.onnx --data calib.npz",
        "onnxqp debug model.onnx model.int8.onnx --data images/ --samples 16 --verbose --report errors.json",
    ),
)
@click.argument("baseline")
@click.argument("candidate")
@options.feeds
@options.timing
@options.reporting
def debug(baseline: str, candidate: str, data: DataOptions, measure: MeasureOptions, screen: Screen) -> int:
    """Compare a model with its original value by value: where error arises, worst first, and what causes it.

    The cause is one of rounding, clipping to the calibrated range, saturation of integer kernels, and error inherited
    from another value, which is then named. Values are matched by name.
    """
    from onnxqp import api

    paths.check(models=[baseline, candidate], data=[data.data], reports=screen.reports)
    with screen.progress() as progress:
        result = api.debug(baseline, candidate, data=data, measure=measure, progress=progress)
    return screen.show(result.report)
