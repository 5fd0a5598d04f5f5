"""onnxqp prune"""

from __future__ import annotations

import functools

import click

from onnxqp.cli import options
from onnxqp.cli.command import Command
from onnxqp.cli.rewrite import rewrite
from onnxqp.cli.screen import Screen
from onnxqp.options import DataOptions, Gates, MeasureOptions, PruneOptions, WriteOptions


@click.command(
    cls=Command,
    short_help="Remove whole channels, with proof.",
    examples=(
        "onnxqp prune model.onnx --ratio 0.5",
        "onnxqp prune model.onnx --ratio 0.5 --data calib.npz --eval eval.npz --max-drop 2",
        "onnxqp prune model.onnx --threshold 0.3 --dry-run",
    ),
)
@click.argument("model", required=False)
@options.pruning
@options.data
@options.measuring
@options.gates
@options.writing
@options.reporting
def prune(
    model: str | None,
    how: PruneOptions,
    data: DataOptions,
    measure: MeasureOptions,
    gates: Gates,
    write: WriteOptions,
    screen: Screen,
) -> int:
    """Remove whole channels (structured filter pruning), prove that the rest computes the same, write STEM.pruned.onnx.

    Initializers and every shape downstream are rewritten, so the result needs no special runtime.
    MODEL may be left out in a folder that holds one model.
    """
    from onnxqp import api

    work = functools.partial(api.prune, options=how)
    return rewrite(work, model, data, measure, gates, write, screen)
