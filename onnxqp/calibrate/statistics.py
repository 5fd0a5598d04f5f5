"""What calibration saw of the values of one model: histograms and channel means by name, from one run or several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import onnx_ir as ir

from onnxqp.calibrate.collect import Progress, collect
from onnxqp.calibrate.observers import ChannelMean, Histogram, together
from onnxqp.errors import DataError, UsageError
from onnxqp.specs import Feed


@dataclass(frozen=True)
class Part:
    """One run over samples. `shard` I/N: every Nth of the `drawn` samples, from the Ith on."""

    samples: int
    source: Literal["data", "synthetic"]
    shard: str = "1/1"
    drawn: int = 0
    seed: int = 0


@dataclass
class Statistics:
    """What the observers of one model saw, by value name. `model` is its hash (`store.model_hash`), where known.

    `scales`: by the name of a layer, log2 of what each of its channels was multiplied with before (equalisation); None
    where the model was left as it is.
    """

    model: str = ""
    histograms: dict[str, Histogram] = field(default_factory=dict)
    means: dict[str, ChannelMean] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    scales: Mapping[str, tuple[int, ...]] | None = None

    @property
    def samples(self) -> int:
        return sum(part.samples for part in self.parts)

    @property
    def source(self) -> Literal["data", "synthetic"]:
        """Synthetic as soon as a part of it is."""
        return "synthetic" if any(part.source == "synthetic" for part in self.parts) else "data"

    def merge(self, other: Statistics) -> None:
        """Take in what `other` has seen: the same as one run over the samples of both.

        Raises UsageError when it is of another model or saw other values, or holds a shard that is here already.
        """
        if self.model != other.model:
            raise UsageError("statistics of different models", hint="merge what was calibrated with one model file")
        if self.scales != other.scales:
            raise UsageError(
                "statistics of differently equalised channels",
                hint="calibrate all shards from one draw: the same --data, --samples and --seed",
            )
        if self.histograms.keys() != other.histograms.keys() or self.means.keys() != other.means.keys():
            raise UsageError(
                "statistics of different values", hint="calibrate all shards with one version of onnxqp and one target"
            )
        twice = [part for part in other.parts if part in self.parts and part.shard != "1/1"]
        if twice:
            raise UsageError(f"shard {twice[0].shard} is given twice", hint="give each shard once")
        for name, histogram in self.histograms.items():
            histogram.merge(other.histograms[name])
        for name, mean in self.means.items():
            mean.merge(other.means[name])
        self.parts += other.parts

    def missing_shards(self) -> list[str]:
        """The shards I/N that are not here though others of their run are."""
        runs: dict[tuple[str, int, int], set[str]] = {}
        for part in self.parts:
            _, total = part.shard.split("/")
            runs.setdefault((total, part.drawn, part.seed), set()).add(part.shard)
        every = ((f"{index}/{total}", found) for (total, _, _), found in runs.items() for index in _shards(total))
        return [shard for shard, found in every if shard not in found]

    def require_model(self, model: str) -> None:
        """Raise DataError when these are statistics of another model than that of this hash."""
        if self.model != model:
            raise DataError(
                f"the statistics are of another model (SHA-256 {self.model[:12]}…, not {model[:12]}…)",
                hint="calibrate this model: `onnxqp calibrate MODEL -o FILE`",
            )

    def require_scales(self, equalized: bool) -> None:
        """Raise DataError when these were taken with the other setting of equalisation."""
        if (self.scales is not None) != equalized:
            was, now = ("with", "without") if self.scales is not None else ("without", "with")
            raise DataError(
                f"the statistics were taken {was} equalised channels, and are wanted {now}",
                hint="leave --no-equalize out" if was == "with" else "pass --no-equalize, or calibrate again",
            )

    def require_values(self, names: Iterable[str], means: Iterable[str]) -> None:
        """Raise DataError when a histogram of `names` or a channel mean of `means` is not here."""
        absent = [name for name in names if name not in self.histograms]
        absent += [name for name in means if name not in self.means]
        if absent:
            raise DataError(
                f"the statistics lack {len(absent)} values that these options need, {absent[0]!r} among them",
                hint="calibrate again with this version of onnxqp",
            )


def _shards(total: str) -> range:
    return range(1, int(total) + 1)


def observe(
    model: ir.Model,
    samples: Iterable[Feed],
    values: Iterable[str],
    channels: Mapping[str, int],
    *,
    progress: Progress | None = None,
) -> Statistics:
    """Histograms of `values` and the means of `channels` (value name -> axis) over `samples`; see `collect`."""
    found = Statistics(histograms={name: Histogram() for name in values})
    found.means = {name: ChannelMean(axis) for name, axis in channels.items()}
    observers = together([*found.histograms.items(), *found.means.items()])
    count = collect(model, samples, observers, progress=progress) if observers else 0
    found.parts = [Part(count, "data")]
    return found
