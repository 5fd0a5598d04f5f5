"""Where the result goes."""

from __future__ import annotations

from onnxqp.cli.options.declare import WRITE, gathered, option, switch
from onnxqp.options import WriteOptions

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
