"""How to prune, recover and quantize in one run."""

from __future__ import annotations

import functools
from dataclasses import replace

from onnxqp.cli.options import prune, quantize
from onnxqp.cli.options.declare import WHAT, Command, gathered, option
from onnxqp.cli.options.nodes import selection
from onnxqp.cli.parameters import Number
from onnxqp.errors import UsageError
from onnxqp.options import CompressOptions, PruneOptions, QuantizeOptions, Selection, TargetName

_SHARED = ("include", "exclude", "op_type", "target")
_FILES = ("calibration", "save_calibration")  # statistics are of one model; here there are as many as candidates


def _shared_options(
    size_ratio: float | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    op_type: tuple[str, ...],
    target: TargetName,
) -> CompressOptions:
    nodes = Selection(include, exclude, op_type)
    return CompressOptions(
        PruneOptions(selection=nodes, target=target),
        QuantizeOptions(selection=nodes, target=target),
        size_ratio=size_ratio,
    )


def _joined(pruned: PruneOptions, quantized: QuantizeOptions, shared: CompressOptions) -> CompressOptions:
    """One record; raises UsageError for more than one amount to prune."""
    nodes, target = shared.quantize.selection, shared.target
    latency_ratio = pruned.latency_ratio
    pruned = replace(pruned, selection=nodes, target=target, latency_ratio=None)
    given = [f"--{name}" for name, value in pruned.amounts.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} were given", hint="give one, or none to have it searched")
    return CompressOptions(pruned, replace(quantized, selection=nodes, target=target), latency_ratio, shared.size_ratio)


def compressing(command: Command) -> Command:
    """Adds the options; the command gets them as one record `how`."""

    @functools.wraps(command)
    def call(pruned: PruneOptions, quantized: QuantizeOptions, shared: CompressOptions, **values: object) -> object:
        return command(how=_joined(pruned, quantized, shared), **values)

    inner = gathered(
        "shared",
        _shared_options,
        option(
            WHAT,
            "--size-ratio",
            type=Number(above=0, at_most=1),
            metavar="R",
            help="Share of the bytes to keep: a budget, as --min-size-ratio 1/R.",
        ),
        *selection,
    )(call)
    inner = gathered("quantized", quantize.quantize_options, *quantize.how, without=(*_SHARED, *_FILES))(inner)
    return gathered("pruned", prune.prune_options, *prune.how, without=(*_SHARED, "pattern"))(inner)
