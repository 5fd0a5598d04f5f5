"""onnxqp validate"""

from __future__ import annotations

import click

from onnxqp.cli import options, paths
from onnxqp.cli.command import Command
from onnxqp.cli.screen import Screen
from onnxqp.options import DataOptions, Gates, MeasureOptions


@click.command(
    cls=Command,
    short_help="Compare a model with its original; gates.",
    examples=(
        "onnxqp validate model.onnx model.int8.onnx --eval eval.npz --max-drop 0.5 --min-speedup 1.2",
        "onnxqp validate model.onnx model.pruned.onnx --data images/ --min-agreement 98 --max-size 2MB",
    ),
)
@click.argument("baseline")
@click.argument("candidate")
@options.data
@options.judging
@options.gates
@options.reporting
def validate(
    baseline: str, candidate: str, data: DataOptions, measure: MeasureOptions, gates: Gates, screen: Screen
) -> int:
    """Compare a model with its original: latency, accuracy, fidelity and size; then the gates."""
    from onnxqp import api

    paths.check(models=[baseline, candidate], data=[data.data, data.eval], reports=screen.reports)
    with screen.progress() as progress:
        result = api.validate(baseline, candidate, data=data, measure=measure, gates=gates, progress=progress)
    return screen.show(result.report)
