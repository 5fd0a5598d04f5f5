"""onnxqp bench"""

from __future__ import annotations

import click

from onnxqp.cli import options, paths
from onnxqp.cli.command import Command
from onnxqp.cli.screen import Screen
from onnxqp.cli.settings import the_model
from onnxqp.options import DataOptions, MeasureOptions


@click.command(
    cls=Command,
    short_help="Measure the latency of one or more models.",
    examples=(
        "onnxqp bench model.onnx model.int8.onnx model.pruned.onnx",
        "onnxqp bench model.onnx --shape input:1,3,224,224 --threads 2 --json",
    ),
)
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@options.feeds
@options.timing
@options.reporting
def bench(models: tuple[str, ...], data: DataOptions, measure: MeasureOptions, screen: Screen) -> int:
    """Measure the latency of one or more models, interleaved in one process, on the CPU.

    MODEL may be left out in a folder that holds one model.
    """
    from onnxqp import api

    chosen = list(models) or [the_model(None)]
    paths.check(models=chosen, data=[data.data], reports=screen.reports)
    with screen.progress() as progress:
        result = api.bench(chosen, data=data, measure=measure, progress=progress)
    return screen.show(result.report)
