"""onnxqp against the quantizers that users would otherwise pick, on the sample models and on a zoo.

    python benchmarks/quantize.py                                  # everything; the table goes to stdout
    python benchmarks/quantize.py --only 'resnet*' --samples 32    # some models
    python benchmarks/quantize.py --tools onnxqp,ort-best --json facts.json
    python benchmarks/quantize.py --peer-python nncf=peers/nncf/bin/python --peer-python quark=peers/quark/bin/python

Columns: `onnxqp quantize` with no flags but its data; `quantize_static` of onnxruntime with its defaults; the same with
the best flags by hand (uint8 activations, int8 weights, per channel, reduced range); `quantize_dynamic`; NNCF (its
defaults) and AMD Quark (its U8S8_AAWS configuration, the one for CPUs) where they are installed, each in an environment
of its own if `--peer-python` names one. onnxruntime's own preparation runs before its tools. Every tool is a process of
its own, whose seconds and peak resident memory are those of the whole process. A cell says: speed-up over the fp32 file
with its 95 % interval (interleaved, as `onnxqp validate` measures it), the metric's value, how many times smaller the
file is, the tool's seconds and memory. Zoo models are judged by the zoo's own evaluate.py, sample models by top-1 on
their held-out data.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("onnxqp", "ort-default", "ort-best", "ort-dynamic", "nncf", "quark")
PEERS = ("nncf", "quark")  # what need not be there


@dataclass(frozen=True)
class Subject:
    """A model with its data: `feeds` yields calibration inputs, as `file.py:name` or `.npz`; `eval` labelled ones."""

    name: str
    path: Path
    feeds: str
    eval: str | None = None
    zoo: Path | None = None


@dataclass
class Cell:
    """What one tool made of one model."""

    model: str
    tool: str
    seconds: float
    memory_mb: float
    fault: str | None = None  # it did not quantize, or the result does not run
    speedup: float | None = None
    low: float | None = None
    high: float | None = None
    value: float | None = None
    baseline: float | None = None
    smaller: float | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if options.make:
        return _make(options.make, Path(options.model), options.feeds, Path(options.output), options.samples)
    subjects = [
        each for each in _subjects(options.zoo.absolute()) if not options.only or _chosen(each.name, options.only)
    ]
    if not subjects:
        print("no model matches", file=sys.stderr)
        return 2
    cells = []
    for subject in subjects:
        with tempfile.TemporaryDirectory(prefix="onnxqp-bench-") as folder:
            for tool in options.tools:
                cell = _judge(subject, tool, Path(folder), options)
                cells.append(cell)
                print(f"{subject.name} {tool}: {_words(cell)}", file=sys.stderr, flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(cell) for cell in cells], indent=1) + "\n", encoding="utf-8")
    print(_table(cells, options.tools))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    zoo = os.environ.get("ONNXQP_ZOO", str(ROOT.parent / "shared" / "zoo"))
    parser.add_argument("--zoo", type=Path, default=Path(zoo), help="folder of the zoo (ONNXQP_ZOO, ../shared/zoo)")
    parser.add_argument("--only", action="append", default=[], metavar="GLOB", help="models of these names")
    parser.add_argument("--tools", default=None, help="which of " + ", ".join(TOOLS))
    parser.add_argument("--samples", type=int, default=32, help="calibration samples (32)")
    parser.add_argument(
        "--peer-python",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="the interpreter of an environment that holds a peer: nncf=PATH, quark=PATH",
    )
    parser.add_argument("--timeout", type=float, default=900, metavar="SECONDS", help="limit of one process (900)")
    parser.add_argument("--json", type=Path, help="all facts, in a file")
    for hidden in ("--make", "--model", "--feeds", "--output"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    named = (peer.split("=", 1) for peer in options.peer_python if "=" in peer)
    options.peers = {name: str(Path(path).absolute()) for name, path in named}  # a resolved link is another environment
    if len(options.peers) < len(options.peer_python) or set(options.peers) - set(PEERS):
        parser.error(f"--peer-python takes NAME=PATH, with a name out of {', '.join(PEERS)}")
    found = {peer for peer in PEERS if peer in options.peers or importlib.util.find_spec(peer) is not None}
    available = [tool for tool in TOOLS if tool not in PEERS or tool in found]
    options.tools = options.tools.split(",") if options.tools else available
    if unknown := set(options.tools) - set(TOOLS):
        parser.error(f"unknown tool {', '.join(sorted(unknown))}")
    return options


def _chosen(name: str, only: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in only)


def _subjects(zoo: Path) -> Iterator[Subject]:
    data = ROOT / "sample_models" / "data"
    for path in sorted((ROOT / "sample_models").glob("*.onnx")):
        form = "_nhwc" if path.stem.startswith("keras") else ""
        yield Subject(path.stem, path, str(data / f"calib{form}.npz"), str(data / f"eval{form}.npz"))
    for path in sorted((zoo / "models").glob("*.onnx")):
        yield Subject(path.stem, path, f"{zoo / 'feeds.py'}:{path.stem}", zoo=zoo)


# ---- one cell ----------------------------------------------------------------------------------------------------


def _judge(subject: Subject, tool: str, folder: Path, options: argparse.Namespace) -> Cell:
    output, samples = folder / f"{tool}.onnx", str(options.samples)
    if tool == "onnxqp":
        command = [sys.executable, "-m", "onnxqp", "quantize", str(subject.path), "-o", str(output)]
        command += ["--data", subject.feeds, "--samples", samples, "--no-validate", "-q"]
    else:
        python = options.peers.get(tool, sys.executable)
        command = [
            python,
            str(Path(__file__).resolve()),
            "--make",
            tool,
            "--model",
            str(subject.path),
            "--samples",
            samples,
        ]
        command += ["--feeds", subject.feeds, "--output", str(output)]
    code, seconds, memory, told = _run(command, options.timeout, folder)
    cell = Cell(subject.name, tool, round(seconds, 2), round(memory / 1e6))
    if code != 0 or not output.exists():
        cell.fault = told or f"exit code {code}"
        return cell
    data = ["--eval", subject.eval] if subject.eval else ["--data", subject.feeds, "--samples", "8"]
    judged = [sys.executable, "-m", "onnxqp", "validate", str(subject.path), str(output), *data, "--json", "-q"]
    report = _json(judged, options.timeout)
    if "latency" not in report:
        cell.fault = report.get("error", {}).get("message", "does not run")
        return cell
    latency = report["latency"]
    cell.speedup, (cell.low, cell.high) = latency["speedup"], latency["speedup_ci"]
    cell.smaller = report["size"]["ratio"]
    if subject.zoo is not None:
        found = _json([sys.executable, str(subject.zoo / "evaluate.py"), subject.name, str(output)], options.timeout)
        cell.value, cell.baseline = found.get("value"), found.get("fp32")
    elif "accuracy" in report:
        cell.value, cell.baseline = report["accuracy"]["candidate"], report["accuracy"]["baseline"]
    return cell


def _run(command: Sequence[str], limit: float, folder: Path) -> tuple[int, float, float, str]:
    """Exit code, seconds and peak resident bytes of a process, and the last line of its complaint.

    It works in `folder`, for some tools leave files where they are.
    """
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile() as errors:
        begun = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, cwd=folder, env=variables)
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() - begun > limit:
                process.kill()
            time.sleep(0.01)
        seconds = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines()
    return process.returncode, seconds, usage.ru_maxrss * 1024, lines[-1][:200] if lines else ""


def _json(command: Sequence[str], limit: float) -> dict[str, Any]:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=limit, cwd=ROOT, check=False)
        return dict(json.loads(ran.stdout))
    except (ValueError, subprocess.TimeoutExpired):
        return {}


# ---- the peers, each in a process of its own ----------------------------------------------------------------------


def _make(tool: str, model: Path, feeds: str, output: Path, samples: int) -> int:
    """Quantize with a peer; what it raises ends the process."""
    if tool == "nncf":
        return _nncf(model, feeds, output, samples)
    from onnxruntime import quantization as peer

    class Reader(peer.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = itertools.islice(_feeds(feeds, model), samples)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.left, None)

    if tool == "quark":
        return _quark(model, Reader(), output)
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = output.with_suffix(".prepared.onnx")
    quant_pre_process(str(model), str(prepared))
    if tool == "ort-dynamic":
        peer.quantize_dynamic(str(prepared), str(output))
        return 0
    best = {
        "activation_type": peer.QuantType.QUInt8,
        "weight_type": peer.QuantType.QInt8,
        "per_channel": True,
        "reduce_range": True,
    }
    peer.quantize_static(str(prepared), str(output), Reader(), **(best if tool == "ort-best" else {}))
    return 0


def _nncf(model: Path, feeds: str, output: Path, samples: int) -> int:
    import nncf  # type: ignore[import-not-found]
    import onnx

    data = nncf.Dataset(list(itertools.islice(_feeds(feeds, model), samples)))
    onnx.save(nncf.quantize(onnx.load(str(model)), data, subset_size=samples), str(output))
    return 0


def _quark(model: Path, reader: Any, output: Path) -> int:
    from quark.onnx import ModelQuantizer  # type: ignore[import-not-found]
    from quark.onnx.quantization.config import Config, get_default_config  # type: ignore[import-not-found]

    config = Config(global_quant_config=get_default_config("U8S8_AAWS"))
    ModelQuantizer(config).quantize_model(str(model), str(output), reader)
    return 0


def _feeds(spec: str, model: Path) -> Iterator[dict[str, Any]]:
    """The same inputs that onnxqp gets, one sample each."""
    file, colon, name = spec.rpartition(":")
    if colon and file.endswith(".py"):
        hook = importlib.util.spec_from_file_location("feeds", file)
        assert hook is not None
        assert hook.loader is not None
        module = importlib.util.module_from_spec(hook)
        hook.loader.exec_module(module)
        yield from getattr(module, name)()
        return
    import numpy as np
    import onnx

    graph = onnx.load(str(model), load_external_data=False).graph
    with np.load(spec) as arrays:
        inputs = {value.name: arrays[value.name].astype(np.float32) for value in graph.input}
    for index in range(len(next(iter(inputs.values())))):
        yield {key: array[index : index + 1] for key, array in inputs.items()}


# ---- the table ----------------------------------------------------------------------------------------------------


def _table(cells: Sequence[Cell], tools: Sequence[str]) -> str:
    by_place = {(cell.model, cell.tool): cell for cell in cells}
    models = list(dict.fromkeys(cell.model for cell in cells))
    lines = ["| model | fp32 | " + " | ".join(tools) + " |", "|---" * (len(tools) + 2) + "|"]
    for model in models:
        values = [cell.baseline for cell in cells if cell.model == model and cell.baseline is not None]
        words = [_words(by_place[model, tool]) for tool in tools]
        lines.append(f"| {model} | {values[0]:.2f} | " if values else f"| {model} | - | ")
        lines[-1] += " | ".join(words) + " |"
    return "\n".join([*lines, "", *(_summary(tool, [c for c in cells if c.tool == tool]) for tool in tools)])


def _words(cell: Cell) -> str:
    cost = f"{cell.seconds:.1f} s, {cell.memory_mb:.0f} MB"
    if cell.fault is not None or cell.speedup is None or cell.smaller is None:
        return f"fails ({cost})"
    value = "-" if cell.value is None else f"{cell.value:.2f}"
    return f"{cell.speedup:.2f}x [{cell.low:.2f}, {cell.high:.2f}], {value}, {cell.smaller:.2f}x smaller; {cost}"


def _summary(tool: str, cells: Sequence[Cell]) -> str:
    speeds = [cell.speedup for cell in cells if cell.speedup is not None]
    slower = sum(cell.high is not None and cell.high < 1 for cell in cells)
    mean = functools.reduce(lambda total, speed: total + math.log(speed), speeds, 0.0) / max(len(speeds), 1)
    return (
        f"- {tool}: {len(speeds)} of {len(cells)} run, geometric mean {math.exp(mean):.2f}x, {slower} slower than fp32"
    )


if __name__ == "__main__":
    sys.exit(main())
