"""The calibration loop: run samples through a model and show its inner values to observers.

Arrays are observed and dropped at once. Which values one session returns is bounded in bytes, so that peak memory
depends on the model and the size of one sample, never on the number of samples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import onnx_ir as ir

from onnxqp.calibrate.observers import Observer
from onnxqp.errors import DataError
from onnxqp.graph import iterate
from onnxqp.runtime import AHEAD_TWICE_BYTES, Session
from onnxqp.specs import Feed

Progress: TypeAlias = Callable[[int, int | None], None]

TAP_BYTES = 256 * 2**20  # what the taps of one session may return for one sample
LARGE_THREADS = 2  # of an inference whose results are too large for two of them side by side: the same bits
UNKNOWN_BYTES = 4 * 2**20  # assumed of a value whose shape cannot be told before running


def collect(
    model: ir.Model,
    samples: Iterable[Feed],
    observers: Mapping[str, Observer],
    *,
    budget: int = TAP_BYTES,
    progress: Progress | None = None,
) -> int:
    """Show every observer, named for a value of `model`, that value over all `samples`; the number of samples.

    `samples` is iterated once for each session; a one-shot iterator is read into a list first. Values may be inputs,
    outputs or inner values of any float dtype. Raises DataError when there is no sample, when a sample does not fit
    the model, or when an input holds NaN or infinity.
    """
    feeds = list(samples) if isinstance(samples, Iterator) else samples
    begun = iter(feeds)
    first = next(begun, None)
    if first is None:
        raise DataError("no calibration samples", hint="pass inputs with --data")
    again: Iterable[Feed] = itertools.chain([first], begun)  # reading may be slow: the first pass goes on from here
    fed = [str(value.name) for value in model.graph.inputs if value.name in observers]
    inner = [name for name in observers if name not in fed]
    sizes = value_bytes(model, first)
    pending = split(inner, sizes, budget) or [[]]
    count = done = 0
    while pending:
        taps = pending.pop(0)
        report = progress if not pending and not done else None  # one pass: tell every sample
        large = sum(sizes.get(name, UNKNOWN_BYTES) for name in taps) > AHEAD_TWICE_BYTES
        threads = LARGE_THREADS if large else 1
        seen = _observe(model, again, taps, fed if not done else [], observers, 2 * budget, threads, report)
        again = feeds
        if seen is None:  # shapes were not known beforehand, and this is too much at once
            half = len(taps) // 2
            pending[:0] = [taps[:half], taps[half:]]
            continue
        count, done = seen, done + 1
        if progress and report is None:
            progress(done, done + len(pending))
    return count


def _observe(
    model: ir.Model,
    feeds: Iterable[Feed],
    taps: Sequence[str],
    fed: Sequence[str],
    observers: Mapping[str, Observer],
    limit: int,
    threads: int,
    report: Progress | None,
) -> int | None:
    """One pass over the samples; how many, or None when the first one shows that `taps` exceed `limit` bytes."""
    calm = {"session.intra_op.allow_spinning": "0"}  # the cores are for whoever observes, too
    session = Session(model, taps=taps, alone=True, threads=threads, brief=True, options=calm) if taps else None
    count = 0
    checked = (_check(feed, place) for place, feed in enumerate(feeds))
    for feed, results in session.run_each(checked, taps) if session else ((feed, {}) for feed in checked):
        if count == 0 and len(taps) > 1 and sum(array.nbytes for array in results.values()) > limit:
            return None
        samples = samples_in(feed)
        for name in taps:
            observers[name].update(results.pop(name), samples)
        for name in fed:
            observers[name].update(feed[name], samples)
        count += 1
        if report:
            report(count, None)
    return count


def samples_in(feed: Feed) -> int:
    """How many samples are stacked in a feed: the length of the first axis, where every input has the same one."""
    lengths = {array.shape[0] if array.ndim else 1 for array in feed.values()}
    return max(lengths.pop(), 1) if len(lengths) == 1 else 1


@runtime_checkable
class Counted(Protocol):
    """Feeds that know how many samples they hold."""

    @property
    def total(self) -> int: ...


@runtime_checkable
class Selectable(Protocol):
    """Feeds that can give those of some samples without reading the others."""

    @property
    def total(self) -> int: ...

    def at(self, places: Sequence[int]) -> Iterable[Feed]: ...


def sample_count(feeds: Iterable[Feed]) -> int:
    """How many samples there are; feeds that do not know it are read."""
    return feeds.total if isinstance(feeds, Counted) else sum(map(samples_in, feeds))


def even_places(total: int, count: int) -> range | list[int]:
    """The places of so many samples at most, from all over: sources are often sorted."""
    return range(total) if total <= count else [place * total // count for place in range(count)]


@dataclass(frozen=True)
class Chosen:
    """The feeds of the samples at some places, or with `others` of those at all other places.

    A batch of which some are chosen is cut where the model takes any batch; else its first sample speaks for all.
    """

    model: ir.Model
    feeds: Iterable[Feed]
    places: Container[int]
    others: bool = False

    def __iter__(self) -> Iterator[Feed]:
        if isinstance(self.feeds, Selectable):
            chosen = [place for place in range(self.feeds.total) if (place in self.places) != self.others]
            seen = 0
            for feed in self.feeds.at(chosen):
                yield _check(feed, chosen[seen])
                seen = min(seen + samples_in(feed), len(chosen) - 1)
            return
        place, open_ = 0, _takes_any_batch(self.model)
        for index, feed in enumerate(self.feeds):
            samples = samples_in(feed)
            inside = [i for i in range(samples) if ((place + i) in self.places) != self.others]
            place += samples
            if not inside or (not open_ and inside[0] != 0):
                continue
            _check(feed, index)
            if open_ and 0 < len(inside) < samples:
                yield {name: array[inside] for name, array in feed.items()}
            else:
                yield feed


def _takes_any_batch(model: ir.Model) -> bool:
    return not any(value.shape and isinstance(value.shape[0], int) for value in model.graph.inputs)


def first_samples(model: ir.Model, feeds: Iterable[Feed], count: int) -> Iterator[Feed]:
    """The feeds of the first `count` samples; a batch that holds more is cut where the model takes any batch."""
    left = count
    open_ = _takes_any_batch(model)
    for feed in feeds:
        samples = samples_in(feed)
        if open_ and samples > left:
            feed, samples = {name: array[:left] for name, array in feed.items()}, left
        yield feed
        left -= samples
        if left <= 0:
            return


def _check(feed: Feed, index: int) -> Feed:
    for name, array in feed.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise DataError(f"sample {index} holds NaN or infinity", where=f"input {name}", hint="clean the data")
    return feed


def split(names: Sequence[str], sizes: Mapping[str, int], budget: int) -> list[list[str]]:
    """Cut the list, in order, into runs of at most `budget` bytes (or a single value)."""
    groups: list[list[str]] = []
    room = -1
    for name in names:
        size = sizes.get(name, UNKNOWN_BYTES)
        if size > room or not groups:
            groups.append([])
            room = budget
        groups[-1].append(name)
        room -= size
    return groups


def value_bytes(model: ir.Model, feed: Feed) -> dict[str, int]:
    """Bytes of every value of known shape, symbolic dimensions taken from the inputs of one sample."""
    bound: dict[str, int] = {}
    for value in model.graph.inputs:
        if value.shape is not None and value.name in feed:
            pairs = zip(value.shape, feed[value.name].shape, strict=False)
            bound |= {str(dim): size for dim, size in pairs if not isinstance(dim, int)}
    sizes: dict[str, int] = {}
    for node in iterate(model):
        for value in node.outputs:
            if value.name and value.shape is not None:
                dims = [dim if isinstance(dim, int) else bound.get(str(dim)) for dim in value.shape]
                if None not in dims:
                    sizes[value.name] = 4 * math.prod(d for d in dims if d is not None)
    return sizes
