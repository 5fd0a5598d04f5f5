"""Gates."""

from __future__ import annotations

from onnxqp.cli.options.declare import GATE, gathered, option
from onnxqp.cli.parameters import Number, Size
from onnxqp.options import Gates

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
