"""onnxqp sensitivity"""

from __future__ import annotations

import click

from onnxqp.cli import options, paths
from onnxqp.cli.command import Command
from onnxqp.cli.screen import Screen
from onnxqp.cli.settings import the_model
from onnxqp.options import DataOptions, MeasureOptions


@click.command(
    cls=Command,
    short_help="Show what each part costs when it alone is compressed.",
    examples=(
        "onnxqp sensitivity model.onnx --data calib.npz",
        "onnxqp sensitivity model.onnx --data images/ --eval labelled/ --samples 500 --report regions.json",
    ),
)
@click.argument("model", required=False)
@options.data
@options.judging
@options.reporting
def sensitivity(model: str | None, data: DataOptions, measure: MeasureOptions, screen: Screen) -> int:
    """Measure what each part of a model costs when it alone is compressed, the dearest first.

    quantize:NODE is a layer (in a deep model a run of them) in int8; prune:GROUP is a channel group cut in half, not
    recovered. The cost is in points of the metric on at most --samples labelled samples, else the squared error of the
    worst output relative to its squared signal. Nothing is written. MODEL may be left out in a folder that holds one
    model.
    """
    from onnxqp import api

    source = the_model(model)
    paths.check(models=[source], data=[data.data, data.eval], reports=screen.reports)
    with screen.progress() as progress:
        result = api.sensitivity(source, data=data, measure=measure, progress=progress)
    return screen.show(result.report)
