"""Random graphs of convolutions and of attention through the command line: done, or one of our errors."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxqp import model as files
from onnxqp.cli import main

sys.path.insert(0, str(Path(__file__).parents[1] / "prune"))
from test_random_graphs import Image, Sequence

EXAMPLES = int(os.environ.get("ONNXQP_FUZZ_GRAPHS", "12"))
ALLOWED = (0, 1, 5)  # a graph of random weights may have nothing to prune or to quantize


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_graphs_end_in_the_table_of_exit_codes(tmp_path: Path, data: st.DataObject) -> None:
    graph = data.draw(st.sampled_from([Image, Sequence]))(data)
    for _ in range(data.draw(st.integers(1, 6))):
        graph.step()
    outputs = graph.finish() if isinstance(graph, Image) else [graph.b.linear(graph.x, graph.c, 3)]
    path = tmp_path / "m.onnx"
    path.write_bytes(files.to_bytes(graph.b.model(*outputs)))
    common = ("--target", "x64-avx2", "--samples", "3", "--no-validate", "--force")
    for command in (("quantize", str(path)), ("prune", str(path), "--ratio", "0.5")):
        assert main((*command, *common)) in ALLOWED
    assert {file.name for file in tmp_path.iterdir()} <= {"m.onnx", "m.int8.onnx", "m.pruned.onnx"}
