"""What a user can ask for, as frozen records: one field per option of the command line, same names, same defaults.

The command line and the configuration file both end in these records; every public function takes them. Nothing here
imports more than the standard library, so that `--help` stays fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

TargetName: TypeAlias = Literal["auto", "x64-avx2", "x64-vnni", "arm64", "portable"]
Method: TypeAlias = Literal["auto", "minmax", "moving-average", "percentile", "entropy", "mse"]
Allocation: TypeAlias = Literal["auto", "uniform", "global"]
Criterion: TypeAlias = Literal[
    "auto", "l1", "l2", "geometric-median", "bn-scale", "mean-activation", "activation", "reconstruction", "random"
]
SAMPLED: tuple[Criterion, ...] = ("mean-activation", "activation", "reconstruction")  # criteria that run the model
Recover: TypeAlias = Literal["auto", "none", "bias", "least-squares"]


@dataclass(frozen=True)
class Selection:
    """Which nodes to touch. A rule on the node's name beats one on its type; without rules every node is chosen."""

    include: tuple[str, ...] = ()  # globs on node names
    exclude: tuple[str, ...] = ()
    op_types: tuple[str, ...] = ()

    def idle(self, nodes: Iterable[tuple[str, str]]) -> list[str]:
        """The rules, as options, that fit none of the `nodes`, which are names with operator types."""
        names, types = zip(*nodes, strict=True) if (nodes := list(nodes)) else ((), ())
        patterns = [("--include", each) for each in self.include] + [("--exclude", each) for each in self.exclude]
        found = [f"{option} {each}" for option, each in patterns if not any(fnmatchcase(name, each) for name in names)]
        return found + [f"--op-type {each}" for each in self.op_types if each not in types]

    def reason_against(self, name: str, op_type: str) -> str | None:
        """Why the node is left alone, or None when it is chosen. `--exclude` wins over `--include`."""
        for pattern in self.exclude:
            if fnmatchcase(name, pattern):
                return f"excluded by --exclude {pattern}"
        if any(fnmatchcase(name, pattern) for pattern in self.include):
            return None
        if self.op_types:
            return None if op_type in self.op_types else "not among the types of --op-type"
        return "not matched by --include" if self.include else None


@dataclass(frozen=True)
class DataOptions:
    """Where inputs come from and how they are prepared."""

    data: str | None = None
    eval: str | None = None
    preprocess: str | Mapping[str, object] | None = None  # a preset, a file, or a table as data/preprocess.py reads it
    samples: int = 256
    batch_size: int = 1
    seed: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # --shape NAME:1,3,224,224


@dataclass(frozen=True)
class MeasureOptions:
    """How results are judged. `profile` and `save_profile` name files of measured decisions to read or to write.

    `trace`: look also where along the graph the error is made, as `debug` does, on a few of the evaluation inputs. The
    command line does so where the report is kept, since the screen shows nothing of it.
    """

    metric: str = "top1"
    output_name: str | None = None
    threads: int = 1
    validate: bool = True
    profile: str | None = None
    save_profile: str | None = None
    trace: bool = False


@dataclass(frozen=True)
class Gates:
    """Limits that a result must keep; None: not asked for. Missing one is exit code 1."""

    max_drop: float | None = None  # in the metric's unit: points for classifiers
    min_agreement: float | None = None  # percent
    min_speedup: float | None = None
    max_size: int | None = None  # bytes
    min_size_ratio: float | None = None


@dataclass(frozen=True)
class WriteOptions:
    """Where the result goes."""

    output: str | None = None
    force: bool = False
    dry_run: bool = False
    keep_failed: bool = False


@dataclass(frozen=True)
class QuantizeOptions:
    """How a model is quantized. `calibration` and `save_calibration` name files of statistics to read or to write."""

    method: Method = "auto"
    per_tensor: bool = False
    target: TargetName = "auto"
    selection: Selection = field(default_factory=Selection)
    calibration: str | None = None
    save_calibration: str | None = None
    bias_correction: bool = True
    equalize: bool = True


@dataclass(frozen=True)
class CalibrateOptions:
    """Where statistics go, and of what: of shard I of N, every Nth sample from the Ith on; or `merge`, other files."""

    output: str
    shard: tuple[int, int] = (1, 1)
    merge: tuple[str, ...] = ()
    force: bool = False


@dataclass(frozen=True)
class PruneOptions:
    """How a model is pruned: exactly one of `amounts`.

    `ratio`: share of the prunable channels to remove, 0 <= ratio < 1. `threshold`: remove channels whose score divided
    by their group's mean score is below it. `macs_ratio`, `params_ratio` and `latency_ratio`: share of the
    multiply-accumulates, parameters or measured time to keep. `round_to` None: the target's step (`auto`). `recover`
    auto: least squares with data of the user's, else the biases alone. `criterion` auto: reconstruction with such data,
    else l1. `allocation` auto: global by that criterion under a budget of arithmetic or time, else uniform. `steps`:
    cut and recover so many times on the way. `drop_layers`: how many whole layers go first, or as a share below 1 of
    those that can; with it no amount is needed. `pattern`: "structured" removes channels; "unstructured", "N:M" and
    "block" zero weights. `layers`: ratios of their own for groups of which a node has a name that matches a glob; the
    last that matches counts.
    """

    ratio: float | None = None
    threshold: float | None = None
    allocation: Allocation = "auto"
    criterion: Criterion = "auto"
    round_to: int | None = None
    min_channels: int = 1
    target: TargetName = "auto"
    selection: Selection = field(default_factory=Selection)
    recover: Recover = "auto"
    macs_ratio: float | None = None
    params_ratio: float | None = None
    latency_ratio: float | None = None
    steps: int = 1
    drop_layers: int | float | None = None
    pattern: str = "structured"
    layers: tuple[tuple[str, float], ...] = ()

    def ratio_of(self, nodes: Iterable[str]) -> float | None:
        """The ratio that `layers` gives to a group of these nodes, or None."""
        names = list(nodes)
        for glob, ratio in reversed(self.layers):
            if any(fnmatchcase(name, glob) for name in names):
                return ratio
        return None

    @property
    def asked(self) -> bool:
        """Whether any amount is given; so many layers are one."""
        return self.drop_layers is not None or any(value is not None for value in self.amounts.values())

    @property
    def amounts(self) -> dict[str, float | None]:
        """The ways to say how much goes, by the names of their options."""
        return {
            "ratio": self.ratio,
            "threshold": self.threshold,
            "macs-ratio": self.macs_ratio,
            "params-ratio": self.params_ratio,
            "latency-ratio": self.latency_ratio,
        }


@dataclass(frozen=True)
class CompressOptions:
    """How a model is pruned, recovered and quantized in one run.

    `prune` with an amount is done once; without one, the amount is searched. Its `latency_ratio` is no amount here:
    it and `size_ratio` are shares of the original's time and bytes that the whole may keep.
    """

    prune: PruneOptions = field(default_factory=PruneOptions)
    quantize: QuantizeOptions = field(default_factory=QuantizeOptions)
    latency_ratio: float | None = None
    size_ratio: float | None = None

    @property
    def target(self) -> TargetName:
        """The CPU that will run the result."""
        return self.quantize.target

    @property
    def selection(self) -> Selection:
        """Which nodes to touch."""
        return self.quantize.selection
