"""What each step of quantization gains in accuracy, on a zoo: a table of output SQNR on samples that did not calibrate.

    python benchmarks/accuracy_steps.py                              # everything on integers; the table goes to stdout
    python benchmarks/accuracy_steps.py --placed --target x64-avx2   # only what the target's table puts on integers
    python benchmarks/accuracy_steps.py --only 'resnet*' --draws 3

Columns, each with all the steps before it: ranges by min-max alone; biases corrected; channels equalised; ranges chosen
by `auto`; weights rounded by the moments of what their layer reads. A cell is 10 log10(signal / error), in decibels,
the mean over the outputs (each at most 80) and over the draws of samples; beside it the gain over the cell before.
Outputs are those of this machine's kernels. Nothing is measured in time, so any load will do.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx_ir as ir

from onnxqp.model import load
from onnxqp.normalize import normalize
from onnxqp.options import QuantizeOptions, Selection, TargetName
from onnxqp.quantize import quantize_model
from onnxqp.runtime import Session
from onnxqp.specs import Feed

ROOT = Path(__file__).resolve().parents[1]
MOST_DB = 80.0  # beyond, an output is as good as equal
STEPS = ("min-max", "+ bias", "+ equalised", "+ auto ranges", "+ rounding")

Outputs = list[dict[str, Any]]


def main() -> None:
    asked = _arguments()
    spec = importlib.util.spec_from_file_location("zoo_feeds", asked.zoo / "feeds.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    print(f"| model | {' | '.join(STEPS)} |")
    print(f"|---|{'---:|' * len(STEPS)}")
    for path in sorted((asked.zoo / "models").glob("*.onnx")):
        if not fnmatchcase(path.stem, asked.only):
            continue
        model = load(path)
        normalize(model)
        feeds = list(getattr(hooks, path.stem)())
        rows = [_row(model, feeds, asked, seed) for seed in range(asked.draws)]
        print(f"| {path.stem} | {' | '.join(_cells(np.mean(rows, axis=0)))} |", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, default=Path(os.environ.get("ONNXQP_ZOO", ROOT.parent / "shared" / "zoo")))
    parser.add_argument("--only", metavar="GLOB", default="*", help="models of these names")
    parser.add_argument("--target", choices=get_args(TargetName), default="x64-vnni")
    parser.add_argument("--placed", action="store_true", help="only what the target's table puts on integers")
    parser.add_argument("--samples", type=int, default=96, help="that calibrate")
    parser.add_argument("--held-back", type=int, default=32, help="that judge; at most a quarter of what there is")
    parser.add_argument("--draws", type=int, default=1, help="seeds of the draw")
    return parser.parse_args()


def _row(model: ir.Model, feeds: list[Feed], asked: argparse.Namespace, seed: int) -> list[float]:
    order = np.random.default_rng(seed).permutation(len(feeds))
    held = max(1, min(asked.held_back, len(feeds) // 4))
    judging, calibrating = ([feeds[i] for i in part] for part in (order[:held], order[held : held + asked.samples]))
    expected = _outputs(model, judging)
    found = []
    for options, typical in _steps(asked):
        quantized = quantize_model(model, calibrating, options, typical=typical).model
        found.append(_sqnr_db(expected, _outputs(quantized, judging)))
    return found


def _steps(asked: argparse.Namespace) -> Iterator[tuple[QuantizeOptions, bool]]:
    """The options of each column, and whether weights are rounded by the samples."""
    chosen = Selection() if asked.placed else Selection(include=("*",))
    options = QuantizeOptions("minmax", target=asked.target, selection=chosen, bias_correction=False, equalize=False)
    yield options, False
    options = replace(options, bias_correction=True)
    yield options, False
    options = replace(options, equalize=True)
    yield options, False
    options = replace(options, method="auto")
    yield options, False
    yield options, True


def _outputs(model: ir.Model, feeds: list[Feed]) -> Outputs:
    session = Session(model)
    return [session.run(feed) for feed in feeds]


def _sqnr_db(expected: Outputs, found: Outputs) -> float:
    ratios = []
    for name, first in expected[0].items():
        if first.dtype.kind != "f":
            continue
        pairs = [(ours[name].astype(np.float64), theirs[name]) for ours, theirs in zip(expected, found, strict=True)]
        signal = sum(float(np.square(ours).sum()) for ours, _ in pairs)
        error = sum(float(np.square(ours - theirs).sum()) for ours, theirs in pairs)
        ratios.append(min(10 * np.log10(max(signal, 1e-30) / max(error, 1e-30)), MOST_DB))
    return float(np.mean(ratios))


def _cells(row: Any) -> Iterator[str]:
    yield f"{row[0]:.1f}"
    for before, after in itertools.pairwise(row):
        yield f"{after:.1f} ({after - before:+.1f})"


if __name__ == "__main__":
    main()
