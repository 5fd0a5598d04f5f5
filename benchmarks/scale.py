"""How onnxqp itself scales: seconds and memory of `onnxqp quantize` as a whole process, on models made here.

    python benchmarks/scale.py                          # every case; the table goes to stdout
    python benchmarks/scale.py --only chain --json facts.json
    python benchmarks/scale.py --only large --tools onnxqp,session

Cases, all with random weights: `residual` (20 000 nodes: Conv, Relu, Conv, Add, again and again), `nodes` (20 000
nodes: MatMul, Add, Relu), `chain` (2000 MatMul of 64x64 with Relu between) and `large` (500 MB of 3x3 convolutions of
1024 channels). Tools: `onnxqp quantize --no-validate`; `quantize_static` of onnxruntime with its defaults; `session`,
one session of the model with every value tapped, run once: what any calibration must at least hold; and `passes`, which
says what normalising, annotating and inserting take of onnxqp's seconds.

A process is watched from outside: its seconds, by the clock and of processor, its children's included; the resident
memory of it and its children together, and the anonymous part of that, which leaves out memory-mapped weights.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("onnxqp", "quantize_static", "session", "passes")
PERIOD = 0.02  # seconds between two looks at the memory


@dataclass(frozen=True)
class Case:
    """A model to make, and how many samples to calibrate it with."""

    build: Callable[[Path], None]
    samples: int
    tools: tuple[str, ...] = TOOLS


@dataclass
class Cell:
    """What one process cost: seconds by the clock and of processor, peak bytes."""

    case: str
    tool: str
    seconds: float
    processor_seconds: float
    resident_bytes: int
    anonymous_bytes: int
    code: int
    output_bytes: int | None = None
    told: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if options.run:
        return _run_tool(options.run, Path(options.model), Path(options.data), Path(options.output))
    cells: list[Cell] = []
    for name in options.only:
        case = CASES[name]
        with tempfile.TemporaryDirectory(prefix="onnxqp-scale-") as folder:
            model = Path(folder) / f"{name}.onnx"
            case.build(model)
            _write_samples(model, Path(folder) / "data.npz", options.samples or case.samples)
            if "session" in options.tools:
                _write_tapped(model, model.with_suffix(".tapped.onnx"))
            for tool in (tool for tool in case.tools if tool in options.tools):
                cells.append(_measure(name, tool, model, options.timeout))
                print(_words(cells[-1]), file=sys.stderr, flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(cell) for cell in cells], indent=1) + "\n", encoding="utf-8")
    print(_table(cells))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(CASES), help="cases (all)")
    parser.add_argument("--tools", default=",".join(TOOLS), help="which of " + ", ".join(TOOLS))
    parser.add_argument("--samples", type=int, help="calibration samples (each case has its own number)")
    parser.add_argument("--timeout", type=float, default=900, metavar="SECONDS", help="limit of one process (900)")
    parser.add_argument("--json", type=Path, help="all facts, in a file")
    for hidden in ("--run", "--model", "--data", "--output"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.only = options.only or list(CASES)
    options.tools = options.tools.split(",")
    if unknown := set(options.tools) - set(TOOLS):
        parser.error(f"unknown tool {', '.join(sorted(unknown))}")
    return options


# ---- models ------------------------------------------------------------------------------------------------------


class _Builder:
    """Nodes and weights of a graph, one after another."""

    def __init__(self) -> None:
        import numpy as np

        self.random = np.random.default_rng(0)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        name = f"{op_type.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def weight(self, *shape: int) -> str:
        import numpy as np
        from onnx import numpy_helper

        fan_in = int(np.prod(shape[1:])) if len(shape) == 4 else shape[0]
        array = self.random.standard_normal(shape, np.float32) * np.float32((2 / fan_in) ** 0.5)
        self.weights.append(numpy_helper.from_array(array, f"w{len(self.weights)}"))
        return f"w{len(self.weights) - 1}"

    def save(self, path: Path, last: str, shape: Sequence[int]) -> None:
        import onnx
        from onnx import TensorProto, helper

        sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name in ("x", last)]
        graph = helper.make_graph(self.nodes, "scale", sides[:1], sides[1:], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
        onnx.save(model, str(path))


def _residual(path: Path, blocks: int = 5000) -> None:
    build, last = _Builder(), "x"
    for _ in range(blocks):
        inner = build.node("Conv", last, build.weight(8, 8, 3, 3), build.weight(8), pads=[1, 1, 1, 1])
        inner = build.node("Relu", inner)
        inner = build.node("Conv", inner, build.weight(8, 8, 1, 1), build.weight(8))
        last = build.node("Add", last, inner)
    build.save(path, last, (1, 8, 4, 4))


def _nodes(path: Path, layers: int = 6667) -> None:
    build, last = _Builder(), "x"
    for _ in range(layers):
        last = build.node("Add", build.node("MatMul", last, build.weight(16, 16)), build.weight(16))
        last = build.node("Relu", last)
    build.save(path, last, (1, 16))


def _chain(path: Path, layers: int = 2000) -> None:
    build, last = _Builder(), "x"
    for _ in range(layers):
        last = build.node("Relu", build.node("MatMul", last, build.weight(64, 64)))
    build.save(path, last, (1, 64))


def _large(path: Path, layers: int = 13) -> None:
    build, last = _Builder(), "x"
    for _ in range(layers):
        last = build.node("Conv", last, build.weight(1024, 1024, 3, 3), build.weight(1024), pads=[1, 1, 1, 1])
        last = build.node("Relu", last)
    build.save(path, last, (1, 1024, 4, 4))


CASES = {
    "residual": Case(_residual, 4, ("onnxqp", "session", "passes")),
    "nodes": Case(_nodes, 4, ("onnxqp", "session", "passes")),
    "chain": Case(_chain, 32),
    "large": Case(_large, 8),
}


def _write_samples(model: Path, path: Path, samples: int) -> None:
    """Normal noise in the shape of the only input."""
    import numpy as np
    import onnx

    value = onnx.load(str(model), load_external_data=False).graph.input[0]
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    np.savez(path, x=np.random.default_rng(1).standard_normal((samples, *shape[1:]), np.float32))


# ---- one process -------------------------------------------------------------------------------------------------


def _measure(case: str, tool: str, model: Path, limit: float) -> Cell:
    output, data = model.with_suffix(f".{tool}.onnx"), model.parent / "data.npz"
    if tool == "onnxqp":
        command = [sys.executable, "-m", "onnxqp", "quantize", str(model), "-o", str(output), "--data", str(data)]
        command += ["--no-validate", "-q"]
    else:
        command = [
            sys.executable,
            str(Path(__file__).resolve()),
            "--run",
            tool,
            "--model",
            str(model),
            "--data",
            str(data),
        ]
        command += ["--output", str(output)]
    with tempfile.TemporaryFile() as errors:
        begun = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, cwd=model.parent, env=_paths())
        resident = anonymous = 0
        while True:
            now = [_memory(pid) for pid in _tree(process.pid)]
            resident = max(resident, sum(each[0] for each in now))
            anonymous = max(anonymous, sum(each[1] for each in now))
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            if time.monotonic() - begun > limit:
                process.kill()
            time.sleep(PERIOD)
        seconds, code = time.monotonic() - begun, os.waitstatus_to_exitcode(status)
        process.returncode = code
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines()
    size = output.stat().st_size if output.exists() else None
    output.unlink(missing_ok=True)
    told = lines[-1][:200] if lines and (code or tool == "passes") else ""
    processor = round(usage.ru_utime + usage.ru_stime, 2)
    return Cell(case, tool, round(seconds, 2), processor, resident, anonymous, code, size, told)


def _paths() -> dict[str, str]:
    """An environment in which onnxqp is found from any folder; the peers leave files in theirs."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}


