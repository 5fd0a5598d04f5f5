"""The command line. It holds no logic: each command is a few lines over one public function of onnxqp.api.

Nothing heavy is imported before a command runs, so that `onnxqp --help` answers at once.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

from onnxqp.cli import boundary
from onnxqp.cli.deferred import defer_sympy
from onnxqp.cli.program import onnxqp


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (errors.py lists them). `arguments` default to those of the process."""
    defer_sympy()
    if arguments is None:  # a process of our own: graphs are many small objects, and to look through them takes long
        gc.set_threshold(50_000, 10, 10)
    given = list(sys.argv[1:] if arguments is None else arguments)
    invocation = boundary.Invocation(json="--json" in given, debug="--debug" in given, alone=arguments is None)
    return boundary.run(
        lambda: onnxqp.main(given, prog_name="onnxqp", standalone_mode=False, obj=invocation), invocation
    )
