"""Time-bounded runs of the mutations and of the node cases, each in a process of its own that may die.

`ONNXQP_FUZZ_SECONDS` makes all of them longer, `ONNXQP_FUZZ_SEED` another: ten thousand model files are some twenty
minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

HERE = Path(__file__).parent
SEED = os.environ.get("ONNXQP_FUZZ_SEED", "0")


def seconds(usual: float) -> float:
    return float(os.environ.get("ONNXQP_FUZZ_SECONDS", str(usual)))


def ran(script: str, limit: float, *arguments: str) -> Any:
    """What the script found; it may report faults (exit 1), and must not die."""
    found = subprocess.run(
        [sys.executable, HERE / script, "--seconds", str(limit), "--seed", SEED, *arguments],
        capture_output=True,
        text=True,
        timeout=limit + 300,
        check=False,
    )
    assert found.returncode in (0, 1), f"died with {found.returncode}, seed {SEED}: {found.stderr[-3000:]}"
    return json.loads(found.stdout.splitlines()[-1])


def test_whatever_is_in_a_model_file_ends_in_the_table_of_exit_codes(tmp_path: Path) -> None:
    mark, limit = tmp_path / "number", seconds(25)
    try:
        found = ran("mutate.py", limit, "--mark", str(mark))
    except AssertionError as error:
        raise AssertionError(f"on file {mark.read_text()}: {error}") from error
    assert found["faults"] == []
    assert found["files"] >= limit / 2, "too few files to mean anything"
    assert found["slowest"][0] < 60
    assert {"0", "3"} <= found["codes"].keys(), "mutations that break all or nothing test nothing"


def test_whatever_is_in_a_data_file_ends_in_the_table_of_exit_codes() -> None:
    limit = seconds(20)
    found = ran("mutate_data.py", limit)
    assert found["faults"] == []
    assert found["files"] >= limit
    assert found["slowest"][0] < 60
    assert {"0", "2", "4"} <= found["codes"].keys(), "mutations that break all or nothing test nothing"


@pytest.mark.skipif(onnx.__version__.startswith("1.21."), reason="onnx 1.21 makes its node cases without data")
def test_node_cases_of_onnx_keep_their_answers_or_are_refused() -> None:
    limit = seconds(40)
    found = ran("node_cases.py", limit)
    assert found["faults"] == []
    counts = found["counts"]
    assert counts["cases"] >= limit, "too few cases to mean anything"
    assert counts["normalize: same"] > counts["cases"] / 2
    assert counts["quantize with weights: same"], "nothing was quantized"
