"""How to quantize."""

from __future__ import annotations

from typing import get_args

import click

from onnxqp.cli.options.declare import WHAT, gathered, option, switch
from onnxqp.cli.options.nodes import selection
from onnxqp.options import Method, QuantizeOptions, Selection, TargetName


def quantize_options(
    method: Method,
    per_tensor: bool,
    no_bias_correction: bool,
    no_equalize: bool,
    calibration: str | None = None,
    save_calibration: str | None = None,
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    op_type: tuple[str, ...] = (),
    target: TargetName = "auto",
) -> QuantizeOptions:
    """The record."""
    selection = Selection(include, exclude, op_type)
    return QuantizeOptions(
        method,
        per_tensor,
        target,
        selection,
        calibration,
        save_calibration,
        bias_correction=not no_bias_correction,
        equalize=not no_equalize,
    )


_ranges = (
    option(
        WHAT,
        "--method",
        type=click.Choice(get_args(Method)),
        default="auto",
        show_default=True,
        help="How activation ranges follow from the calibration data. auto chooses per tensor.",
    ),
    switch(WHAT, "--per-tensor", help="One scale per weight instead of one per output channel."),
)
_statistics = (
    option(
        WHAT,
        "--calibration",
        metavar="FILE",
        help="Take activation statistics from a file of onnxqp calibrate or --save-calibration, not from --data.",
    ),
    option(WHAT, "--save-calibration", metavar="FILE", help="Keep the activation statistics in a .npz file."),
)
_corrections = (
    switch(WHAT, "--no-bias-correction", help="Leave the mean errors of rounded weights in the outputs of layers."),
    switch(WHAT, "--no-equalize", help="Do not scale channels of neighbouring layers against each other."),
)
how = (*_ranges, *_corrections)
quantizing = gathered("how", quantize_options, *_ranges, *_statistics, *_corrections, *selection)
