"""What the builds say about a model, and check: accuracy, harm of blind cutting, a row of README.md."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import numpy_helper

HERE = Path(__file__).resolve().parent
MOST_BYTES = 2_000_000


def accuracy(model: str | bytes, images: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    """Percent of `images`, fed as `image` in batches of 50, whose largest logit is the label."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    logits = [session.run(["logits"], {"image": images[i : i + 50]})[0] for i in range(0, len(images), 50)]
    return float((np.concatenate(logits).argmax(1) == labels).mean() * 100)


def halve_filters(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the half of the filters of every Conv and dense layer that has the smaller L1 norms.

    Weights (and the bias, where the node itself has one) become 0. The first layer and the last, the classifier, stay.
    """
    halved = onnx.ModelProto()
    halved.CopyFrom(model)
    initializers = {tensor.name: tensor for tensor in halved.graph.initializer}
    layers = [n for n in halved.graph.node if n.op_type in ("Conv", "Gemm", "MatMul") and n.input[1] in initializers]
    for node in layers[1:-1]:
        weights = numpy_helper.to_array(initializers[node.input[1]])
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        axis = 0 if node.op_type == "Conv" or transposed else 1
        norms = np.abs(weights).sum(tuple(i for i in range(weights.ndim) if i != axis))
        cut = np.argsort(norms, kind="stable")[: len(norms) // 2]
        for name in node.input[1:]:
            tensor = initializers[name]
            values = np.array(numpy_helper.to_array(tensor))
            values[(slice(None),) * (axis if values.ndim > 1 else 0) + (cut,)] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, name))
    return halved


def record(path: Path, exporter: str, images: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> None:
    """Measure the model at `path`, hold it to what this folder promises, and write its row into README.md."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    size = path.stat().st_size
    full = accuracy(str(path), images, labels)
    half = accuracy(halve_filters(model).SerializeToString(), images, labels)
    print(f"{path.name}: {size} bytes, {full:.1f} %, {half:.1f} % with half of the filters zeroed", flush=True)
    if size >= MOST_BYTES or not 90 <= full <= 99.5 or full - half <= 3:
        raise SystemExit(f"{path.name} is not what README.md promises")
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    row = f"| `{path.name}` | {exporter}, opset {opset} | {size / 1e6:.2f} MB | {full:.1f} % | {half:.1f} % |"
    readme = HERE / "README.md"
    text = readme.read_text(encoding="utf-8")
    old = re.compile(rf"^\| `{re.escape(path.name)}` \|.*$", re.MULTILINE)
    if not old.search(text):
        raise SystemExit(f"README.md has no row for {path.name}")
    readme.write_text(old.sub(row, text), encoding="utf-8")
