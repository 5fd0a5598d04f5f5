"""Judge candidates on calibration samples that were held back from making them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxqp.compress.goal import Closeness
from onnxqp.data import SampleSet
from onnxqp.evaluate.fidelity import FidelityMeter, declared_shapes
from onnxqp.evaluate.latency import Effort, measure
from onnxqp.evaluate.runnable import samples_in
from onnxqp.evaluate.scores import Doubles, are_directions, class_output, class_scores
from onnxqp.measurements import Measurements
from onnxqp.recover import kinds_of
from onnxqp.runtime import Session
from onnxqp.specs import Array, Feed

RARE = 2.0  # classes for each that samples show: from so many on, classes are told apart
LEAST = 5  # samples that can be divided
QUICK = Effort(warmup_runs=2, warmup_seconds=0.05, min_runs=15, min_seconds=0.3, floor_runs=7, max_seconds=4.0)
CAREFUL = Effort(warmup_runs=2, warmup_seconds=0.1, min_runs=31, min_seconds=1.0, floor_runs=9, max_seconds=20.0)
KEPT = 64 * 2**20  # bytes of the original's outputs that are kept
_TIMED = 4  # different inputs for the clock
_ONE = 1e-3  # how near to 1 probabilities add up


def split(samples: SampleSet, wanted: int, seed: int, kinds: Sequence[int] = ()) -> tuple[SampleSet, SampleSet]:
    """(to make candidates from, to choose among them): up to `wanted` each, never less than a third to choose by.

    `kinds`, one for each sample: those of a kind stay together, but for the last. What samples of a few kinds made is
    then judged on other kinds, as most of what it will see is. With too few to divide, or made-up ones, both are the
    whole.
    """
    count = len(samples)
    if count < LEAST or samples.source != "data":
        return samples, samples
    held = max(min(count - wanted, wanted), count // 3)
    order = np.random.default_rng([seed, 2]).permutation(count).tolist()
    if kinds:
        turns = {kind: turn for turn, kind in enumerate(dict.fromkeys(kinds[place] for place in order))}
        order.sort(key=lambda place: turns[kinds[place]])
    places = set(order[:held])
    making = [place for place in range(count) if place not in places]
    return samples.subset(making), samples.subset(sorted(places))


def rare_kinds(model: ir.Model, samples: SampleSet) -> tuple[int, ...]:
    """The predicted class of every sample, where these show less than half of the classes that there are."""
    if samples.source != "data":
        return ()
    kinds = kinds_of(model, samples)
    return kinds.of_feeds if kinds.rarity > RARE else ()


@dataclass
class HeldBack:
    """Samples to choose by, and the model that candidates are held against."""

    original: ir.Model
    feeds: Iterable[Feed]  # may be iterated over and over
    output_name: str | None = None
    threads: int = 1
    classes: bool = True  # whether the largest number of the judged output is a prediction, if its shape allows that
    measured: Measurements = field(default_factory=Measurements)
    baseline: Session | None = None  # the original as it was given, if that is another file
    _known: list[Mapping[str, Array]] = field(default_factory=list)
    _whole: bool = False

    @property
    def session(self) -> Session:
        """The original, open for all time: it is timed beside every candidate."""
        if self.baseline is None:
            self.baseline = Session(self.original, threads=self.threads)
        return self.baseline

    def holds_classes(self) -> bool:
        """Whether the original's output looks like class scores, on all samples: no embeddings, unless it was named."""
        named, all_ = self.output_name is not None, list[Doubles]()
        for feed, ours in self._references():
            output = ours[class_output(ours, self.output_name)]
            scores = class_scores(output, samples_in(feed), certain=named)
            if scores is None:
                return False
            all_.append(scores)
        widths = {scores.shape[1] for scores in all_}
        # scores of one sample may have length 1 by chance
        return named or len(widths) != 1 or not are_directions(np.concatenate(all_))

    def closeness(self, candidate: Session) -> Closeness:
        """Run a candidate on all samples."""
        meter = FidelityMeter(self.output_name, declared=declared_shapes(self.session))
        seen, lost = 0, list[Doubles]()
        for feed, ours in self._references():
            theirs = candidate.run(feed)
            meter.update(feed, ours, theirs)
            lost.append(_lost_confidence(feed, ours, theirs, self.output_name))
            seen += samples_in(feed)
        found = meter.result()
        noise = 0.0 if found.sqnr_db is None else 10 ** (-found.sqnr_db / 10)
        if found.top1_agreement is None or not self.classes:
            return Closeness(seen, None, None, noise)
        points = 100 * np.concatenate(lost)
        return Closeness(
            seen, found.top1_agreement, float(points.mean()), noise, float(points.std() / np.sqrt(len(points)))
        )

    def speedups(self, candidates: Sequence[Session], effort: Effort = QUICK) -> list[float]:
        """How many times as fast as the original each is, interleaved; the lower quartile of the times counts."""

        def race() -> list[float]:
            feeds = [feed for feed, _ in zip(self.feeds, range(_TIMED), strict=False)]
            times = measure([self.session, *candidates], feeds, effort=effort)
            first, *others = (float(np.quantile(each, 0.25)) for each in times)
            return [first / max(other, 1e-12) for other in others]

        return list(self.measured.of("speed of candidates", race, len(candidates)))

    def _references(self) -> Iterable[tuple[Feed, Mapping[str, Array]]]:
        """Every sample with the original's outputs, which are kept where they are small."""
        if self._whole:
            yield from zip(self.feeds, self._known, strict=True)
            return
        self._known, size = [], 0
        for feed in self.feeds:
            found = self.session.run(feed)
            size += sum(getattr(array, "nbytes", 0) for array in found.values())
            if size <= KEPT:
                self._known.append(found)
            yield feed, found
        self._whole = size <= KEPT


def _lost_confidence(
    feed: Feed, ours: Mapping[str, Array], theirs: Mapping[str, Array], output_name: str | None
) -> Doubles:
    """How much less the original believes in the candidate's predictions than in its own, by sample."""
    name, count, certain = class_output(ours, output_name), samples_in(feed), output_name is not None
    before = class_scores(ours[name], count, certain=certain)
    after = class_scores(theirs[name], count, certain=certain)
    if before is None or after is None or before.shape != after.shape:
        return np.zeros(count)
    belief = _probabilities(before)
    rows = np.arange(len(belief))
    return np.asarray(belief[rows, before.argmax(axis=1)] - belief[rows, after.argmax(axis=1)])


def _probabilities(scores: Doubles) -> Doubles:
    """Class scores as probabilities: as they are where they add up to 1, else their softmax."""
    if (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=_ONE):
        return scores
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
