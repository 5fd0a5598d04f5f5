"""The report: frozen records whose field names are the JSON keys of the contract.

Sizes in bytes, times in the unit of the key, ratios as plain numbers. A field that is None does not apply and is
left out of the JSON. The screen, Markdown and JSON are views of one `Report`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Layer:
    """One node, for `inspect`."""

    name: str
    op_type: str
    shape: list[int | str | None] | None  # of the first output
    parameters: int
    macs: int | None


@dataclass(frozen=True)
class ModelSummary:
    path: str
    sha256: str
    bytes: int  # external data included
    parameters: int
    macs: int | None
    nodes: int
    opset: int
    ir_version: int
    operators: dict[str, int] | None = None  # nodes by operator type; `inspect` only
    layers: list[Layer] | None = None  # `inspect` only


@dataclass(frozen=True)
class Size:
    baseline_bytes: int
    candidate_bytes: int
    ratio: float  # baseline / candidate


@dataclass(frozen=True)
class Histogram:
    """How many runs took how long: `counts[i]` of them from `edges_ms[i]` to `edges_ms[i + 1]`, the last and longer."""

    edges_ms: list[float]
    counts: list[int]


@dataclass(frozen=True)
class LatencyStats:
    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    cv: float  # standard deviation / mean
    n: int
    histogram: Histogram | None = None


@dataclass(frozen=True)
class Latency:
    baseline: LatencyStats
    candidate: LatencyStats
    speedup: float  # baseline / candidate, medians
    speedup_ci: tuple[float, float]
    noise: float  # |A/A ratio - 1|: how far a model seems from itself
    threads: int
    batch: int


@dataclass(frozen=True)
class ModelLatency:
    path: str
    latency: LatencyStats


@dataclass(frozen=True)
class Accuracy:
    metric: str
    samples: int
    baseline: float
    candidate: float
    drop: float
    drop_ci: tuple[float, float]
    flips: int | None  # predictions that changed


@dataclass(frozen=True)
class OutputFidelity:
    cosine_min: float | None
    cosine_mean: float | None
    sqnr_db: float | None  # None: identical
    max_abs_diff: float


@dataclass(frozen=True)
class Fidelity:
    samples: int
    top1_agreement: float | None  # percent
    cosine_min: float | None
    cosine_mean: float | None
    sqnr_db: float | None
    max_abs_diff: float
    outputs: dict[str, OutputFidelity]


@dataclass(frozen=True)
class Calibration:
    source: str  # "data" or "synthetic"
    samples: int
    held_back: int
    method: str
    ranges: dict[str, tuple[float, float]] | None = None


@dataclass(frozen=True)
class NodeNote:
    node: str
    op_type: str
    reason: str


@dataclass(frozen=True)
class Quantization:
    nodes_quantizable: int
    nodes_quantized: int
    nodes_fused: int
    weights_at_rest: int
    left_float: list[NodeNote]
    unfused: list[NodeNote]
    weights_made_safe: int
    bias_corrected: int
    weights_packed: int | None = None  # of those in int8: four bits each in the file


@dataclass(frozen=True)
class Group:
    id: str
    members: list[str]
    before: int
    after: int
    score_kind: str


@dataclass(frozen=True)
class PinnedGroup:
    id: str
    members: list[str]
    reason: str


@dataclass(frozen=True)
class Proof:
    checked: bool  # ran, and agreed
    max_abs_diff: float | None  # relative to (max - min) of the worst output of the masked model
    tolerance: float
    skipped_reason: str | None = None


@dataclass(frozen=True)
class Recovery:
    kind: str
    consumers: int
    rejected: int
    seconds: float


@dataclass(frozen=True)
class Sparsity:
    """What `--pattern` zeroed. `left`: layers that it left dense, and why."""

    pattern: str
    weights: int  # arrays with zeros
    elements: int  # of those
    zeros: int
    ratio: float  # zeros / elements
    packed: int  # weights whose zeros take no room in the file
    left: list[NodeNote]


@dataclass(frozen=True)
class DroppedLayer:
    """A residual branch or a layer of a chain that was bypassed."""

    id: str  # the node that makes what was bypassed
    members: list[str]  # nodes that are gone
    cost: float  # squared error of the worst output relative to its squared signal, as measured before the next went


@dataclass(frozen=True)
class Perforated:
    """Averages over space that are taken over fewer places, for nodes in front of them compute no others."""

    means: list[str]  # the nodes that average
    members: list[str]  # nodes whose strides have grown
    steps: list[int]  # one place of so many is left, along each axis of space
    cost: float  # squared error of the worst output relative to its squared signal


@dataclass(frozen=True)
class Narrowed:
    """Images that are cut at their ends, for only averages look at them as a whole."""

    input: str
    size: list[int]  # in space
    kept: list[int]  # from the beginning of each axis
    means: list[str]  # the nodes that average
    cost: float  # squared error of the worst output relative to its squared signal


@dataclass(frozen=True)
class Pruning:
    channels_before: int  # of the prunable groups
    channels_after: int
    macs_ratio: float | None  # after / before
    params_ratio: float  # after / before
    groups: list[Group]
    pinned: list[PinnedGroup]
    proof: Proof | None = None
    recovery: Recovery | None = None
    sparsity: Sparsity | None = None
    dropped: list[DroppedLayer] | None = None
    perforated: list[Perforated] | None = None
    narrowed: list[Narrowed] | None = None


@dataclass(frozen=True)
class TensorError:
    """The error of one value of a candidate.

    `cause`, what most of it is: "rounding" of weights and activations, "clipping" to the calibrated range,
    "saturation" of integer kernels, "inherited" from `source`, "not finite", or "none". `place` counts along the graph.
    """

    name: str
    node: str  # that makes it; empty for an input
    sqnr_db: float | None  # None: identical
    cause: str
    place: int
    source: str | None = None
    local_sqnr_db: float | None = None  # of the error made here
    clipped: float | None = None  # share of the elements beyond the range, 0..1


@dataclass(frozen=True)
class Region:
    """What one part of a model costs when it alone is quantized (`quantize:NODE`) or cut in half (`prune:GROUP`).

    `unit` of the cost: points of the metric where there are labels, else the squared error of the worst output
    relative to its squared signal.
    """

    id: str
    members: list[str]
    cost: float  # higher is worse
    unit: str
    sqnr_db: float | None = None  # of the outputs; None: identical


@dataclass(frozen=True)
class Gate:
    name: str
    limit: float
    value: float
    passed: bool


@dataclass(frozen=True)
class FrontierPoint:
    """One candidate that a search has judged. `speedup` is measured where it was, else predicted from the costs."""

    speedup: float
    settings: dict[str, Any]
    chosen: bool
    accuracy: float | None = None  # in the metric's unit
    agreement: float | None = None  # percent
    size_ratio: float | None = None
    sqnr_db: float | None = None  # where no output holds class scores
    kept: bool | None = None  # whether it keeps what is asked, as `choice` says


@dataclass(frozen=True)
class Machine:
    cpu: str
    features: list[str]
    threads: int
    target: str


@dataclass(frozen=True)
class Report:
    """What one command did. `passed` is false when a gate was missed."""

    command: str
    arguments: dict[str, Any]
    passed: bool
    warnings: list[str]
    seconds: dict[str, float]
    versions: dict[str, str]
    machine: Machine
    peak_memory_bytes: int | None = None
    input: ModelSummary | None = None
    output: ModelSummary | None = None
    size: Size | None = None
    latency: Latency | None = None
    accuracy: Accuracy | None = None
    fidelity: Fidelity | None = None
    calibration: Calibration | None = None
    quantization: Quantization | None = None
    pruning: Pruning | None = None
    frontier: list[FrontierPoint] | None = None
    choice: str | None = None  # why one of them was taken, in words
    models: list[ModelLatency] | None = None
    tensors: list[TensorError] | None = None
    regions: list[Region] | None = None
    gates: list[Gate] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of the contract: `schema_version` first, absent keys left out, numbers finite."""
        return {"schema_version": SCHEMA_VERSION, **_plain(self)}


def _plain(value: Any) -> Any:
    """Records to dictionaries, None dropped; a number that JSON cannot hold (inf, nan) counts as absent."""
    if is_dataclass(value):
        pairs = ((f.name, _plain(getattr(value, f.name))) for f in fields(value))
        return {name: item for name, item in pairs if item is not None}
    if isinstance(value, Mapping):
        pairs = ((str(key), _plain(item)) for key, item in value.items())
        return {name: item for name, item in pairs if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
