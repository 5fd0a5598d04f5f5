"""What the nodes of a model take, one by one, as the profiler of onnxruntime sees them."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from onnxqp.runtime import Session, Source
from onnxqp.specs import Feed

_UNESCAPED = re.compile(  # an event of a profile that is no JSON
    r'"cat" : "Node","pid" :\d+,"tid" :\d+,"dur" :(?P<microseconds>\d+),"ts" :\d+,"ph" : "X",'
    r'"name" :"(?P<name>.*?)_kernel_time","args" : \{(?:(?!"cat" : ).)*?"op_name" : "(?P<operator>[^"]*)"',
    re.DOTALL,
)
_KERNEL = "_kernel_time"  # how the profiler ends the name of an event


@dataclass(frozen=True)
class KernelTime:
    """What one node of the optimised graph takes in one inference, in nanoseconds (the median of several)."""

    node: str
    op_type: str
    outputs: tuple[str, ...]
    nanoseconds: float


def kernel_times(source: Source, feeds: Sequence[Feed], *, seconds: float, threads: int = 1) -> list[KernelTime]:
    """Profile a model on some inputs, again and again for about so many seconds but three times at least.

    Names are those of the optimised graph: onnxruntime's passes append to those of the model, and what it adds itself
    has names of its own. The clock of its profiler has a resolution of one microsecond.
    """
    with tempfile.TemporaryDirectory(prefix="onnxqp-") as folder:
        dump = Path(folder) / "optimized.onnx"
        session = Session(source, threads=threads, dump=dump, profile=Path(folder) / "profile")
        runs, begun = 0, time.perf_counter()
        while runs < 4 or (time.perf_counter() - begun < seconds and runs < 1000):
            session.run(feeds[runs % len(feeds)])
            runs += 1
        kernels = list(_kernels(session.end_profiling().read_bytes()))
        graph = onnx.load_model(str(dump), load_external_data=False).graph
    outputs = {node.name: tuple(node.output) for node in graph.node}
    durations: dict[tuple[str, str], list[float]] = {}
    for name, op_type, microseconds in kernels:
        durations.setdefault((name, op_type), []).append(microseconds)
    return [
        KernelTime(node, op_type, outputs.get(node, ()), 1e3 * float(np.median(each)) * len(each) / runs)
        for (node, op_type), each in durations.items()
    ]


def _kernels(profile: bytes) -> Iterator[tuple[str, str, float]]:
    """The name, operator and microseconds of every run of a kernel. Older versions write names as they are.

    Every event has a line of its own, and what is not of interest is not read: a whole profile takes 30 MB as objects.
    """
    try:
        events = [_kernel(line) for line in profile.splitlines() if _KERNEL.encode() in line]
    except ValueError:
        for found in _UNESCAPED.finditer(profile.decode("utf-8", "surrogateescape")):
            yield found["name"], found["operator"], float(found["microseconds"])
        return
    yield from (event for event in events if event is not None)


def _kernel(line: bytes) -> tuple[str, str, float] | None:
    """Raises ValueError for what is no event."""
    event = json.loads(line.strip().rstrip(b","))
    if event.get("cat") != "Node" or not event["name"].endswith(_KERNEL):
        return None
    return event["name"].removesuffix(_KERNEL), event["args"].get("op_name", ""), float(event["dur"])
