"""Mutated model files through inspect, quantize and prune: whatever happens must end in the table of exit codes.

    python tests/fuzz/mutate.py --seconds 20 --seed 0

The files that the onnx package ships and the sample models are cut short, flipped, overwritten and spliced. Prints one
JSON line: how many files, which exit codes, and every fault that was none of ours, with the seed and number to get the
file again (`--only NUMBER`). The number under way stands in the file `--mark`, should this process die of it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np
import onnx

from onnxqp.cli import main

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 200_000  # bytes: above it, mutations mostly hit weights, which nobody reads
SLOW = ("vgg19", "alexnet", "zfnet512")  # their weights are made by nodes: hundreds of megabytes of nothing
ALLOWED = (1, 3, 4, 5, 7)
MODEL = "m.onnx"
PRODUCTS = ("m.int8.onnx", "m.pruned.onnx")
FEW = ("--samples", "2")  # the corpus has networks that take a minute of 64 pictures
TARGET = ("--target", "x64-avx2")  # a clock would make every file a different test


def corpus() -> list[bytes]:
    """Every model that is small enough, in a fixed order."""
    shipped = sorted(Path(onnx.__file__).parent.rglob("*.onnx"))
    shipped = [path for path in shipped if not any(name in path.name for name in SLOW)]
    found = [path.read_bytes() for path in (*shipped, *sorted((ROOT / "sample_models").glob("*.onnx")))]
    return [content for content in found if 0 < len(content) <= LARGEST]


# ---- mutations -------------------------------------------------------------------------------------------------


def cut(content: bytearray, draw: np.random.Generator, others: list[bytes]) -> bytearray:
    return content[: draw.integers(len(content))]


def flip(content: bytearray, draw: np.random.Generator, others: list[bytes]) -> bytearray:
    for place in draw.integers(len(content), size=draw.integers(1, 9)):
        content[place] ^= 1 << int(draw.integers(8))
    return content


def overwrite(content: bytearray, draw: np.random.Generator, others: list[bytes]) -> bytearray:
    """Bytes that mean something in protobuf: zeros, largest numbers, small ones."""
    for place in draw.integers(len(content), size=draw.integers(1, 5)):
        content[place] = int(draw.choice([0, 1, 2, 7, 0x7F, 0x80, 0xFF]))
    return content


def remove(content: bytearray, draw: np.random.Generator, others: list[bytes]) -> bytearray:
    start = int(draw.integers(len(content)))
    del content[start : start + int(draw.integers(1, 40))]
    return content


def double(content: bytearray, draw: np.random.Generator, others: list[bytes]) -> bytearray:
    start, length = int(draw.integers(len(content))), int(draw.integers(1, 200))
    content[start:start] = content[start : start + length]
    return content


def splice(content: bytearray, draw: np.random.Generator, others: list[bytes]) -> bytearray:
    """The head of one model and the tail of another: protobuf merges what it can."""
    other = others[int(draw.integers(len(others)))]
    return content[: draw.integers(len(content))] + bytearray(other[draw.integers(len(other)) :])


def merge(content: bytearray, draw: np.random.Generator, others: list[bytes]) -> bytearray:
    """Two whole models one after the other: valid protobuf, fields of both."""
    return content + bytearray(others[int(draw.integers(len(others)))])


def letters(content: bytearray, draw: np.random.Generator, others: list[bytes]) -> bytearray:
    """Another letter inside a word: names that lead nowhere, operators that do not exist, attributes unknown."""
    words = [place for place in range(len(content)) if chr(content[place]).isalpha() and content[place] < 0x80]
    for index in draw.integers(len(words), size=draw.integers(1, 4)) if words else ():
        content[words[index]] = int(draw.integers(ord("a"), ord("z") + 1))
    return content


def structure(content: bytearray, draw: np.random.Generator, others: list[bytes]) -> bytearray:
    """The bytes stay protobuf: something of the graph is dropped, doubled, moved or renumbered."""
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(bytes(content))
    except Exception:
        return content
    for _ in range(int(draw.integers(1, 4))):
        _edit(proto, draw)
    return bytearray(proto.SerializeToString())


def _edit(proto: onnx.ModelProto, draw: np.random.Generator) -> None:
    graph = proto.graph
    number = int(draw.choice([-(2**63), -1, 0, 1, 2, 3, 7, 1000, 2**31, 2**40, 2**63 - 1]))
    lists = [entries for entries in (graph.node, graph.input, graph.output, graph.initializer) if entries]
    if lists and draw.random() < 0.25:
        entries = lists[int(draw.integers(len(lists)))]
        index = int(draw.integers(len(entries)))
        if draw.random() < 0.5:
            del entries[index]
        else:
            entries.append(entries[index])
    elif graph.node and draw.random() < 0.7:
        _edit_node(graph.node[int(draw.integers(len(graph.node)))], graph, number, draw)
    elif graph.initializer and draw.random() < 0.7:
        tensor = graph.initializer[int(draw.integers(len(graph.initializer)))]
        if tensor.dims:
            tensor.dims[int(draw.integers(len(tensor.dims)))] = number
        tensor.data_type = int(draw.choice([tensor.data_type, 1, 6, 7, 10, 11]))
    elif proto.opset_import:
        proto.opset_import[0].version = int(draw.choice([0, 1, 6, 9, 12, 13, 18, 21, 30, number % 100]))


def _edit_node(node: onnx.NodeProto, graph: onnx.GraphProto, number: int, draw: np.random.Generator) -> None:
    kind = int(draw.integers(5))
    if kind == 0 and node.input:
        names = [value for other in graph.node for value in (*other.input, *other.output)]
        node.input[int(draw.integers(len(node.input)))] = str(draw.choice(names))
    elif kind == 1 and node.input:
        del node.input[int(draw.integers(len(node.input)))]
    elif kind == 2 and node.attribute:
        attribute = node.attribute[int(draw.integers(len(node.attribute)))]
        if attribute.ints:
            attribute.ints[int(draw.integers(len(attribute.ints)))] = number
        else:
            attribute.i = number
    elif kind == 3 and node.attribute:
        del node.attribute[int(draw.integers(len(node.attribute)))]
    else:
        node.op_type = graph.node[int(draw.integers(len(graph.node)))].op_type


MUTATIONS: tuple[Callable[[bytearray, np.random.Generator, list[bytes]], bytearray], ...] = (
    *(cut, flip, overwrite, remove, double, splice, merge, letters),
    *(structure,) * 6,  # most of the others end in the parser
)


def mutated(number: int, seed: int, files: list[bytes]) -> bytes:
    """Mutated file `number`: the same for the same seed and versions."""
    draw = np.random.default_rng([seed, number])
    content = bytearray(files[int(draw.integers(len(files)))])
    for _ in range(int(draw.integers(1, 3))):
        if content:
            content = MUTATIONS[int(draw.integers(len(MUTATIONS)))](content, draw, files)
    return bytes(content)


# ---- what is done with them ------------------------------------------------------------------------------------


def commands(number: int) -> Iterator[tuple[str, ...]]:
    """The command lines of one file: plans of all, and the whole way for some of those that have one."""
    form = ("--json",) if number % 2 else ("-v",)
    yield ("inspect", MODEL, "--groups", *form)
    yield ("quantize", MODEL, *TARGET, "--dry-run", *form)
    yield ("prune", MODEL, "--ratio", "0.5", *TARGET, "--dry-run", *form, *FEW)


def whole(command: tuple[str, ...], number: int) -> tuple[str, ...] | None:
    """The same command, to the end: every fifth file, for it takes a second."""
    if "--dry-run" not in command or number % 5:
        return None
    return (*(word for word in command if word not in ("--dry-run", *FEW)), *FEW, "--no-validate")


def outcome(command: tuple[str, ...], allowed: Collection[int] = ALLOWED) -> tuple[int, str | None]:
    """The exit code, and what is wrong with how it came about."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main((*command, "--debug"))
    said = err.getvalue()
    if code == 0:
        return 0, None
    if code not in allowed:
        return code, f"exit {code} of {' '.join(command)}: {said[-3000:]}"
    lines = [line.split(":")[0] for line in said.splitlines()[-2:]]
    return code, None if lines == ["error", "hint"] else f"exit {code} of {' '.join(command)} says {said[-3000:]}"


