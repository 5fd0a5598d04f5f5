"""onnxqp quantize"""

from __future__ import annotations

import functools
import os

import click

from onnxqp.cli import options
from onnxqp.cli.command import Command
from onnxqp.cli.rewrite import rewrite
from onnxqp.cli.screen import Screen
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
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: for matrices this small, more only cost time
    from onnxqp import api

    work = functools.partial(api.quantize, options=how)
    return rewrite(work, model, data, measure, gates, write, screen, read=[how.calibration], saved=how.save_calibration)
