"""Samples: which ones were drawn, and passing over them again and again without holding them in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from onnxqp.specs import Feed, InputSpec, Likeness

HELD_BACK_SHARE = 5  # one in five
HELD_BACK_MOST = 64
HELD_BACK_FROM = 5  # with fewer samples than this none is held back


@dataclass(frozen=True)
class Sample:
    """One set of inputs. `origin` names it for messages: a file, `eval.npz[17]`, `hook.py:load[3]`."""

    feed: Feed
    label: object | None
    origin: str


class Source(Protocol):
    """Numbered samples that can be read again on every pass."""

    @property
    def labels(self) -> Sequence[object] | None:
        """One per sample, or None for all."""

    @property
    def files(self) -> Sequence[Path] | None:
        """The file of each sample, where each has its own."""

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> Iterator[tuple[Feed, str]]:
        """Feed and origin of these samples; indices ascend. Raises DataError for what cannot be read."""


@dataclass(frozen=True, eq=False)
class SampleSet:
    """The samples that were drawn from a source: a description, not the data.

    An iterable of feeds: each pass reads (and checks) them anew, in the source's order; calibration makes several.
    `inputs` are the model's inputs, `warnings` what the user should hear once.
    """

    reader: Source
    indices: tuple[int, ...]
    inputs: tuple[InputSpec, ...]
    source: Literal["data", "synthetic"]
    description: str
    warnings: tuple[str, ...] = ()
    pictures: bool = False  # whether all inputs were made up like photographs

    @property
    def likeness(self) -> Likeness:
        """What the samples are like."""
        return "data" if self.source == "data" else "pictures" if self.pictures else "noise"

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Feed]:
        return self.feeds()

    def feeds(self) -> Iterator[Feed]:
        """One feed per sample: every input whole, most with a leading axis of 1."""
        for feed, _ in self.reader.read(self.indices):
            yield feed

    def samples(self) -> Iterator[Sample]:
        """The same with labels and origins."""
        labels = self.labels
        for place, (feed, origin) in enumerate(self.reader.read(self.indices)):
            yield Sample(feed, labels[place] if labels is not None else None, origin)

    @property
    def labels(self) -> list[object] | None:
        """One label per sample, in the order of `feeds`; None where there are none."""
        labels = self.reader.labels
        return None if labels is None else [labels[index] for index in self.indices]

    @property
    def can_batch(self) -> bool:
        """Whether samples may be stacked along the leading axis.

        That axis must be open in every input and, with several inputs, bear the same name in all of them: a leading 1
        is a batch fixed by the export, and a recurrent state has other things there (layers, directions).
        """
        leading = {spec.shape[0] if spec.shape else 1 for spec in self.inputs}
        alone = len(self.inputs) == 1 and leading == {None}
        return alone or (len(leading) == 1 and all(isinstance(dim, str) for dim in leading))

    def batches(self, size: int) -> Iterator[tuple[Feed, list[object]]]:
        """Feeds of up to `size` samples, with their labels (None where there are none), in the order of `feeds`.

        Only neighbours of equal shapes are stacked, so samples of different widths never are; and none at all where
        `can_batch` is false.
        """
        pending: list[Sample] = []
        for sample in self.samples():
            if pending and (len(pending) >= size or not (self.can_batch and _stackable(pending[-1].feed, sample.feed))):
                yield _stack(pending)
                pending = []
            pending.append(sample)
        if pending:
            yield _stack(pending)

    def subset(self, places: Sequence[int]) -> SampleSet:
        """The samples at these places (0 is the first), in the same order, without warnings."""
        chosen = tuple(self.indices[place] for place in sorted(places))
        return replace(self, indices=chosen, warnings=())

    def warned(self, *warnings: str) -> SampleSet:
        """The same with further warnings."""
        return replace(self, warnings=(*self.warnings, *warnings))


def _stackable(one: Feed, other: Feed) -> bool:
    return all(one[name].shape == other[name].shape and one[name].shape[0] == 1 for name in one)


def _stack(samples: Sequence[Sample]) -> tuple[Feed, list[object]]:
    labels = [sample.label for sample in samples]
    if len(samples) == 1:
        return samples[0].feed, labels
    return {name: np.concatenate([sample.feed[name] for sample in samples]) for name in samples[0].feed}, labels


def draw(total: int, samples: int | None, seed: int) -> tuple[int, ...]:
    """`samples` of `total` indices, ascending: a seeded uniform draw without replacement; None: all of them."""
    if samples is None or samples >= total:
        return tuple(range(total))
    chosen = np.random.default_rng(seed).choice(total, size=samples, replace=False)
    return tuple(sorted(int(index) for index in chosen))


def hold_back(samples: SampleSet, *, seed: int = 0) -> tuple[SampleSet, SampleSet]:
    """(calibration, held): min(64, 20 %) of the samples, a seeded draw, are kept from calibration for fidelity.

    With fewer than 5 samples both are the whole set, and a warning says so. Warnings stay with the first set.
    """
    count = len(samples)
    if count < HELD_BACK_FROM:
        reused = samples.warned(
            f"only {count} samples: the inputs of calibration also measure fidelity, which flatters it"
        )
        return reused, replace(samples, warnings=())
    held = min(HELD_BACK_MOST, count // HELD_BACK_SHARE)
    places = np.random.default_rng([seed, 1]).choice(count, size=held, replace=False)
    chosen = {int(place) for place in places}
    rest = [place for place in range(count) if place not in chosen]
    return replace(samples.subset(rest), warnings=samples.warnings), samples.subset(sorted(chosen))


def overlap(calibration: SampleSet, evaluation: SampleSet) -> int:
    """How many evaluation samples have the same content as some calibration sample.

    Content is the bytes of the files where both sets have one file per sample, else those of the feeds. Reads both.
    """
    one, other = _files(calibration), _files(evaluation)
    if one is not None and other is not None:
        sizes = {path.stat().st_size for path in one}
        known = {_file_hash(path) for path in one}
        return sum(path.stat().st_size in sizes and _file_hash(path) in known for path in other)
    known = {_feed_hash(feed) for feed in calibration.feeds()}
    return sum(_feed_hash(feed) in known for feed in evaluation.feeds())


def _files(samples: SampleSet) -> list[Path] | None:
    files = samples.reader.files
    return None if files is None else [files[index] for index in samples.indices]


def _file_hash(path: Path) -> bytes:
    digest = blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()


def _feed_hash(feed: Feed) -> bytes:
    digest = blake2b(digest_size=16)
    for name in sorted(feed):
        array = feed[name]
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(str(array.tolist()).encode() if array.dtype.hasobject else np.ascontiguousarray(array).tobytes())
    return digest.digest()
