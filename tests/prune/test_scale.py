"""Planning takes linear time."""

from __future__ import annotations

import time

import numpy as np
from prune_checks import Build

from onnxqp.model import from_proto
from onnxqp.options import PruneOptions
from onnxqp.prune import plan

NODES = 20_000


def test_a_graph_of_twenty_thousand_nodes_plans_in_ten_seconds() -> None:
    b = Build()
    x = b.conv(b.input(1, 3, 4, 4), 3, 16)
    count = 1
    while count + 6 < NODES:
        y = b.conv(b.op("Relu", b.conv(x, 16, 8)), 8, 8, 3, group=2)
        y = b.conv(b.op("Concat", y, b.op("Sigmoid", y), axis=1), 16, 16)
        x = b.op("Add", x, y)
        count += 7
    model = from_proto(b.proto(b.conv(x, 16, 4)))
    start = time.process_time()  # other tests may run beside this one
    made = plan(model, PruneOptions(ratio=0.5), step=8)
    seconds = time.process_time() - start
    assert len(made.grouping.groups) > NODES // 7
    assert all(made.chosen)
    assert seconds < 10
    assert np.isfinite([bundle.score for bundles in made.chosen for bundle in bundles]).all()
