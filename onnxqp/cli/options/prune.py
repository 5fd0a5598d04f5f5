"""How to prune."""

from __future__ import annotations

import functools
from typing import Any, get_args

import click

from onnxqp.cli import settings
from onnxqp.cli.options.declare import WHAT, gathered, option
from onnxqp.cli.options.nodes import selection
from onnxqp.cli.parameters import Layers, Number, Step
from onnxqp.errors import UsageError
from onnxqp.options import Allocation, Criterion, PruneOptions, Recover, Selection, TargetName


def prune_options(
    ratio: float | None,
    threshold: float | None,
    macs_ratio: float | None,
    params_ratio: float | None,
    latency_ratio: float | None,
    allocation: Allocation,
    criterion: Criterion,
    round_to: int | None,
    min_channels: int,
    recover: Recover,
    steps: int,
    drop_layers: int | float | None,
    pattern: str = "structured",
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    op_type: tuple[str, ...] = (),
    target: TargetName = "auto",
) -> PruneOptions:
    """The record, whether an amount is given or not."""
    return PruneOptions(
        ratio,
        threshold,
        allocation,
        criterion,
        round_to,
        min_channels,
        target,
        Selection(include, exclude, op_type),
        recover,
        macs_ratio,
        params_ratio,
        latency_ratio,
        steps,
        drop_layers,
        pattern,
        settings.layer_ratios(),
    )


@functools.wraps(prune_options)
def _with_amount(**values: Any) -> PruneOptions:
    """The same; raises UsageError unless exactly one amount is given."""
    how = prune_options(**values)
    given = [f"--{name}" for name, value in how.amounts.items() if value is not None]
    enough = how.drop_layers is not None or ":" in how.pattern  # amounts of their own
    if len(given) > 1 or not (given or enough):
        every = ", ".join(f"--{name}" for name in how.amounts)
        problem = f"{' and '.join(given)} were given" if given else f"none of {every} was given"
        raise UsageError(problem, hint="give exactly one, for example --ratio 0.5 to remove half the channels")
    return how


how = (
    option(
        WHAT,
        "--ratio",
        type=Number(at_least=0, below=1),
        metavar="R",
        help="Share of the prunable channels to remove, 0 <= R < 1.",
    ),
    option(
        WHAT,
        "--threshold",
        type=Number(at_least=0),
        metavar="T",
        help="Remove the channels whose score divided by their group's mean score is under T.",
    ),
    option(
        WHAT,
        "--macs-ratio",
        type=Number(above=0, at_most=1),
        metavar="R",
        help="Share of the multiply-accumulates to keep.",
    ),
    option(
        WHAT,
        "--params-ratio",
        type=Number(above=0, at_most=1),
        metavar="R",
        help="Share of the parameters to keep.",
    ),
    option(
        WHAT,
        "--latency-ratio",
        type=Number(above=0, at_most=1),
        metavar="R",
        help="Share of the time of one inference to keep, measured on this machine.",
    ),
    option(
        WHAT,
        "--allocation",
        type=click.Choice(get_args(Allocation)),
        default="auto",
        show_default=True,
        help="uniform: the same ratio in every group. global: all channels compete; measured scores count per "
        "multiply-accumulate. auto: global with --macs-ratio or --latency-ratio and reconstruction, else uniform.",
    ),
    option(
        WHAT,
        "--criterion",
        type=click.Choice(get_args(Criterion)),
        default="auto",
        show_default=True,
        help="A channel's score. Of all weights that make or read it: the norm (l1, l2), or the distance to the "
        "others (geometric-median). The scale of its BatchNormalization (bn-scale). On samples: the mean magnitude "
        "that its readers see (mean-activation); what they lose without it, weights times activations as Wanda has it "
        "(activation); what the model's outputs lose after the best refit of the others, by OBS (reconstruction). Or "
        "chance (random). auto: reconstruction, on made-up pictures, too; l1 where a model without --data takes no "
        "pictures. Of single weights: activation with --data, else l1.",
    ),
    option(
        WHAT,
        "--round-to",
        type=Step(),
        metavar="N|auto",
        default="auto",
        show_default=True,
        help="Keep channel counts at multiples of N. auto: up to the target's step, within 12.5 % of the request; "
        "1 cuts exactly.",
    ),
    option(
        WHAT,
        "--min-channels",
        type=click.IntRange(min=1),
        metavar="N",
        default=1,
        show_default=True,
        help="Never leave a group fewer channels.",
    ),
    option(
        WHAT,
        "--recover",
        type=click.Choice(get_args(Recover)),
        default="auto",
        show_default=True,
        help="Refit what reads cut channels to what it computed before, on unlabelled samples. least-squares: all of "
        "its weights. bias: the mean and the scale of each output. auto: least-squares, on made-up pictures, too; none "
        "where a model without --data takes no pictures.",
    ),
    option(
        WHAT,
        "--steps",
        type=click.IntRange(min=1),
        metavar="N",
        default=1,
        show_default=True,
        help="Cut and recover so many times on the way to --ratio.",
    ),
    option(
        WHAT,
        "--drop-layers",
        type=Layers(),
        metavar="N",
        help="First remove N whole layers, or a share below 1 of those that can go: residual branches, and layers of "
        "chains whose input fits in place of their output; those whose removal costs least on samples. Needs no ratio.",
    ),
)
_pattern = option(
    WHAT,
    "--pattern",
    metavar="structured|unstructured|N:M|block",
    default="structured",
    show_default=True,
    help="structured: remove channels. unstructured: zero single weights, by --ratio, or by --threshold times "
    "the mean of their layer. N:M: keep N of every M neighbouring input channels. block: zero blocks of 4 output "
    "channels. Zeros shrink the file, but make nothing faster.",
)
pruning = gathered("how", _with_amount, *how, _pattern, *selection)