def attempts(number: int) -> Iterator[tuple[tuple[str, ...], int, str | None]]:
    """Every command that is run on a file, its exit code, and what is wrong with it."""
    for command in commands(number):
        code, fault = outcome(command)
        yield command, code, fault
        longer = whole(command, number) if code == 0 else None
        if longer is not None:
            yield longer, *outcome(longer)
            for product in PRODUCTS:
                Path(product).unlink(missing_ok=True)


def fuzz() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    parser.add_argument("--mark", type=lambda name: Path(name).absolute())
    options = parser.parse_args()
    files, codes, faults, slowest = corpus(), Counter[int](), [], (0.0, -1)
    begun, number = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        numbers = range(options.count) if options.only is None else [options.only]
        for number in numbers:
            if time.monotonic() - begun > options.seconds:
                break
            if options.mark is not None:
                options.mark.write_text(str(number))
            Path(MODEL).write_bytes(mutated(number, options.seed, files))
            start = time.monotonic()
            for _, code, fault in attempts(number):
                slowest = max(slowest, (time.monotonic() - start, number))
                codes[code] += 1
                if fault is not None:
                    faults.append({"number": number, "fault": fault})
                    print(json.dumps(faults[-1]), file=sys.stderr, flush=True)
                start = time.monotonic()
            assert os.listdir() == [MODEL], "a file was left behind"  # noqa: PTH208
    print(json.dumps({"files": number + 1, "codes": dict(codes), "faults": faults, "slowest": slowest}))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    fuzz()
