"""Which nodes to touch, and for which CPU."""

from __future__ import annotations

from typing import get_args

import click

from onnxqp.cli.options.declare import WHICH, option
from onnxqp.options import TargetName

target = option(
    WHICH,
    "--target",
    type=click.Choice(get_args(TargetName)),
    default="auto",
    show_default=True,
    help="The CPU that will run the result. auto looks at this one and measures; a named one decides by its table.",
)
selection = (
    option(WHICH, "--include", metavar="GLOB", multiple=True, help="Touch only nodes of these names. Repeatable."),
    option(WHICH, "--exclude", metavar="GLOB", multiple=True, help="Leave nodes of these names alone. Repeatable."),
    option(
        WHICH,
        "--op-type",
        metavar="TYPE",
        multiple=True,
        help="Touch only nodes of these operator types; a rule on the name beats one on the type. Repeatable.",
    ),
    target,
)
