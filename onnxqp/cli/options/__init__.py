"""The options, once each, gathered into the records of onnxqp.options before a command sees them."""

from __future__ import annotations

from onnxqp.cli.options.calibrate import calibrating
from onnxqp.cli.options.compress import compressing
from onnxqp.cli.options.declare import (
    DATA,
    GATE,
    MEASURE,
    SHOW,
    WHAT,
    WHICH,
    WRITE,
    Command,
    Decorator,
    gathered,
    option,
    switch,
)
from onnxqp.cli.options.limits import gates
from onnxqp.cli.options.measure import judging, measuring, timing
from onnxqp.cli.options.nodes import selection, target
from onnxqp.cli.options.prune import pruning
from onnxqp.cli.options.quantize import quantizing
from onnxqp.cli.options.samples import data, feeds
from onnxqp.cli.options.show import plain, reporting
from onnxqp.cli.options.write import writing

__all__ = [
    "DATA",
    "GATE",
    "MEASURE",
    "SHOW",
    "WHAT",
    "WHICH",
    "WRITE",
    "Command",
    "Decorator",
    "calibrating",
    "compressing",
    "data",
    "feeds",
    "gates",
    "gathered",
    "judging",
    "measuring",
    "option",
    "plain",
    "pruning",
    "quantizing",
    "reporting",
    "selection",
    "switch",
    "target",
    "timing",
    "writing",
]
