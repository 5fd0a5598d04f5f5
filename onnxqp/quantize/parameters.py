"""Scale and zero point of every activation in the plan, from its histogram. numpy only."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from onnxqp.calibrate.observers import Histogram
from onnxqp.calibrate.ranges import Range
from onnxqp.quantize.arithmetic import range_parameters
from onnxqp.specs import Observed, Shared, Spec


@dataclass(frozen=True)
class Parameters:
    """uint8, per tensor: a float32 scale and a zero point, and the range they came from."""

    scale: np.float32
    zero_point: np.uint8
    range: Range


def activation_parameters(
    specs: Mapping[str, Spec], histograms: Mapping[str, Histogram], method: Callable[[str, Histogram], Range]
) -> dict[str, Parameters]:
    """Parameters by value name; values that share are measured together and get the very same.

    `method` reads the range of a value, given its name and histogram, as in `onnxqp.calibrate.ranges`. Bounds known of
    a value cap its range: the zero point of a ReLU is then 0 and no step lies above a Clip.
    """
    merged: dict[str, Histogram] = {}
    for name, spec in specs.items():
        root = spec.with_value if isinstance(spec, Shared) else name
        if name not in histograms or (root in merged and histograms[name] is histograms.get(root)):
            continue  # a moved value: its elements were seen where they came from
        if root in merged:
            merged[root].unite(histograms[name])
        else:
            merged[root] = copy.deepcopy(histograms[name])
    own: dict[str, Parameters] = {}
    for name, spec in specs.items():
        if isinstance(spec, Observed):
            low, high = method(name, merged[name])
            low = low if spec.low is None else max(low, spec.low)
            high = high if spec.high is None else min(high, spec.high)
            scale, zero_point = range_parameters(low, high)
            own[name] = Parameters(np.float32(scale), np.uint8(zero_point), (low, high))
    return {name: own[spec.with_value if isinstance(spec, Shared) else name] for name, spec in specs.items()}
