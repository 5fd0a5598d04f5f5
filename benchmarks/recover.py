"""What recovery, scores and allocation give back of a cut: accuracy against the share of multiply-accumulates left.

    python benchmarks/recover.py                                       # the sample models that have class labels
    python benchmarks/recover.py --zoo ../shared/zoo --only 'resnet*'  # models of a zoo, by its hooks
    python benchmarks/recover.py --shares 0.8 0.5 --seeds 5 --ways '*squares*'
    python benchmarks/recover.py --unseen                              # no labels: what the samples cannot show

One row per way of pruning, one column per share. A cell is the mean over the seeds (which samples are drawn) of the
top-1 accuracy in percent, with half the distance between the best and the worst; samples are never labelled, evaluation
data choose nothing. Nothing is measured in time, so any load will do.

`--unseen` is what choices are made by. The samples are parted by the class that the model finds in them: half of the
classes, another half with every seed, prune and recover, the samples of the other classes judge. A cell is then the
share of predictions that stay, in percent, and the squared error of the class scores relative to their variance.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import numpy.typing as npt

import onnxqp
from onnxqp import DataOptions, MeasureOptions, PruneOptions
from onnxqp.data import read
from onnxqp.options import Allocation, Criterion, Recover
from onnxqp.runtime import Session
from onnxqp.specs import Feed

ROOT = Path(__file__).resolve().parents[1]
WAYS: tuple[tuple[str, Recover, Criterion, Allocation], ...] = (
    ("cut alone", "none", "l1", "uniform"),
    ("cut alone, by reconstruction, global", "none", "reconstruction", "global"),
    ("bias", "bias", "l1", "uniform"),
    ("bias, by reconstruction, global", "bias", "reconstruction", "global"),
    ("least squares", "least-squares", "l1", "uniform"),
    ("least squares, by l2", "least-squares", "l2", "uniform"),
    ("least squares, by geometric-median", "least-squares", "geometric-median", "uniform"),
    ("least squares, by random", "least-squares", "random", "uniform"),
    ("least squares, by mean-activation", "least-squares", "mean-activation", "uniform"),
    ("least squares, by activation", "least-squares", "activation", "uniform"),
    ("least squares, by reconstruction", "least-squares", "reconstruction", "uniform"),
    ("least squares, global", "least-squares", "l1", "global"),
    ("least squares, by activation, global", "least-squares", "activation", "global"),
    ("least squares, by reconstruction, global", "least-squares", "reconstruction", "global"),
)
_SMALLEST = 1e-6  # of a probability, before its logarithm


@dataclass(frozen=True)
class Subject:
    """A model with unlabelled samples, and with labelled ones."""

    name: str
    model: Path
    data: str
    evaluation: str

    def feeds(self, spec: str, count: int | None, seed: int, *, labelled: bool) -> list[tuple[Feed, str]]:
        """Samples with their labels ("" without)."""
        inputs = Session(self.model).inputs
        found = read(spec, inputs, preprocess=None, samples=count, seed=seed, classes=None, labelled=labelled)
        return [(sample.feed, str(sample.label) if labelled else "") for sample in found.samples()]


def main() -> None:
    asked = _arguments()
    for subject in _subjects(asked.zoo, asked.only):
        judge = Unseen(subject, asked.samples) if asked.unseen else Labelled(subject, asked.samples, asked.judged)
        print(f"\n{subject.name}: {judge.title}\n")
        print(f"| way | {' | '.join(f'MACs x{share:g}' for share in asked.shares)} |")
        print(f"|---|{'---:|' * len(asked.shares)}")
        for way, *settings in WAYS:
            if fnmatchcase(way, asked.ways):
                cells = [_cell(subject, judge, settings, share, asked.seeds) for share in asked.shares]
                print(f"| {way} | {' | '.join(cells)} |", flush=True)


class Labelled:
    """Top-1 accuracy on evaluation data; samples are drawn anew for every seed."""

    def __init__(self, subject: Subject, samples: int, judged: int | None) -> None:
        self._subject, self._samples = subject, samples
        drawn = subject.feeds(subject.evaluation, judged, 0, labelled=True)
        self._held = [feed for feed, _ in drawn]
        self._labels = np.array([int(label) for _, label in drawn])
        (before,) = self.values(Session(subject.model), 0)
        self.title = f"{before:.2f} % in float, {len(drawn)} labelled samples"

    def data(self, seed: int) -> DataOptions:
        return DataOptions(self._subject.data, samples=self._samples, seed=seed)

    def values(self, session: Session, seed: int) -> list[float]:
        return [100 * float(np.mean(_scores(session, self._held).argmax(axis=1) == self._labels))]


class Unseen:
    """What stays of the predictions and of the scores for classes that were not among the samples."""

    def __init__(self, subject: Subject, samples: int) -> None:
        self._feeds = [feed for feed, _ in subject.feeds(subject.data, samples, 0, labelled=False)]
        self._known = _scores(Session(subject.model), self._feeds)
        self._classes = self._known.argmax(axis=1)
        self.title = f"{len(self._feeds)} samples of {len(np.unique(self._classes))} classes, half of them judge"

    def data(self, seed: int) -> list[Feed]:
        apart = self._apart(seed)
        return [feed for feed, away in zip(self._feeds, apart, strict=True) if not away]

    def values(self, session: Session, seed: int) -> list[float]:
        apart = self._apart(seed)
        known = self._known[apart]
        found = _scores(session, [feed for feed, away in zip(self._feeds, apart, strict=True) if away])
        same = float(np.mean(found.argmax(axis=1) == known.argmax(axis=1)))
        error = np.square(found - known).sum() / np.square(known - known.mean(axis=0)).sum()
        return [100 * same, float(error)]

    def _apart(self, seed: int) -> npt.NDArray[np.bool_]:
        """Which samples judge: two seeds in a row take turns with the same halves."""
        order = np.random.default_rng(seed // 2).permutation(np.unique(self._classes))
        half = order[: len(order) // 2] if seed % 2 else order[len(order) // 2 :]
        return np.isin(self._classes, half)


def _cell(subject: Subject, judge: Labelled | Unseen, settings: list[str], share: float, seeds: int) -> str:
    """Mean and spread over the seeds."""
    recover, criterion, allocation = settings
    options = PruneOptions(macs_ratio=share, recover=recover, criterion=criterion, allocation=allocation)  # type: ignore[arg-type]
    found = []
    for seed in range(seeds):
        result = onnxqp.prune(
            onnxqp.load(subject.model),
            options=options,
            data=judge.data(seed),
            measure=MeasureOptions(validate=False),
        )
        assert result.model is not None
        found.append(judge.values(Session(result.model), seed))
    return ", ".join(_spread(values) for values in zip(*found, strict=True))


def _spread(values: Sequence[float]) -> str:
    digits = 1 if max(values) > 2 else 3
    return f"{np.mean(values):.{digits}f} ± {(max(values) - min(values)) / 2:.{digits}f}"


def _scores(session: Session, feeds: Sequence[Feed]) -> npt.NDArray[np.float64]:
    """Class scores, one row per sample; probabilities as their logarithms."""
    rows = [np.asarray(next(iter(session.run(feed).values())), np.float64).reshape(-1) for feed in feeds]
    scores = np.stack(rows)
    if (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        scores = np.log(np.maximum(scores, _SMALLEST))
    return np.asarray(scores - scores.mean(axis=1, keepdims=True))


def _subjects(zoo: Path | None, only: str) -> Iterator[Subject]:
    if zoo is not None:
        for path in sorted((zoo / "models").glob("*.onnx")):
            if fnmatchcase(path.stem, only):
                hook = f"{zoo / 'feeds.py'}:{path.stem}"
                yield Subject(path.stem, path, hook, f"{hook}__eval")
        return
    folder = ROOT / "sample_models"
    for path in sorted(folder.glob("*.onnx")):
        layout = "_nhwc" if path.stem.startswith("keras") else ""
        if fnmatchcase(path.stem, only):
            data = folder / "data"
            yield Subject(path.stem, path, str(data / f"calib{layout}.npz"), str(data / f"eval{layout}.npz"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, help="a folder as the zoo is laid out")
    parser.add_argument("--only", default="*", help="a glob on names of models")
    parser.add_argument("--ways", default="*", help="a glob on the ways of pruning")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.75, 0.5])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--judged", type=int, help="labelled samples, drawn once; default all")
    parser.add_argument("--unseen", action="store_true", help="judge by classes that the samples lack, without labels")
    return parser.parse_args()


if __name__ == "__main__":
    main()
