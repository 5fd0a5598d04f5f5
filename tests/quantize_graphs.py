"""Small float models for the tests of quantization, and how far a quantized one is from its original."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from onnxqp.normalize import normalize
from onnxqp.runtime import Session, optimized_graph


class Graph:
    """Builds a model node by node; every method returns the name of a value."""

    def __init__(self, shape=(1, 16, 12, 12), seed=0, name="x"):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.weights = [], {}
        self.inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        self.shape, self.name = shape, name

    def constant(self, array, name="c"):
        key = f"{name}{len(self.weights)}"
        self.weights[key] = np.asarray(array)
        return key

    def op(self, op_type, *inputs, outputs=1, **attributes):
        number = len(self.nodes)
        names = [f"v{number}" if outputs == 1 else f"v{number}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op_type, inputs, names, name=f"{op_type}{number}", **attributes))
        return names[0] if outputs == 1 else names

    def conv(self, x, into=16, out=16, kernel=3, group=1, bias=True, **attributes):
        w = self.rng.normal(0, 1 / np.sqrt(into // group * kernel**2), (out, into // group, kernel, kernel))
        operands = [self.constant(w.astype(np.float32), "w")]
        if bias:
            operands.append(self.constant(self.rng.normal(0, 0.3, out).astype(np.float32), "b"))
        return self.op("Conv", x, *operands, group=group, pads=[kernel // 2] * 4, **attributes)

    def conv_relu(self, x, *args, **keywords):
        return self.op("Relu", self.conv(x, *args, **keywords))

    def matrix(self, rows, columns, name="w"):
        return self.constant(self.rng.normal(0, 1 / np.sqrt(rows), (rows, columns)).astype(np.float32), name)

    def proto(self, *outputs, opset=17):
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        weights = [numpy_helper.from_array(array, name) for name, array in self.weights.items()]
        graph = helper.make_graph(self.nodes, "net", self.inputs, infos, weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)

    def model(self, *outputs, opset=17):
        """The normalised model, as the passes get it."""
        model = ir.from_proto(onnx.shape_inference.infer_shapes(self.proto(*outputs, opset=opset)))
        normalize(model)
        return model

    def samples(self, count=8):
        rng = np.random.default_rng(1)
        shape = [size if isinstance(size, int) else 3 for size in self.shape]
        return [{self.name: rng.normal(0, 1, shape).astype(np.float32)} for _ in range(count)]


def sqnr_db(model, other, feeds):
    """Signal to error of the worst output, in decibels."""
    ours, theirs = Session(model), Session(other)
    signal, error = {}, {}
    for feed in feeds:
        a, b = ours.run(feed), theirs.run(feed)
        for name in a:
            assert a[name].shape == b[name].shape
            signal[name] = signal.get(name, 0.0) + np.square(a[name], dtype=np.float64).sum()
            error[name] = error.get(name, 0.0) + np.square(a[name] - b[name], dtype=np.float64).sum()
    return min(10 * np.log10(signal[name] / max(error[name], 1e-30)) for name in signal)


def kernels(model):
    """The operator types that onnxruntime really runs, in order."""
    return [node.op_type for node in optimized_graph(model).graph.node]
