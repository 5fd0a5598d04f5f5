"""Reports made by hand, as commands would make them, for the tests of views and of the command line."""

from __future__ import annotations

import dataclasses
from typing import Any

from onnxqp.report.records import (
    Accuracy,
    Calibration,
    Fidelity,
    FrontierPoint,
    Gate,
    Group,
    Latency,
    LatencyStats,
    Layer,
    Machine,
    ModelLatency,
    ModelSummary,
    NodeNote,
    OutputFidelity,
    PinnedGroup,
    Proof,
    Pruning,
    Quantization,
    Report,
    Size,
    TensorError,
)


def summary(path: str = "net.onnx", **changes: Any) -> ModelSummary:
    plain = ModelSummary(
        path=path,
        sha256="0" * 64,
        bytes=1_096_269,
        parameters=271_117,
        macs=41_000_000,
        nodes=73,
        opset=13,
        ir_version=8,
    )
    return dataclasses.replace(plain, **changes)


def stats(p50: float) -> LatencyStats:
    return LatencyStats(p50_ms=p50, p90_ms=p50 * 1.1, p99_ms=p50 * 1.5, mean_ms=p50 * 1.02, cv=0.05, n=200)


def latency(before: float = 1.2, after: float = 0.8, **changes: Any) -> Latency:
    plain = Latency(
        stats(before), stats(after), before / after, (before / after - 0.05, before / after + 0.05), 0.004, 1, 1
    )
    return dataclasses.replace(plain, **changes)


def report(command: str = "quantize", **changes: Any) -> Report:
    plain = Report(
        command=command,
        arguments={},
        passed=True,
        warnings=[],
        seconds={"load": 0.2, "measure": 3.1},
        versions={"onnxqp": "0.1.0", "onnx": "1.23.2"},
        machine=Machine("Some CPU", ["avx2"], 1, "x64-avx2"),
        input=summary(),
    )
    return dataclasses.replace(plain, **changes)


def quantized(**changes: Any) -> Report:
    """What `quantize` would report of a small classifier."""
    fields: dict[str, Any] = {
        "output": summary("net.int8.onnx", bytes=308_000, nodes=190),
        "size": Size(1_096_269, 308_000, 1_096_269 / 308_000),
        "latency": latency(),
        "accuracy": Accuracy("top1", 5000, 88.04, 87.9, 0.14, (-0.1, 0.4), 25),
        "fidelity": Fidelity(5000, 99.5, 0.98, 0.9995, 31.5, 0.42, {"y": OutputFidelity(0.98, 0.9995, 31.5, 0.42)}),
        "calibration": Calibration("data", 205, 51, "percentile"),
        "quantization": Quantization(
            nodes_quantizable=22,
            nodes_quantized=20,
            nodes_fused=19,
            weights_at_rest=1,
            left_float=[
                NodeNote("sm", "Softmax", "no integer kernel"),
                NodeNote("sm2", "Softmax", "no integer kernel"),
            ],
            unfused=[NodeNote("add_3", "Add", "two consumers")],
            weights_made_safe=3,
            bias_corrected=0,
        ),
    }
    return report("quantize", **(fields | changes))


def pruned(**changes: Any) -> Report:
    """What `prune` would report of the same."""
    fields: dict[str, Any] = {
        "output": summary("net.pruned.onnx", bytes=300_000, parameters=70_000, macs=11_000_000),
        "size": Size(1_096_269, 300_000, 1_096_269 / 300_000),
        "pruning": Pruning(
            channels_before=688,
            channels_after=344,
            macs_ratio=0.268,
            params_ratio=0.258,
            groups=[Group("g0", ["conv1.weight", "conv2.weight"], 16, 8, "l1")],
            pinned=[PinnedGroup("g1", ["fc.weight"], "reaches the graph output y")],
            proof=Proof(True, 3.1e-7, 1e-3),
        ),
    }
    return report("prune", **(fields | changes))


def benched() -> Report:
    return report("bench", input=None, models=[ModelLatency("a.onnx", stats(2.0)), ModelLatency("b.onnx", stats(1.0))])


def inspected(**changes: Any) -> Report:
    layer = Layer("conv1", "Conv", [1, 16, 32, 32], 448, 442_368)
    first = summary(operators={"Conv": 21, "Relu": 19}, layers=[layer])
    return report("inspect", **({"input": first} | changes))


MISSED = Gate("max-drop", 0.1, 0.14, False)
KEPT = Gate("max-size", 500_000, 308_000, True)


def searched(**changes: Any) -> Report:
    """What `compress` would report of a search: two candidates that nothing beats, one that others beat."""
    points = [
        FrontierPoint(1.5, {"weights": "float"}, False, agreement=99.5, size_ratio=1.5),
        FrontierPoint(1.2, {"weights": "float"}, False, agreement=97.0, size_ratio=1.5),
        FrontierPoint(3.0, {"weights": "int8"}, True, agreement=98.0, size_ratio=6.0),
    ]
    return dataclasses.replace(pruned(), **({"command": "compress", "frontier": points} | changes))


def traced(**changes: Any) -> Report:
    """What `debug` would report."""
    errors = [
        TensorError("relu1", "Relu_1", 41.0, "rounding", 1),
        TensorError("relu2", "Relu_2", 20.0, "clipping", 2, clipped=0.1),
        TensorError("relu3", "Relu_3", None, "none", 3),
    ]
    return report("debug", **({"tensors": errors} | changes))
