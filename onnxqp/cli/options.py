"""The options, once each, gathered into the records of onnxqp.options before a command sees them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast, get_args

import click

from onnxqp.cli import settings
from onnxqp.cli.parameters import Number, Option, Shape, Shard, Size, Step
from onnxqp.cli.screen import Screen, screen_of
from onnxqp.errors import UsageError
from onnxqp.options import (
    Allocation,
    CalibrateOptions,
    Criterion,
    DataOptions,
    Gates,
    MeasureOptions,
    Method,
    PruneOptions,
    QuantizeOptions,
    Recover,
    Selection,
    TargetName,
    WriteOptions,
)

Command: TypeAlias = Callable[..., Any]
Decorator: TypeAlias = Callable[[Command], Command]


def gathered(keyword: str, build: Callable[..., object], *options: Decorator) -> Decorator:
    """Add `options` to a command, which gets their values as one record `keyword`, made by `build`.

    The parameters of `build` are named as the options are.
    """
    names = tuple(inspect.signature(build).parameters)

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def call(**values: object) -> object:
            record = build(**{name: values.pop(name) for name in names})
            return command(**{keyword: record}, **values)

        return functools.reduce(lambda inner, add: add(inner), reversed(options), cast(Command, call))

    return decorate


def option(section: str, *declarations: str, **attributes: Any) -> Decorator:
    return click.option(*declarations, cls=Option, section=section, **attributes)


def switch(section: str, *declarations: str, help: str) -> Decorator:
    return option(section, *declarations, is_flag=True, help=help)


# ---- what to do --------------------------------------------------------------------------------------------------

WHAT, WHICH, DATA, MEASURE, GATE, WRITE, SHOW = (
    "How",
    "Which nodes",
    "Data",
    "Measuring",
    "Gates (a missed one: exit code 1)",
    "Output",
    "Reporting",
)

target = option(
    WHICH,
    "--target",
    type=click.Choice(get_args(TargetName)),
    default="auto",
    show_default=True,
    help="The CPU that will run the result. auto looks at this one and measures; a named one decides by its table.",
)
_selection = (
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


def _quantize_options(
    method: Method,
    per_tensor: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    op_type: tuple[str, ...],
    target: TargetName,
    calibration: str | None,
    save_calibration: str | None,
    no_bias_correction: bool,
    no_equalize: bool,
) -> QuantizeOptions:
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


quantizing = gathered(
    "how",
    _quantize_options,
    option(
        WHAT,
        "--method",
        type=click.Choice(get_args(Method)),
        default="auto",
        show_default=True,
        help="How activation ranges follow from the calibration data. auto chooses per tensor.",
    ),
    switch(WHAT, "--per-tensor", help="One scale per weight instead of one per output channel."),
    option(
        WHAT,
        "--calibration",
        metavar="FILE",
        help="Take activation statistics from a file of onnxqp calibrate or --save-calibration, not from --data.",
    ),
    option(WHAT, "--save-calibration", metavar="FILE", help="Keep the activation statistics in a .npz file."),
    switch(WHAT, "--no-bias-correction", help="Leave the mean errors of rounded weights in the outputs of layers."),
    switch(WHAT, "--no-equalize", help="Do not scale channels of neighbouring layers against each other."),
    *_selection,
)


def _calibrate_options(output: str, shard: tuple[int, int], merge: tuple[str, ...], force: bool) -> CalibrateOptions:
    return CalibrateOptions(output, shard, merge, force)


calibrating = gathered(
    "how",
    _calibrate_options,
    option(WRITE, "-o", "--output", metavar="FILE", required=True, help="The .npz file to write."),
    option(
        WHAT,
        "--shard",
        type=Shard(),
        metavar="I/N",
        default="1/1",
        show_default=True,
        help="Only every Nth of the drawn samples, from the Ith on: one of N runs, for --merge.",
    ),
    option(
        WHAT,
        "--merge",
        metavar="FILE...",
        multiple=True,
        help="Merge files of one model into one, as if all their samples had been seen in one run.",
    ),
    switch(WRITE, "--force", help="Replace an existing output."),
)


def _prune_options(
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
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    op_type: tuple[str, ...],
    target: TargetName,
) -> PruneOptions:
    how = PruneOptions(
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
    )
    given = [f"--{name}" for name, value in how.amounts.items() if value is not None]
    if len(given) != 1:
        every = ", ".join(f"--{name}" for name in how.amounts)
        problem = f"{' and '.join(given)} were given" if given else f"none of {every} was given"
        raise UsageError(problem, hint="give exactly one, for example --ratio 0.5 to remove half the channels")
    return how


pruning = gathered(
    "how",
    _prune_options,
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
        default="uniform",
        show_default=True,
        help="uniform: the same ratio in every group. global: all channels compete; measured scores count per "
        "multiply-accumulate.",
    ),
    option(
        WHAT,
        "--criterion",
        type=click.Choice(get_args(Criterion)),
        default="auto",
        show_default=True,
        help="A channel's score: the norm of its filters (l1, l2); what its readers lose without it, as it is "
        "(activation) or after the best refit of the others (reconstruction). auto: activation with --data, else l1.",
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
        help="Refit what reads cut channels to what it computed before, on unlabelled samples. auto: least-squares "
        "with --data, bias without.",
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
    *_selection,
)


# ---- data and measuring ---------------------------------------------------------------------------------------------


def _data_options(
    data: str | None,
    eval: str | None,
    preprocess: str | None,
    samples: int,
    batch_size: int,
    seed: int,
    shape: tuple[tuple[str, tuple[int, ...]], ...],
) -> DataOptions:
    return DataOptions(data, eval, settings.preprocessing(preprocess), samples, batch_size, seed, _shapes(shape))


def _shapes(given: Sequence[tuple[str, tuple[int, ...]]]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, sizes in given:
        if shapes.setdefault(name, sizes) != sizes:
            raise UsageError(f"--shape gives {name} twice", hint="give each input one shape")
    return shapes


_data = option(
    DATA,
    "--data",
    metavar="SPEC",
    help="Unlabelled inputs for calibration and fidelity: a folder of images, .npz (keys are input names), .npy, a "
    "folder of .npz or of test_data_set_*, or file.py:function. Without it inputs are synthesised, with a warning.",
)
_preprocess = option(
    DATA,
    "--preprocess",
    metavar="SPEC",
    help="How images become inputs: a preset (below), a preprocessor_config.json, or a [preprocess.NAME] table of the "
    "configuration. Without it a warning, and imagenet for 3 channels, unit for 1.",
)
_samples = option(
    DATA,
    "--samples",
    type=click.IntRange(min=1),
    metavar="N",
    default=256,
    show_default=True,
    help="How many samples to draw from the data.",
)
_batch_size = option(
    DATA,
    "--batch-size",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="How many samples to run at once.",
)
_seed = option(
    DATA,
    "--seed",
    type=click.IntRange(min=0),
    metavar="N",
    default=0,
    show_default=True,
    help="The seed of every random choice.",
)
_shape = option(
    DATA,
    "--shape",
    type=Shape(),
    metavar="NAME:1,3,224,224",
    multiple=True,
    help="Fix a symbolic input shape for synthetic inputs and measuring; the written model keeps its own. Repeatable.",
)
_eval = option(
    DATA,
    "--eval",
    metavar="SPEC",
    help="Evaluation inputs, in the same forms. With labels: accuracy. Without: fidelity on them.",
)
data = gathered("data", _data_options, _data, _eval, _preprocess, _samples, _batch_size, _seed, _shape)


def _bench_data(
    data: str | None,
    preprocess: str | None,
    samples: int,
    batch_size: int,
    seed: int,
    shape: tuple[tuple[str, tuple[int, ...]], ...],
) -> DataOptions:
    return DataOptions(data, None, settings.preprocessing(preprocess), samples, batch_size, seed, _shapes(shape))


feeds = gathered("data", _bench_data, _data, _preprocess, _samples, _batch_size, _seed, _shape)

_threads = option(
    MEASURE,
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="Intra-op threads of the measuring sessions.",
)
_judging = (
    option(
        MEASURE,
        "--metric",
        metavar="top1|top5|file.py:function",
        default="top1",
        show_default=True,
        help="A function takes the list of output dicts and the list of labels, and returns one number, higher is "
        "better.",
    ),
    option(MEASURE, "--output-name", metavar="NAME", help="The output that holds the class scores; default the first."),
    _threads,
)


def _judged(metric: str, output_name: str | None, threads: int) -> MeasureOptions:
    if metric not in ("top1", "top5") and ":" not in metric:
        raise UsageError(f"--metric: unknown metric {metric!r}", hint="use top1, top5 or file.py:function")
    return MeasureOptions(metric, output_name, threads)


def _measured(metric: str, output_name: str | None, threads: int, no_validate: bool) -> MeasureOptions:
    judged = _judged(metric, output_name, threads)
    return MeasureOptions(judged.metric, judged.output_name, judged.threads, validate=not no_validate)


judging = gathered("measure", _judged, *_judging)
measuring = gathered(
    "measure",
    _measured,
    *_judging,
    switch(
        MEASURE,
        "--no-validate",
        help="Skip the final latency, accuracy and fidelity measurements. The result is still verified.",
    ),
)
timing = gathered("measure", lambda threads: MeasureOptions(threads=threads), _threads)

gates = gathered(
    "gates",
    Gates,
    option(
        GATE,
        "--max-drop",
        type=Number(),
        metavar="X",
        help="The metric may fall by X at most (points, 0..100, for top1 and top5).",
    ),
    option(
        GATE,
        "--min-agreement",
        type=Number(at_least=0, at_most=100),
        metavar="PCT",
        help="At least PCT percent of the top-1 predictions must stay.",
    ),
    option(
        GATE,
        "--min-speedup",
        type=Number(above=0),
        metavar="X",
        help="The result must be X times as fast.",
    ),
    option(GATE, "--max-size", type=Size(), metavar="BYTES|12MB", help="The result may have this size at most."),
    option(
        GATE,
        "--min-size-ratio",
        type=Number(above=0),
        metavar="X",
        help="The result must be X times smaller.",
    ),
)


# ---- output -------------------------------------------------------------------------------------------------------

writing = gathered(
    "write",
    WriteOptions,
    option(WRITE, "-o", "--output", metavar="PATH", help="Where to write; default beside the input."),
    switch(WRITE, "--force", help="Replace an existing output."),
    switch(WRITE, "--dry-run", help="Print the plan, with a reason for all that is left alone; write nothing."),
    switch(
        WRITE,
        "--keep-failed",
        help="Write the model although a gate was missed (never one that failed verification).",
    ),
)

_json = switch(SHOW, "--json", "as_json", help="The report as one JSON object, alone on stdout.")
_debug = switch(SHOW, "--debug", help="Show the traceback of an error.")


def _screen(as_json: bool, report: tuple[str, ...], quiet: bool, verbose: bool, config: None, debug: bool) -> Screen:
    return screen_of(as_json, report, quiet, verbose, debug)


reporting = gathered(
    "screen",
    _screen,
    _json,
    option(
        SHOW,
        "--report",
        metavar="PATH",
        multiple=True,
        help="Also write the report, by suffix: .json, .md, .html, .xml (JUnit). Repeatable.",
    ),
    option(
        SHOW,
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=settings.apply,
        help="The configuration: onnxqp.toml, or [tool.onnxqp] in pyproject.toml; found by itself in the current "
        "folder. The command line beats it.",
    ),
    switch(SHOW, "-q", "--quiet", help="No progress and no warnings on stderr."),
    switch(SHOW, "-v", "--verbose", help="Name every node and layer, not only kinds of them."),
    _debug,
)
plain = gathered("screen", lambda as_json, debug: screen_of(as_json, (), False, False, debug), _json, _debug)
