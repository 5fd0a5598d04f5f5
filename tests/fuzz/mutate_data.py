"""Mutated data files through the command line: whatever happens must end in the table of exit codes.

    python tests/fuzz/mutate_data.py --seconds 20 --seed 0

Arrays, images, labels, test data sets, calibration files, profiles and configurations are cut short, flipped,
overwritten and spliced, and given to the command that reads them. Prints one JSON line as `mutate.py` does.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from mutate import cut, double, flip, letters, outcome, overwrite, remove, splice
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from onnxqp.cli import main as onnxqp

MUTATIONS = (cut, flip, flip, overwrite, remove, double, splice, letters)
QUICK = ("--samples", "3", "--no-validate", "--target", "x64-avx2")
CALIBRATE = ("calibrate", "m.onnx", "-o", "s.npz", "--force", "--samples", "3", "--data")
ALLOWED = (0, 1, 2, 4, 6)
WRITTEN = ("s.npz", "m.int8.onnx", "m.pruned.onnx")


def model() -> onnx.ModelProto:
    draw = np.random.default_rng(0)
    tensors = [
        numpy_helper.from_array(draw.normal(size=shape).astype(np.float32), name)
        for name, shape in (("w", (8, 3, 3, 3)), ("v", (8, 4)))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("GlobalAveragePool", ["b"], ["c"], name="pool"),
        helper.make_node("Flatten", ["c"], ["d"], name="flat"),
        helper.make_node("MatMul", ["d", "v"], ["y"], name="head"),
    ]
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["N", 3, 8, 8]), ("y", ["N", 4]))
    ]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def corpus(folder: Path) -> list[tuple[str, bytes, tuple[str, ...]]]:
    """What is mutated: the name of a file, its content, and the command that reads it. Writes what stays whole."""
    draw = np.random.default_rng(0)
    (folder / "m.onnx").write_bytes(model().SerializeToString())
    x = draw.normal(size=(6, 3, 8, 8)).astype(np.float32)
    labels = np.arange(6) % 4
    found: list[tuple[str, bytes, tuple[str, ...]]] = []
    array, arrays = io.BytesIO(), io.BytesIO()
    np.save(array, x)
    np.savez(arrays, x=x, labels=labels)
    found.append(("d.npy", array.getvalue(), (*CALIBRATE, "d.npy")))
    found.append(("d.npz", arrays.getvalue(), (*CALIBRATE, "d.npz")))
    found.append(("d.npz", arrays.getvalue(), ("quantize", "m.onnx", *QUICK, "--force", "--eval", "d.npz")))
    image = Image.fromarray(draw.integers(0, 255, (8, 8, 3), np.uint8))
    (folder / "images").mkdir()
    for place in range(3):
        image.save(folder / "images" / f"{place}.png")
    for kind in ("png", "jpeg", "bmp", "gif"):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        command = (*CALIBRATE, "images", "--preprocess", "unit")
        found.append((f"images/extra.{kind.replace('jpeg', 'jpg')}", buffer.getvalue(), command))
    rows = "file,label\n0.png,0\n1.png,1\n2.png,3\n"
    found.append(("images/labels.csv", rows.encode(), ("quantize", "m.onnx", *QUICK, "--force", "--eval", "images")))
    (folder / "set" / "test_data_set_0").mkdir(parents=True)
    tensor = numpy_helper.from_array(x[:1], "x").SerializeToString()
    found.append(("set/test_data_set_0/input_0.pb", tensor, (*CALIBRATE, "set")))
    np.save(folder / "whole.npy", x)
    words = [*CALIBRATE[:-1], "--data", "whole.npy"]
    words[words.index("s.npz")] = "whole.npz"
    quietly(tuple(words))
    reading = ("quantize", "m.onnx", *QUICK, "--force", "--calibration", "c.npz")
    found.append(("c.npz", (folder / "whole.npz").read_bytes(), reading))
    profiled = ("prune", "m.onnx", "--latency-ratio", "0.9", "--samples", "3", "--no-validate", "--force")
    quietly((*profiled, "--data", "whole.npy", "--save-profile", "whole.json"))
    replayed = (*profiled, "--data", "whole.npy", "--profile", "p.json")
    found.append(("p.json", (folder / "whole.json").read_bytes(), replayed))
    text = b'model = "m.onnx"\nsamples = 3\n[budgets]\nmax-size = "2MB"\nmin-size-ratio = 0.1\n[prune]\nratio = 0.5\n'
    found.append(("c.toml", text, ("prune", "--config", "c.toml", "--dry-run")))
    preprocessing = b'{"do_resize": true, "size": {"height": 8, "width": 8}, "image_mean": [0.5, 0.5, 0.5]}'
    found.append(("pre.json", preprocessing, (*CALIBRATE, "images", "--preprocess", "pre.json")))
    return found


def quietly(command: tuple[str, ...]) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert onnxqp(command) == 0, command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    options = parser.parse_args()
    codes, faults = Counter[int](), []
    begun, slowest = time.monotonic(), (0.0, -1)
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        folder = Path(place)
        known = corpus(folder)
        for name in WRITTEN:
            (folder / name).unlink(missing_ok=True)
        whole = set(folder.rglob("*"))
        contents = [content for _, content, _ in known]
        for number in range(options.count) if options.only is None else [options.only]:
            if time.monotonic() - begun > options.seconds:
                break
            draw = np.random.default_rng([options.seed, number])
            name, content, command = known[number % len(known)]
            mutated = bytearray(content)
            for _ in range(int(draw.integers(1, 4))):
                if mutated:
                    mutated = MUTATIONS[int(draw.integers(len(MUTATIONS)))](mutated, draw, contents)
            (folder / name).write_bytes(mutated)
            start = time.monotonic()
            allowed = (*ALLOWED, 3) if name == "c.toml" else ALLOWED  # it may name another model
            code, fault = outcome(command, allowed)
            slowest = max(slowest, (time.monotonic() - start, number))
            codes[code] += 1
            if fault is not None:
                faults.append({"number": number, "file": name, "fault": fault})
                print(json.dumps(faults[-1]), file=sys.stderr, flush=True)
            for left in (folder / name, *(folder / each for each in WRITTEN)):
                left.unlink(missing_ok=True)
            left_behind = set(folder.rglob("*")) ^ whole
            assert not left_behind, f"left behind by {number}: {left_behind}"
    print(json.dumps({"files": sum(codes.values()), "codes": dict(codes), "faults": faults, "slowest": slowest}))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
