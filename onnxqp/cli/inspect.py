"""onnxqp inspect"""

from __future__ import annotations

import click

from onnxqp.cli import options, paths
from onnxqp.cli.command import Command
from onnxqp.cli.screen import Screen
from onnxqp.cli.settings import the_model
from onnxqp.options import TargetName


@click.command(
    cls=Command,
    short_help="Show what a model is made of and what can be done.",
    examples=(
        "onnxqp inspect model.onnx",
        "onnxqp inspect model.onnx --groups",
        "onnxqp inspect model.onnx model.int8.onnx",
    ),
)
@click.argument("model", required=False)
@click.argument("model2", required=False)
@options.switch(options.WHAT, "--groups", help="List the channel groups: prunable, or pinned and why.")
@options.target
@options.reporting
def inspect(model: str | None, model2: str | None, groups: bool, target: TargetName, screen: Screen) -> int:
    """Show what a model is made of, and what can be quantized or pruned; of two models the difference.

    MODEL may be left out in a folder that holds one model.
    """
    from onnxqp import api

    first = the_model(model)
    paths.check(models=[first, *([model2] if model2 else [])], reports=screen.reports)
    return screen.show(api.inspect(first, model2, groups=groups, target=target).report, groups=groups)