def _tree(root: int) -> Iterator[int]:
    """A process and all below it."""
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        yield pid
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                waiting += map(int, task.read_text().split())
            except OSError:  # it has just ended
                continue


def _memory(pid: int) -> tuple[int, int]:
    """Resident and anonymous bytes of a process; nothing of one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0, 0
    found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmRSS", "RssAnon"))}
    return found.get("VmRSS", 0), found.get("RssAnon", 0)


def _run_tool(tool: str, model: Path, data: Path, output: Path) -> int:
    """What runs in the process of a tool that is not onnxqp."""
    import numpy as np

    samples = np.load(data)["x"]
    feeds = ({"x": samples[index : index + 1]} for index in range(len(samples)))
    if tool == "session":
        _open(model.with_suffix(".tapped.onnx")).run(None, next(feeds))
        return 0
    if tool == "passes":
        print(_passes(model, feeds), file=sys.stderr)
        return 0
    from onnxruntime import quantization as peer
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(peer.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            return next(feeds, None)

    prepared = output.with_suffix(".prepared.onnx")
    try:
        quant_pre_process(str(model), str(prepared))
        peer.quantize_static(str(prepared), str(output), Reader())
    finally:
        prepared.unlink(missing_ok=True)
    return 0


def _passes(model: Path, samples: Iterator[dict[str, Any]]) -> str:
    """What the passes over the graph take: annotating with the rewrites that integer kernels want, inserting with the
    plan and the parameters that it needs."""
    import gc

    from onnxqp import model as files
    from onnxqp.normalize import normalize
    from onnxqp.options import QuantizeOptions
    from onnxqp.quantize import quantize_model
    from onnxqp.quantize.decide import decide
    from onnxqp.quantize.draft import Draft
    from onnxqp.targets import TARGETS

    options, feeds, seconds = QuantizeOptions(target="x64-vnni"), list(samples), dict[str, float]()

    def timed(name: str, work: Callable[[], Any]) -> Any:
        begun = time.monotonic()
        done = work()
        seconds[name] = time.monotonic() - begun
        return done

    gc.set_threshold(50_000, 10, 10)  # as the command line does
    graph = files.load(model)
    timed("normalise", lambda: normalize(graph))
    draft = timed("annotate", lambda: Draft.of(graph, TARGETS["x64-vnni"], options, feeds))
    material = quantize_model(graph, feeds, options, few=feeds).trial.material
    timed("insert", lambda: material.build(decide(material.annotation, draft.costs)))
    return ", ".join(f"{name} {each:.1f} s" for name, each in seconds.items())


def _write_tapped(model: Path, path: Path) -> None:
    """The same model, every value an output."""
    import onnx

    proto = onnx.load(str(model))
    present = {value.name for value in proto.graph.output}
    for name in dict.fromkeys(name for node in proto.graph.node for name in node.output if name not in present):
        proto.graph.output.add(name=name)
    onnx.save(proto, str(path))


def _open(path: Path) -> Any:
    """On one thread, as in calibration."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


# ---- the table ---------------------------------------------------------------------------------------------------


def _table(cells: Sequence[Cell]) -> str:
    lines = ["| case | tool | seconds | of processor | resident MB | anonymous MB | output MB |", "|---" * 7 + "|"]
    for cell in cells:
        size = "-" if cell.output_bytes is None else f"{cell.output_bytes / 1e6:.1f}"
        told = f" ({cell.told or cell.code})" if cell.code or cell.told else ""
        memory = f"{cell.resident_bytes / 1e6:.0f} | {cell.anonymous_bytes / 1e6:.0f}"
        seconds = f"{cell.seconds:.1f} | {cell.processor_seconds:.1f}"
        lines.append(f"| {cell.case} | {cell.tool}{told} | {seconds} | {memory} | {size} |")
    return "\n".join(lines)


def _words(cell: Cell) -> str:
    cost = f"{cell.seconds:.1f} s ({cell.processor_seconds:.1f} of processor), {cell.resident_bytes / 1e6:.0f} MB"
    code = f", exit code {cell.code}" if cell.code else ""
    told = f": {cell.told}" if cell.told else ""
    return f"{cell.case} {cell.tool}: {cost}{code}{told}"


if __name__ == "__main__":
    sys.exit(main())
