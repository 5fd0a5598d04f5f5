"""onnxqp doctor"""

from __future__ import annotations

import click

from onnxqp.cli import options
from onnxqp.cli.command import Command
from onnxqp.cli.screen import Screen


@click.command(
    cls=Command,
    short_help="Show versions and machine, for a bug report.",
    examples=("onnxqp doctor", "onnxqp doctor --json"),
)
@options.plain
def doctor(screen: Screen) -> int:
    """Show versions, what the installed onnxruntime reads, and this CPU: what a bug report needs."""
    from onnxqp import api

    return screen.show_doctor(api.doctor())
