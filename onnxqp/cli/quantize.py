"""onnxqp quantize"""

from __future__ import annotations

import click

from onnxqp.cli import options, paths
from onnxqp.cli.command import Command
from onnxqp.cli.screen import Screen
from onnxqp.cli.settings import the_model
from onnxqp.options import DataOptions, Gates, MeasureOptions, QuantizeOptions, WriteOptions


@click.command(
    cls=Command,
    short_help="Quantize to static int8 with calibration.",
    examples=(
        "onnxqp quantize model.onnx --data images/ --preprocess imagenet",
        "onnxqp quantize model.onnx --data calib.npz --eval eval.npz --max-drop 0.5",
        "onnxqp quantize model.onnx --dry-run",
        "onnxqp quantize model.onnx --calibration statistics.npz --method percentile",
        "onnxqp quantize --data feeds.py:calibration --report report.md --report report.xml",
    ),
)
@click.argument("model", required=False)
@options.quantizing
@options.data
@options.measuring
@options.gates
@options.writing
@options.reporting
def quantize(
    model: str | None,
    how: QuantizeOptions,
    data: DataOptions,
    measure: MeasureOptions,
    gates: Gates,
    write: WriteOptions,
    screen: Screen,
) -> int:
    """Quantize a model to static int8 (QDQ), verify it, measure it, and write STEM.int8.onnx.

    MODEL may be left out in a folder that holds one model.
    """
    from onnxqp import api

    source = the_model(model)
    paths.check(
        models=[source],
        data=[data.data, data.eval, how.calibration, measure.profile],
        output=write.output,
        saved=how.save_calibration,
        profile=measure.save_profile,
        reports=screen.reports,
    )
    with screen.progress() as progress:
        result = api.quantize(
            source, options=how, data=data, measure=measure, gates=gates, write=write, progress=progress
        )
    return screen.show(result.report, every=write.dry_run)
