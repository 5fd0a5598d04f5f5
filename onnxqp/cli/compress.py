"""onnxqp compress"""

from __future__ import annotations

import functools

import click

from onnxqp.cli import options
from onnxqp.cli.command import Command
from onnxqp.cli.rewrite import rewrite
from onnxqp.cli.screen import Screen
from onnxqp.options import CompressOptions, DataOptions, Gates, MeasureOptions, WriteOptions


@click.command(
    cls=Command,
    short_help="Prune, recover and quantize in one run.",
    examples=(
        "onnxqp compress model.onnx --data calib.npz",
        "onnxqp compress model.onnx --data calib.npz --eval eval.npz --max-drop 3",
        "onnxqp compress model.onnx --data images/ --preprocess imagenet --latency-ratio 0.3 --size-ratio 0.2",
        "onnxqp compress model.onnx --data calib.npz --macs-ratio 0.6",
    ),
)
@click.argument("model", required=False)
@options.compressing
@options.data
@options.measuring
@options.gates
@options.writing
@options.reporting
def compress(
    model: str | None,
    how: CompressOptions,
    data: DataOptions,
    measure: MeasureOptions,
    gates: Gates,
    write: WriteOptions,
    screen: Screen,
) -> int:
    """Prune, recover and quantize a model under one set of budgets, and write STEM.compressed.onnx.

    With --ratio, --threshold, --macs-ratio or --params-ratio so much is pruned. Without, several amounts are tried and
    the best that fits is kept, by calibration samples that were held back: with --max-drop or --min-agreement the
    fastest that keeps them, with --min-speedup, --latency-ratio, --min-size-ratio, --max-size or --size-ratio alone the
    most accurate. Without any of these: the fastest within 1 point (with labels), or with 99 % of the predictions, or
    at 25 dB of signal to noise (images 40) where no output holds classes; or with what `quantize` alone gives. MODEL
    may be left out in a folder that holds one model.
    """
    from onnxqp import api

    work = functools.partial(api.compress, options=how)
    return rewrite(work, model, data, measure, gates, write, screen)
