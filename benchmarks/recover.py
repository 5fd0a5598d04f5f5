"""What recovery, scores and allocation give back of a cut: accuracy against the share of multiply-accumulates left.

    python benchmarks/recover.py                                       # the sample models that have class labels
    python benchmarks/recover.py --zoo ../shared/zoo --only 'resnet*'  # models of a zoo, by its hooks
    python benchmarks/recover.py --shares 0.8 0.5 --seeds 5

One row per way of pruning and share. A cell is the mean over the seeds (which samples are drawn) of the top-1 accuracy
in percent, with half the distance between the best and the worst; samples are never labelled, evaluation data choose
nothing. Nothing is measured in time, so any load will do.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

import onnxqp
from onnxqp import DataOptions, MeasureOptions, PruneOptions
from onnxqp.options import Allocation, Criterion, Recover
from onnxqp.runtime import Session

ROOT = Path(__file__).resolve().parents[1]
WAYS: tuple[tuple[str, Recover, Criterion, Allocation], ...] = (
    ("cut alone", "none", "l1", "uniform"),
    ("bias", "bias", "l1", "uniform"),
    ("least squares", "least-squares", "l1", "uniform"),
    ("by activation", "least-squares", "activation", "uniform"),
    ("by reconstruction", "least-squares", "reconstruction", "uniform"),
    ("by activation, global", "least-squares", "activation", "global"),
    ("by reconstruction, global", "least-squares", "reconstruction", "global"),
)


def main() -> None:
    asked = _arguments()
    for name, model, data, evaluation in _subjects(asked.zoo, asked.only):
        held = _labelled(model, evaluation)
        print(f"\n{name}: {_accuracy(Session(model), held):.2f} % in float, {len(held)} labelled samples\n")
        print(f"| way | {' | '.join(f'MACs x{share:g}' for share in asked.shares)} |")
        print(f"|---|{'---:|' * len(asked.shares)}")
        for way, *settings in WAYS:
            cells = [_cell(model, data, held, settings, share, asked) for share in asked.shares]
            print(f"| {way} | {' | '.join(cells)} |", flush=True)


def _cell(
    model: Path,
    data: str,
    held: list[tuple[dict[str, np.ndarray], int]],
    settings: list[str],
    share: float,
    asked: argparse.Namespace,
) -> str:
    """Mean and spread over the seeds."""
    recover, criterion, allocation = settings
    options = PruneOptions(macs_ratio=share, recover=recover, criterion=criterion, allocation=allocation)  # type: ignore[arg-type]
    found = []
    for seed in range(asked.seeds):
        result = onnxqp.prune(
            onnxqp.load(model),
            options=options,
            data=DataOptions(data, samples=asked.samples, seed=seed),
            measure=MeasureOptions(validate=False),
        )
        assert result.model is not None
        found.append(_accuracy(Session(result.model), held))
    return f"{np.mean(found):.1f} ± {(max(found) - min(found)) / 2:.1f}"


def _accuracy(session: Session, held: list[tuple[dict[str, np.ndarray], int]]) -> float:
    hits = [int(np.argmax(next(iter(session.run(feed).values())).reshape(-1)) == label) for feed, label in held]
    return 100 * float(np.mean(hits))


def _labelled(model: Path, evaluation: str) -> list[tuple[dict[str, np.ndarray], int]]:
    """Every evaluation sample of one image, with its class."""
    from onnxqp.data import read

    session = Session(model)
    found = read(evaluation, session.inputs, preprocess=None, samples=None, seed=0, classes=None, labelled=True)
    return [(sample.feed, int(str(sample.label))) for sample in found.samples()]


def _subjects(zoo: Path | None, only: str) -> Iterator[tuple[str, Path, str, str]]:
    """Name, model, calibration data and evaluation data."""
    if zoo is not None:
        for path in sorted((zoo / "models").glob("*.onnx")):
            if fnmatchcase(path.stem, only):
                hook = f"{zoo / 'feeds.py'}:{path.stem}"
                yield path.stem, path, hook, f"{hook}__eval"
        return
    folder = ROOT / "sample_models"
    for path in sorted(folder.glob("*.onnx")):
        layout = "_nhwc" if path.stem.startswith("keras") else ""
        if fnmatchcase(path.stem, only):
            data = folder / "data"
            yield path.stem, path, str(data / f"calib{layout}.npz"), str(data / f"eval{layout}.npz")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, help="a folder as the zoo is laid out")
    parser.add_argument("--only", default="*", help="a glob on names of models")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.75, 0.5])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=256)
    return parser.parse_args()


if __name__ == "__main__":
    main()
