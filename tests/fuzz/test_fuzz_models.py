"""A time-bounded run of the mutations, in a process of its own that may die.

`ONNXQP_FUZZ_SECONDS` makes it longer, `ONNXQP_FUZZ_SEED` other: ten thousand files are some twenty minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SECONDS = float(os.environ.get("ONNXQP_FUZZ_SECONDS", "12"))
SEED = os.environ.get("ONNXQP_FUZZ_SEED", "0")


def test_whatever_is_in_a_model_file_ends_in_the_table_of_exit_codes(tmp_path: Path) -> None:
    mark = tmp_path / "number"
    ran = subprocess.run(
        [sys.executable, HERE / "mutate.py", "--seconds", str(SECONDS), "--seed", SEED, "--mark", mark],
        capture_output=True,
        text=True,
        timeout=SECONDS + 300,
        check=False,
    )
    assert ran.returncode in (0, 1), (
        f"died with {ran.returncode} on file {mark.read_text()} of seed {SEED}: {ran.stderr}"
    )
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["faults"] == []
    assert found["files"] >= 2 * SECONDS / 3, "too few files to mean anything"
    assert found["slowest"][0] < 30
    assert {"0", "3"} <= found["codes"].keys(), "mutations that break all or nothing test nothing"
