"""Every node test case that the onnx package generates, through normalise, quantize and prune.

    python tests/fuzz/node_cases.py --seconds 60 --seed 0

Some 1900 models of one or a few nodes each, with inputs. What onnxruntime runs must come out of every step with the
same answers (of int8: within what rounding explains), or be refused by one of our errors. Prints one JSON line: what
became of how many, and every fault with the name of its case (`--only NAME`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

import onnxqp
from onnxqp import model as files
from onnxqp.errors import OnnxqpError
from onnxqp.normalize import normalize
from onnxqp.options import MeasureOptions, PruneOptions, QuantizeOptions

ROUNDING = 0.1  # of the range of an output: single nodes on unit noise, eight bits, three roundings
HALF = 4e-3  # the same, of half precision: a fusion more or less is another rounding
RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
RANDOM_MODES = {"Dropout"}  # in training mode
Answers = list[Any]


def cases(seed: int, only: list[str] | None) -> Iterator[Any]:
    """All of them, in an order of their own, so that a run that ends early has seen some of everything."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        found = load_model_tests(kind="node")
    if only is not None:
        return iter([case for case in found if case.name in only])
    return (found[index] for index in np.random.default_rng(seed).permutation(len(found)))


def answers(model: onnx.ModelProto | ir.Model, inputs: list[Any]) -> Answers:
    """Of onnxruntime; whatever it raises, it raises."""
    content = files.to_bytes(model) if isinstance(model, ir.Model) else model.SerializeToString()
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = 1
    session = ort.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return list(session.run(None, dict(zip(names, inputs, strict=False))))


def same(ours: Answers, theirs: Answers, tolerance: float) -> bool:
    """Whether two lists of outputs agree, floats within `tolerance` of their range."""
    return len(ours) == len(theirs) and all(_same(a, b, tolerance) for a, b in zip(ours, theirs, strict=True))


def _same(before: Any, after: Any, tolerance: float) -> bool:
    if not isinstance(before, np.ndarray):
        if isinstance(before, list):
            return isinstance(after, list) and same(before, after, tolerance)
        return bool(before == after) or before is after
    if not isinstance(after, np.ndarray) or before.shape != after.shape or before.dtype != after.dtype:
        return False
    if before.dtype.kind != "f":
        return bool((before == after).all()) or tolerance >= ROUNDING
    a, b = before.astype(np.float64), after.astype(np.float64)
    finite = np.isfinite(a)
    if not finite.any():
        return bool(np.array_equal(a, b, equal_nan=True)) or tolerance >= ROUNDING
    span = max(float(np.ptp(a[finite])), float(np.abs(a[finite]).max()), 1e-6)
    coarse = 0.0 if before.dtype.itemsize > 2 else HALF
    return bool((np.abs(a - b)[finite] <= max(tolerance, coarse) * span).all())


def steps(model: onnx.ModelProto, feed: dict[str, Any] | None) -> Iterator[tuple[str, float, Callable[[], ir.Model]]]:
    """Each step's name, how far it may be off, and what makes the model."""

    def normalised() -> ir.Model:
        found = files.from_proto(model)
        normalize(found)
        return found

    yield "normalize", 1e-4, normalised
    if feed is None:
        return
    data, measure = [feed] * 5, MeasureOptions(validate=False)
    quantizing = QuantizeOptions(target="x64-avx2")
    pruning = PruneOptions(ratio=0.5, target="x64-avx2", recover="none", criterion="l1")
    yield "quantize", ROUNDING, lambda: made(onnxqp.quantize(model, options=quantizing, data=data, measure=measure))
    yield "prune", np.inf, lambda: made(onnxqp.prune(model, options=pruning, data=data, measure=measure))


def made(result: onnxqp.Result) -> ir.Model:
    assert result.model is not None
    return result.model


def with_weights(model: onnx.ModelProto, inputs: list[Any]) -> tuple[onnx.ModelProto, list[Any]] | None:
    """The case as an exporter writes it: all inputs but the first are initializers. None where that is no change."""
    if len(inputs) < 2 or not all(isinstance(each, np.ndarray) and each.dtype != object for each in inputs):
        return None
    found = onnx.ModelProto()
    found.CopyFrom(model)
    names = [each.name for each in model.graph.input]
    if len(names) != len(inputs):
        return None
    found.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in zip(names[1:], inputs[1:], strict=True)
    )
    del found.graph.input[1:]
    found.ir_version = max(found.ir_version, 4)
    return found, inputs[:1]


def judged(case: Any) -> Iterator[tuple[str, str, str | None]]:
    """Per step: its name, what became of it, and the fault if it is one."""
    if not case.data_sets:  # a model that would have to be fetched
        return
    inputs = list(case.data_sets[0][0])
    yield from _judged(case.model, inputs, "")
    other = with_weights(case.model, inputs)
    if other is not None:
        yield from _judged(*other, " with weights")


def _judged(graph: onnx.ModelProto, inputs: list[Any], form: str) -> Iterator[tuple[str, str, str | None]]:
    random = any(node.op_type in RANDOM | RANDOM_MODES for node in graph.graph.node)
    try:
        before = answers(graph, inputs)
    except Exception:
        before = None
    names = [each.name for each in graph.graph.input]
    tensors = len(names) == len(inputs) and all(isinstance(each, np.ndarray) for each in inputs)
    feed = dict(zip(names, inputs, strict=True)) if before is not None and tensors else None
    for step, tolerance, make in steps(graph, feed):
        name = step + form
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = make()
        except OnnxqpError as error:
            sound = bool(error.message and error.hint) and error.code in (1, 3, 4, 5, 7)
            yield name, f"refused {error.code}", None if sound else f"{type(error).__name__}: {error.message}"
            continue
        except Exception:
            yield name, "fault", traceback.format_exc() if before is not None else None
            continue
        if before is None or random:
            yield name, "made", None
            continue
        try:
            after = answers(model, inputs)
        except Exception as error:
            yield name, "fault", f"does not run: {error}"
            continue
        yield (name, "same", None) if same(before, after, tolerance) else (name, "fault", "other answers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append")
    options = parser.parse_args()
    counts, faults = Counter[str](), []
    found = cases(options.seed, options.only)
    begun = time.monotonic()
    for case in found:
        counts["cases"] += 1
        for step, became, fault in judged(case):
            counts[f"{step}: {became}"] += 1
            if fault is not None:
                faults.append({"case": case.name, "step": step, "fault": fault[-1500:]})
        if time.monotonic() - begun > options.seconds:
            break
    print(json.dumps({"counts": dict(sorted(counts.items())), "faults": faults}))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
