"""onnxqp ops"""

from __future__ import annotations

import click

from onnxqp.cli import options
from onnxqp.cli.command import Command
from onnxqp.cli.screen import Screen


@click.command(cls=Command, short_help="Show the rules of each operator.", examples=("onnxqp ops", "onnxqp ops Conv"))
@click.argument("op", required=False)
@options.plain
def ops(op: str | None, screen: Screen) -> int:
    """Show what is known of each operator, or of OP: its pruning rule, its quantization rule, per target."""
    from onnxqp import api

    return screen.show_operators(api.operators(op))
