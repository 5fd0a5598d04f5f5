"""Commands do without what they do not need, and what needs it finds it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from onnxqp.cli import main

assert main(["inspect", sys.argv[1], "--json"]) == 0
assert "onnx_ir" in sys.modules
assert "sympy.core" not in sys.modules
import onnx_ir

assert str(onnx_ir.SymbolicDim("n") + 1) == "n + 1"
assert onnx_ir.SymbolicDim("max(a, b)") * 2 is not None
assert "sympy.core" in sys.modules
"""


def test_symbolic_arithmetic_loads_when_it_is_wanted(root: Path) -> None:
    model = root / "sample_models" / "residual_cnn.onnx"
    subprocess.run([sys.executable, "-c", PROGRAM, str(model)], check=True, stdout=subprocess.DEVNULL, timeout=60)
