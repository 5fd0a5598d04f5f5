"""A small network and hand-made QDQ forms of it, with the faults that the tests are to find."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 16
NAMES = ("x", "a", "b", "c", "y")  # x -conv1-> (relu) a -conv2-> (relu) b -pool-> c -gemm-> y


def samples(count: int = 6, seed: int = 5) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(0, 1, (1, CHANNELS, 6, 6)).astype(np.float32)} for _ in range(count)]


def weights(seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "w1": rng.normal(0, 0.3, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32),
        "w2": rng.normal(0, 0.2, (CHANNELS, CHANNELS, 1, 1)).astype(np.float32),
        "w3": rng.normal(0, 0.3, (CHANNELS, 10)).astype(np.float32),
    }


@dataclass
class Build:
    nodes: list = field(default_factory=list)
    initializers: list = field(default_factory=list)

    def op(self, op_type, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=f"n_{output}", **attributes))
        return output

    def constant(self, name, array):
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def model(self, batch=1, value_info=False):
        sides = [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, CHANNELS, 6, 6]),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 10]),
        ]
        graph = helper.make_graph(self.nodes, "net", sides[:1], sides[1:], self.initializers)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
        return ir.from_proto(proto)


def baseline(batch=1, **changed) -> ir.Model:
    build, arrays = Build(), weights() | changed
    for name, array in arrays.items():
        build.constant(name, array)
    build.op("Conv", ["x", "w1"], "a0", pads=[1, 1, 1, 1])
    build.op("Relu", ["a0"], "a")
    build.op("Conv", ["a", "w2"], "b0")
    build.op("Relu", ["b0"], "b")
    build.op("GlobalAveragePool", ["b"], "c0")
    build.op("Flatten", ["c0"], "c")
    build.op("Gemm", ["c", "w3"], "y")
    return build.model(batch)


RANGES = {"x": (-4.5, 4.5), "a": (0.0, 16.0), "b": (0.0, 20.0)}


def candidate(ranges=RANGES, batch=1, suffix="_dequantized", **changed) -> ir.Model:
    """x, a and b quantized to uint8 over `ranges`, both weights to int8 per channel; the rest in float."""
    build, arrays = Build(), weights() | changed

    def activation(name):
        low, high = ranges[name]
        scale = np.float32((high - low) / 255)
        grid = [build.constant(f"{name}_scale", scale), build.constant(f"{name}_zero", np.uint8(round(-low / scale)))]
        build.op("QuantizeLinear", [name, *grid], f"{name}_quantized")
        return build.op("DequantizeLinear", [f"{name}_quantized", *grid], f"{name}{suffix}")

    def weight(name):
        scale = np.abs(arrays[name]).max(axis=(1, 2, 3)) / 127
        integers = np.clip(np.rint(arrays[name] / scale[:, None, None, None]), -127, 127).astype(np.int8)
        parts = [
            build.constant(f"{name}_quantized", integers),
            build.constant(f"{name}_scale", scale.astype(np.float32)),
            build.constant(f"{name}_zero", np.zeros(len(scale), np.int8)),
        ]
        return build.op("DequantizeLinear", parts, f"{name}_dequantized", axis=0)

    build.op("Conv", [activation("x"), weight("w1")], "a0", pads=[1, 1, 1, 1])
    build.op("Relu", ["a0"], "a")
    build.op("Conv", [activation("a"), weight("w2")], "b0")
    build.op("Relu", ["b0"], "b")
    build.op("GlobalAveragePool", [activation("b")], "c0")
    build.op("Flatten", ["c0"], "c")
    build.op("Gemm", ["c", build.constant("w3", arrays["w3"])], "y")
    return build.model(batch)
