"""What `onnxqp prune` cuts, and what that is worth in speed: sample models, network structures, and a zoo folder.

    python benchmarks/prune.py                                    # everything, at ratios 0.25 and 0.5
    python benchmarks/prune.py --only 'zoo/*' --ratios 0.5 --json facts.json
    PYTHONPATH=FOLDER python benchmarks/prune.py --only 'network/*'   # FOLDER holds torch_pruning: it is compared with

`coverage` is the share of the elements of convolution and product weights of which some channel can be cut. MACs and
parameters are what is left. `speed-up` is over the model as given, interleaved, one thread; nothing is recovered, which
changes no shape. `proof` is the largest difference between the pruned and the masked model, of an output's range.

The networks are those of `architectures.py`, with random weights; they need PyTorch. Torch-Pruning 1.6 prunes the
PyTorch module by the same ratio (L1 norm, counts rounded to 8, the last layer named as one to leave alone, for it does
not know the outputs; of attention heads it is told nothing); its result is exported and measured in the same way.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

import onnxqp
from onnxqp.errors import OnnxqpError
from onnxqp.evaluate.latency import Effort, measure
from onnxqp.model import load, parameters
from onnxqp.normalize import normalize
from onnxqp.options import MeasureOptions, PruneOptions, WriteOptions
from onnxqp.prune import plan
from onnxqp.runtime import Session
from onnxqp.steps import count_macs

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = 4
EFFORT = Effort(warmup_runs=2, warmup_seconds=0.05, min_runs=21, min_seconds=1.0, floor_runs=7, max_seconds=8.0)


@dataclass(frozen=True)
class Subject:
    """A model file and feeds for it; `network` names it in `architectures.py`."""

    name: str
    path: Path
    feeds: list[dict[str, Any]]
    network: str | None = None


@dataclass
class Row:
    """One model at one ratio."""

    model: str
    tool: str
    ratio: float
    coverage: float | None = None
    macs: float | None = None  # after / before
    parameters: float | None = None
    speedup: float | None = None
    proof: float | None = None
    seconds: float | None = None
    refusal: str | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="onnxqp-prune-") as folder:
        for subject in _subjects(options.zoo, Path(folder), options.only):
            for ratio in options.ratios:
                for row in _rows(subject, ratio, Path(folder)):
                    rows.append(row)
                    print(_line(row), file=sys.stderr, flush=True)
    if not rows:
        print("no model matches", file=sys.stderr)
        return 2
    print(_table(rows))
    for ratio in options.ratios:
        print(_mean(rows, ratio))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    zoo = os.environ.get("ONNXQP_ZOO", str(ROOT.parent / "shared" / "zoo"))
    parser.add_argument("--zoo", type=Path, default=Path(zoo), help="folder of the zoo (ONNXQP_ZOO, ../shared/zoo)")
    parser.add_argument("--only", action="append", default=[], metavar="GLOB", help="models whose name matches")
    parser.add_argument("--ratios", default="0.25,0.5", help="shares of the channels to remove (0.25,0.5)")
    parser.add_argument("--json", type=Path, help="all figures as JSON")
    options = parser.parse_args(arguments)
    options.ratios = [float(ratio) for ratio in options.ratios.split(",")]
    return options


# ---- models ----------------------------------------------------------------------------------------------------------


def _subjects(zoo: Path, folder: Path, only: Sequence[str]) -> Iterator[Subject]:
    def wanted(name: str) -> bool:
        return not only or any(fnmatchcase(name, glob) for glob in only)

    for path in sorted((ROOT / "sample_models").glob("*.onnx")):
        if wanted(f"sample/{path.stem}"):
            yield Subject(f"sample/{path.stem}", path, _sample_feeds(path))
    networks = _module(ROOT / "benchmarks" / "architectures.py") if importlib.util.find_spec("torch") else None
    for name, network in networks.NETWORKS.items() if networks is not None else ():
        if wanted(f"network/{name}"):
            path = folder / f"{name}.onnx"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                network.export(str(path))
            feeds = [{key: each.numpy() for key, each in network.example(seed).items()} for seed in range(SAMPLES)]
            yield Subject(f"network/{name}", path, feeds, name)
    if (zoo / "feeds.py").is_file():
        hooks = _module(zoo / "feeds.py")
        for path in sorted((zoo / "models").glob("*.onnx")):
            if wanted(f"zoo/{path.stem}"):
                source = iter(getattr(hooks, path.stem)())
                yield Subject(f"zoo/{path.stem}", path, [next(source) for _ in range(SAMPLES)])


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _sample_feeds(path: Path) -> list[dict[str, Any]]:
    """Noise in the shape of the inputs: shapes are all that counts here."""
    random = np.random.default_rng(0)
    inputs = Session(path).inputs
    sizes = {spec.name: [d if isinstance(d, int) else 1 for d in spec.shape or ()] for spec in inputs}
    return [
        {name: random.normal(size=shape).astype(np.float32) for name, shape in sizes.items()} for _ in range(SAMPLES)
    ]


# ---- tools -----------------------------------------------------------------------------------------------------------


def _rows(subject: Subject, ratio: float, folder: Path) -> Iterator[Row]:
    yield _ours(subject, ratio, folder)
    if subject.network is not None and importlib.util.find_spec("torch_pruning"):
        yield _torch_pruning(subject, ratio, folder)


def _ours(subject: Subject, ratio: float, folder: Path) -> Row:
    row = Row(subject.name, "onnxqp", ratio)
    output = folder / "pruned.onnx"
    options = PruneOptions(ratio=ratio, recover="none", criterion="l1")
    try:
        row.coverage = coverage(subject.path)
        begun = time.perf_counter()
        report = onnxqp.prune(
            subject.path,
            options=options,
            data=subject.feeds,
            measure=MeasureOptions(validate=False),
            write=WriteOptions(output=str(output), force=True),
        ).report
        row.seconds = time.perf_counter() - begun
    except OnnxqpError as error:
        row.refusal = error.message
        return row
    assert report.pruning is not None
    row.macs, row.parameters = report.pruning.macs_ratio, report.pruning.params_ratio
    row.proof = report.pruning.proof.max_abs_diff if report.pruning.proof is not None else None
    row.speedup = _speedup(subject, output)
    return row


def _torch_pruning(subject: Subject, ratio: float, folder: Path) -> Row:
    import torch
    import torch_pruning

    row = Row(subject.name, "torch-pruning", ratio)
    network = sys.modules["architectures"].NETWORKS[subject.network]
    torch.manual_seed(0)
    module, example = network.make().eval(), network.example(0)
    last = [each for each in module.modules() if isinstance(each, torch.nn.Linear | torch.nn.Conv2d)][-1]
    output = folder / "torch_pruning.onnx"
    begun = time.perf_counter()
    try:
        pruner = torch_pruning.pruner.MetaPruner(
            module,
            tuple(example.values()),
            importance=torch_pruning.importance.MagnitudeImportance(p=1),
            pruning_ratio=ratio,
            ignored_layers=[last],
            round_to=8,
        )
        pruner.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module(*example.values())
            axes = {
                name: {axis: f"axis{axis}" for axis in network.symbolic if axis < each.ndim}
                for name, each in example.items()
            }
            torch.onnx.export(
                module, tuple(example.values()), str(output), input_names=list(example), output_names=["y"],
                dynamic_axes=axes, opset_version=17, dynamo=False,
            )  # fmt: skip
        row.seconds = time.perf_counter() - begun
        before, after = load(subject.path), load(output)
        normalize(before)
        normalize(after)
        row.macs = count_macs(after) / count_macs(before)
        row.parameters = parameters(after) / parameters(before)
        row.speedup = _speedup(subject, output)
    except Exception as error:  # whatever it stumbles over
        row.refusal = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return row


def coverage(path: Path) -> float:
    """Share of the elements of convolution and product weights of which some channel can be cut."""
    model = load(path)
    normalize(model)
    made = plan(model, PruneOptions(ratio=0.0), step=1)
    free = np.zeros(made.labels.count, np.bool_)
    for group in made.grouping.groups:
        free[group.classes] = True
    total = inside = 0
    for name in {weight.value for weight in made.labels.weights}:
        value = model.graph.initializers.get(name)
        if value is not None and value.const_value is not None:
            families = made.labels.families(name)
            total += value.const_value.size
            inside += any(free[made.grouping.roots[f.labels]].any() for f in families) * value.const_value.size
    return inside / total if total else 0.0


def _speedup(subject: Subject, output: Path) -> float:
    times = measure([Session(subject.path), Session(output)], subject.feeds, effort=EFFORT)
    before, after = (float(np.quantile(each, 0.25)) for each in times)
    return before / after


# ---- the table -------------------------------------------------------------------------------------------------------


def _line(row: Row) -> str:
    return f"{row.model} {row.tool} {row.ratio}: " + (row.refusal or ", ".join(_cells(row)))


def _cells(row: Row) -> list[str]:
    share, proof = (lambda value: "" if value is None else f"{100 * value:.1f} %"), row.proof
    return [
        share(row.coverage),
        share(row.macs),
        share(row.parameters),
        "" if row.speedup is None else f"{row.speedup:.2f}x",
        "" if proof is None else f"{proof:.1e}",
        "" if row.seconds is None else f"{row.seconds:.1f}",
    ]


def _table(rows: Sequence[Row]) -> str:
    lines = ["| model | tool | ratio | coverage | MACs | parameters | speed-up | proof | seconds |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        cells = [row.refusal, *[""] * 5] if row.refusal else _cells(row)
        lines.append("| " + " | ".join([row.model, row.tool, f"{row.ratio:g}", *(str(cell) for cell in cells)]) + " |")
    return "\n".join(lines)


def _mean(rows: Sequence[Row], ratio: float) -> str:
    parts = []
    for tool in dict.fromkeys(row.tool for row in rows):
        found = [row.speedup for row in rows if row.tool == tool and row.ratio == ratio and row.speedup]
        if found:
            mean = math.exp(sum(map(math.log, found)) / len(found))
            parts.append(f"{tool} {mean:.2f}x over {len(found)} models, at least {min(found):.2f}x")
    return f"ratio {ratio:g}, geometric mean of the speed-ups: {'; '.join(parts)}"


if __name__ == "__main__":
    raise SystemExit(main())
