"""How to calibrate."""

from __future__ import annotations

from onnxqp.cli.options.declare import WHAT, WRITE, gathered, option, switch
from onnxqp.cli.parameters import Shard
from onnxqp.options import CalibrateOptions


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
