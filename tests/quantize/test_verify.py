"""Why a Q/DQ pattern did not become an integer kernel: hand-made graphs, each with one condition broken."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from installed import RUNTIME
from quantize_graphs import Graph, kernels

import onnxqp
from onnxqp.options import MeasureOptions, QuantizeOptions, WriteOptions
from onnxqp.plan import PlannedNode, QuantizationPlan
from onnxqp.quantize.verify import unfused_nodes
from onnxqp.runtime import Session

U8, S8 = np.uint8, np.int8


class Quantized(Graph):
    """A graph with Q and DQ placed by hand."""

    def pair(self, value, scale=0.05, zero=128, kind=U8):
        """value -> Q -> DQ, with scalar parameters unless arrays are given."""
        operands = [self.constant(np.asarray(scale, np.float32)), self.constant(np.asarray(zero, kind))]
        return self.op("DequantizeLinear", self.op("QuantizeLinear", value, *operands), *operands)

    def weight(self, shape=(16, 16, 3, 3), kind=S8, scale=0.01, zero=0, **attributes):
        integers = self.rng.integers(-100 if kind == S8 else 0, 100, shape).astype(kind)
        scales = self.constant(np.asarray(scale, np.float32))
        zeros = self.constant(np.broadcast_to(np.asarray(zero, kind), np.shape(scale)).copy())
        return self.op("DequantizeLinear", self.constant(integers), scales, zeros, **attributes)

    def int_conv(self, x, weight=None, *bias):
        return self.op("Conv", x, weight or self.weight(), *bias, pads=[1] * 4)

    def verdict(self, output, op_type, fused, opset=21):
        """The reason against the only node of a type, or None where it fused."""
        model = ir.from_proto(self.proto(output, opset=opset))
        (node,) = [node for node in model.graph if node.op_type == op_type]
        planned = PlannedNode(node.name, op_type, quantizable=True, integer=True, fused=(fused,))
        notes = unfused_nodes(model, QuantizationPlan("x64-avx2", (planned,)))
        assert (notes == []) == (fused in kernels(model))
        return notes[0].reason if notes else None


def behind(op_type, *operands, **attributes):
    """A node between the Conv and its Q."""
    return lambda g, y: g.op(op_type, y, *(g.constant(np.float32(v)) for v in operands), **attributes)


def same(graph, value):
    return value


CONVOLUTIONS = {
    # name: (parameters of x, weight, bias, what stands behind, parameters of y, words or None)
    "as it should be": ({}, {}, None, same, {}, None),
    "Relu, zero point at the minimum": ({}, {}, None, behind("Relu"), {"zero": 0}, None),
    "Relu, zero point above": ({}, {}, None, behind("Relu"), {"zero": 3}, "the zero point is 3, not 0"),
    "Clip to 6, steps of 6/255": ({}, {}, None, behind("Clip", 0, 6), {"zero": 0, "scale": 6 / 255}, None),
    "Clip to 6, wider steps": ({}, {}, None, behind("Clip", 0, 6), {"zero": 0, "scale": 8 / 255}, "from 0 to 8"),
    "a function behind": ({}, {}, None, behind("LeakyRelu"), {}, "LeakyRelu stands between it and its QuantizeLinear"),
    "HardSwish behind": ({}, {}, None, behind("HardSwish"), {}, "HardSwish stands between it"),
    "x has a vector for a scale": ({"scale": [0.05], "zero": [128]}, {}, None, same, {}, None),
    "16 bits": ({"kind": np.uint16}, {}, None, same, {"kind": np.uint16}, "uint16: integer kernels take 8 bits"),
    # where one node reads a tensor, int8 becomes uint8 before the fusion on x64
    "y of another type": ({}, {}, None, same, {"zero": 0, "kind": S8}, None),
    "int8 throughout": ({"zero": 0, "kind": S8}, {"kind": U8, "zero": 9}, None, same, {"zero": 0, "kind": S8}, None),
    "weight per output channel": ({}, {"scale": [0.01] * 16, "axis": 0}, None, same, {}, None),
    "weight of 16 bits": ({}, {"kind": np.int16}, None, same, {}, "its weight is int16"),
    "bias int32": ({}, {}, np.int32, same, {}, None),
    "bias int8": ({}, {}, np.int8, same, {}, "its bias is int8, not int32"),
    "bias float": ({}, {}, np.float32, same, {}, None),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_conditions_of_a_convolution(case):
    of_x, of_weight, bias, follow, of_y, words = CONVOLUTIONS[case]
    graph = Quantized()
    x, weight = graph.pair(graph.name, **of_x), graph.weight(**of_weight)
    operands = []
    if bias is np.float32:
        operands = [graph.constant(np.ones(16, np.float32))]
    elif bias is not None:
        operands = [graph.op("DequantizeLinear", graph.constant(np.ones(16, bias)), graph.constant(np.float32(0.0005)))]
    y = follow(graph, graph.int_conv(x, weight, *operands))
    reason = graph.verdict(graph.op("Abs", graph.pair(y, **of_y)), "Conv", "QLinearConv")
    assert (reason is None) == (words is None), reason
    assert words is None or words in reason


def test_an_output_read_in_float_and_an_input_that_is():
    graph = Quantized()
    y = graph.int_conv(graph.pair(graph.name))
    last = graph.op("Add", graph.pair(y), graph.op("Abs", y))
    assert "is read in float" in graph.verdict(last, "Conv", "QLinearConv")
    graph = Quantized()
    last = graph.op("Abs", graph.pair(graph.int_conv(graph.name)))
    assert "its input x is not dequantized" in graph.verdict(last, "Conv", "QLinearConv")


def test_a_y_of_another_type_with_two_readers():
    graph = Quantized()
    y = graph.int_conv(graph.pair(graph.name))
    scale, zero = graph.constant(np.float32(0.05)), graph.constant(S8(0))
    integers = graph.op("QuantizeLinear", y, scale, zero)
    first, second = (graph.op("DequantizeLinear", integers, scale, zero) for _ in range(2))
    reason = graph.verdict(graph.op("Add", graph.op("Abs", first), graph.op("Sin", second)), "Conv", "QLinearConv")
    assert "its input is uint8 and its output int8" in reason


def test_int8_activations_with_two_readers():
    """The trap of int8 activations on x64 (section 4.6 of the study): converted to uint8 where one node reads them."""
    graph = Quantized()
    x = graph.pair(graph.name, zero=0, kind=S8)
    scale, zero = graph.constant(np.float32(0.05)), graph.constant(S8(0))
    stem = graph.op("QuantizeLinear", graph.op("Abs", x), scale, zero)
    first, second = (graph.op("DequantizeLinear", stem, scale, zero) for _ in range(2))
    y = graph.pair(graph.int_conv(first), zero=0, kind=S8)
    reason = graph.verdict(graph.op("Mul", graph.op("Abs", y), graph.op("Sin", second)), "Conv", "QLinearConv")
    assert "on x64, int8 activations" in str(reason)


@pytest.mark.parametrize("factors", [(1.0, 1.0), (0.5, 1.0), (1.0, 0.5)])
def test_factors_of_a_gemm(factors):
    graph = Quantized((4, 16))
    bias = graph.op("DequantizeLinear", graph.constant(np.ones(8, np.int32)), graph.constant(np.float32(0.0005)))
    operands = [graph.weight((16, 8)), bias]
    y = graph.op("Gemm", graph.pair(graph.name), *operands, alpha=factors[0], beta=factors[1])
    reason = graph.verdict(graph.op("Abs", graph.pair(y)), "Gemm", "QGemm")
    fuses = factors[1] == 1.0 and (factors[0] == 1.0 or RUNTIME < (1, 28))  # which took any alpha
    assert (reason is None) == fuses
    assert reason is None or "alpha = beta = 1" in reason


@pytest.mark.parametrize("op_type", ["MatMul", "Gemm"])
def test_a_clipping_activation_behind_a_product_that_writes_float(op_type):
    for function, words in (("Sigmoid", None), ("Relu", "has no QuantizeLinear behind")):
        graph = Quantized((4, 16))
        y = graph.op(op_type, graph.pair(graph.name), graph.weight((16, 8), scale=[0.01] * 8, axis=1))
        last = graph.op("Softmax", graph.op(function, y))
        reason = graph.verdict(last, op_type, {"MatMul": "MatMulIntegerToFloat", "Gemm": "QGemm"}[op_type])
        assert (reason is None) == (words is None), reason
        assert words is None or words in reason


@pytest.mark.parametrize("op_type", ["Add", "Mul", "Concat"])
def test_operands_of_one_type(op_type):
    for kind, words in ((U8, None), (S8, "different types")):
        graph = Quantized()
        constant = graph.op(
            "DequantizeLinear",
            graph.constant(np.full((1, 16, 12, 12), 3, kind)),
            graph.constant(np.float32(0.1)),
            graph.constant(kind(0)),
        )
        attributes = {"axis": 1} if op_type == "Concat" else {}
        y = graph.op(op_type, graph.pair(graph.name), constant, **attributes)
        reason = graph.verdict(graph.op("Abs", graph.pair(y)), op_type, f"QLinear{op_type}")
        assert (reason is None) == (words is None), reason
        assert words is None or words in reason


@pytest.mark.parametrize("op_type", ["Sub", "Tanh", "Softplus"])
def test_operators_without_a_kernel(op_type):
    graph = Quantized()
    x = graph.pair(graph.name)
    y = graph.op(op_type, *([x, x] if op_type == "Sub" else [x]))
    assert f"no integer {op_type}" in graph.verdict(graph.op("Abs", graph.pair(y)), op_type, f"QLinear{op_type}")


def test_a_linear_resize_stays_in_float():
    graph = Quantized()
    sizes = graph.constant(np.array([1, 1, 2, 2], np.float32))
    y = graph.op("Resize", graph.pair(graph.name), "", sizes, mode="linear")
    assert "nearest" in graph.verdict(graph.op("Abs", graph.pair(y)), "Resize", "NhwcResize")


def test_movements_need_equal_parameters():
    graph = Quantized()
    x = graph.pair(graph.int_conv(graph.pair(graph.name)), zero=0, scale=0.1)
    y = graph.pair(graph.op("MaxPool", x, kernel_shape=[2, 2]), zero=0, scale=0.2)
    reason = graph.verdict(graph.op("Abs", y), "MaxPool", "NhwcMaxPool")
    assert "different scales" in reason


def test_one_session_proves_the_result_and_tells_what_fused(tmp_path, monkeypatch):
    graph = Graph((1, 32, 14, 14))
    model = graph.model(graph.op("Tanh", graph.conv_relu(graph.conv_relu(graph.name, 32, 32), 32, 32)))
    opened = []
    real = Session.__init__

    def init(self, source, **keywords):
        opened.append((isinstance(source, Path), keywords.get("dump") is not None))
        real(self, source, **keywords)

    monkeypatch.setattr(Session, "__init__", init)
    result = onnxqp.quantize(
        model,
        options=QuantizeOptions(target="x64-vnni"),
        measure=MeasureOptions(validate=False),
        write=WriteOptions(str(tmp_path / "out.onnx")),
    )
    assert result.report.quantization.nodes_fused == result.report.quantization.nodes_quantized > 0
    assert [look for on_disk, look in opened if on_disk] == [True]
    assert sum(look for _, look in opened) == 1
