"""onnxqp calibrate"""

from __future__ import annotations

import dataclasses

import click

from onnxqp.cli import options, paths
from onnxqp.cli.command import Command
from onnxqp.cli.screen import Screen
from onnxqp.cli.settings import the_model
from onnxqp.errors import UsageError
from onnxqp.options import CalibrateOptions, DataOptions


@click.command(
    cls=Command,
    short_help="Write activation statistics to a file; merge.",
    examples=(
        "onnxqp calibrate model.onnx --data images/ --preprocess imagenet -o statistics.npz",
        "onnxqp calibrate model.onnx --data images/ --shard 2/4 -o part2.npz",
        "onnxqp calibrate model.onnx --merge part1.npz part2.npz part3.npz part4.npz -o statistics.npz",
        "onnxqp quantize model.onnx --calibration statistics.npz",
    ),
)
@click.argument("model", metavar="[MODEL]", nargs=-1)
@options.calibrating
@options.feeds
@options.reporting
def calibrate(model: tuple[str, ...], how: CalibrateOptions, data: DataOptions, screen: Screen) -> int:
    """Run a model over data and keep the statistics of its activations in a file that quantize --calibration reads.

    MODEL may be left out in a folder that holds one model, and when merging.
    """
    from onnxqp import api

    models = list(model)
    if how.merge:  # an option takes one value: the files behind it arrive as arguments
        files = [name for name in models if name.lower().endswith(".npz")]
        models = [name for name in models if name not in files]
        how = dataclasses.replace(how, merge=(*how.merge, *files))
    if len(models) > 1:
        raise UsageError(f"one MODEL, not {len(models)}: {', '.join(models)}", hint="calibrate them one by one")
    source = models[0] if models else None if how.merge else the_model(None)
    paths.check(models=models, data=[data.data, *how.merge], output=how.output, reports=screen.reports)
    with screen.progress() as progress:
        result = api.calibrate(source, options=how, data=data, progress=progress)
    return screen.show(result.report)
