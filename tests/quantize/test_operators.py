"""Each operator between integer kernels: it fuses as the table says, and the result stays close to float."""

import numpy as np
import onnx_ir as ir
import pytest
from installed import RUNTIME
from quantize_graphs import Graph, kernels, sqnr_db

from onnxqp.model import clone
from onnxqp.options import QuantizeOptions, Selection
from onnxqp.quantize import quantize_model
from onnxqp.runtime import Session

EVERYTHING = Selection(include=("*",))  # names every node, so that no cost keeps it in float


def run(graph, *outputs, options=None, target="x64-vnni", opset=17):
    model = graph.model(*outputs, opset=opset)
    result = quantize_model(model, graph.samples(), options or QuantizeOptions(target=target, selection=EVERYTHING))
    assert result.quantization.unfused == []
    assert result.quantization.nodes_fused == result.quantization.nodes_quantized
    return model, result


def between(operator, opset=17):
    """conv + relu -> operator -> conv + relu; the quantized model's kernels, and its distance from float."""
    graph = Graph()
    value = operator(graph, graph.conv_relu(graph.name))
    last = graph.conv_relu(value) if isinstance(value, str) else graph.conv_relu(value[0], into=value[1])
    model, result = run(graph, last, opset=opset)
    assert sqnr_db(model, result.model, graph.samples()) > 28
    return kernels(result.model)


I64 = {"dtype": np.int64}

ARITHMETIC = {
    "QLinearAdd": lambda g, x: g.op("Add", x, g.conv_relu(x)),
    "QLinearMul": lambda g, x: g.op("Mul", x, g.conv_relu(x)),
    "QLinearSigmoid": lambda g, x: g.op("Sigmoid", g.conv(x)),
    "QLinearLeakyRelu": lambda g, x: g.op("LeakyRelu", g.conv(x), alpha=0.1),
    "QLinearConcat": lambda g, x: (g.op("Concat", x, g.conv_relu(x, out=32), axis=1), 48),
    "QLinearGlobalAveragePool": lambda g, x: g.op("GlobalAveragePool", x),
    "NhwcMaxPool": lambda g, x: g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]),
    "QLinearWhere": lambda g, x: g.op("Where", g.op("Greater", x, g.constant(np.float32(0.1))), x, g.conv_relu(x)),
}


@pytest.mark.parametrize("kernel", ARITHMETIC)
def test_arithmetic_runs_as_its_integer_kernel(kernel):
    found = between(ARITHMETIC[kernel])
    assert kernel in found
    assert "Conv" not in found
    assert "FusedConv" not in found


MOVEMENTS = {
    "Transpose": lambda g, x: g.op("Transpose", x, perm=[0, 1, 3, 2]),
    "Reshape": lambda g, x: g.op("Reshape", x, g.constant(np.array([1, 16, 6, 24]))),
    "Slice": lambda g, x: g.op("Slice", x, *(g.constant(np.array([n])) for n in (1, 11, 2, 2))),
    "Split": lambda g, x: (
        g.op("Concat", *reversed(g.op("Split", x, g.constant(np.array([8, 8])), outputs=2, axis=1)), axis=1),
        16,
    ),
    "Gather": lambda g, x: (g.op("Gather", x, g.constant(np.array([3, 1, 2, 0])), axis=1), 4),
    "GatherElements": lambda g, x: g.op(
        "GatherElements", x, g.constant(np.arange(2304).reshape(1, 16, 12, 12) % 7), axis=3
    ),
    "Squeeze": lambda g, x: g.op("Unsqueeze", g.op("Squeeze", x, g.constant(np.array([0]))), g.constant(np.array([0]))),
    "Tile": lambda g, x: g.op("Tile", x, g.constant(np.array([1, 1, 2, 1]))),
    "Expand": lambda g, x: g.op("Expand", x, g.constant(np.array([2, 16, 12, 12]))),
    "Resize": lambda g, x: g.op("Resize", x, "", g.constant(np.array([1, 1, 2, 2], np.float32)), mode="nearest"),
    "DepthToSpace": lambda g, x: (g.op("DepthToSpace", x, blocksize=2), 4),
    "ReduceMax": lambda g, x: g.op("ReduceMax", x, axes=[3], keepdims=1),
    "ReduceMin": lambda g, x: g.op("ReduceMin", x, axes=[2], keepdims=1),
    "Pad": lambda g, x: (
        g.op("Pad", x, g.constant(np.array([0, 1, 0, 0, 0, 1, 0, 0])))
        and (g.op("Slice", g.nodes[-1].output[0], *(g.constant(np.array([n])) for n in (1, 17, 1))), 16)
    ),
}


@pytest.mark.parametrize("operator", MOVEMENTS)
def test_movements_stay_on_integers(operator):
    found = between(MOVEMENTS[operator])
    inner = found[found.index("QLinearConv") : len(found) - found[::-1].index("QLinearConv")]
    assert not {"QuantizeLinear", "DequantizeLinear", "Conv"} & set(inner)


@pytest.mark.parametrize("fill", [None, 0.0, 0.7])
def test_pad_on_integers_fills_with_zero_alone(fill):
    graph = Graph()
    operands = [] if fill is None else [graph.constant(np.float32(fill))]
    sizes = graph.constant(np.array([0, 2, 1, 1, 0, 2, 1, 1]))
    padded = graph.op("Pad", graph.conv(graph.name), sizes, *operands)
    model, result = run(graph, graph.conv(padded, into=20))
    assert sqnr_db(model, result.model, graph.samples()) > 28
    found = kernels(result.model)
    assert (found[found.index("Pad") - 1] == "DequantizeLinear") == bool(fill)


ACTIVATIONS = {
    "Relu": lambda g, x: g.op("Relu", x),
    "Relu6": lambda g, x: g.op("Clip", x, g.constant(np.float32(0)), g.constant(np.float32(0.8))),
    "two-sided": lambda g, x: g.op("Clip", x, g.constant(np.float32(-0.4)), g.constant(np.float32(0.6))),
    "no lower bound": lambda g, x: g.op("Clip", x, "", g.constant(np.float32(0.5))),
    "twice": lambda g, x: g.op("Clip", g.op("Relu", x), "", g.constant(np.float32(0.5))),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("maker", ["conv", "add"])
def test_clipping_activations_are_absorbed(activation, maker):
    if (maker, activation) == ("conv", "no lower bound") and RUNTIME < (1, 31):
        pytest.skip("onnxruntime before 1.31 refuses what it makes of this itself: two nodes with the same name")
    graph = Graph()
    x = graph.conv(graph.name)
    if maker == "add":
        x = graph.op("Add", x, graph.conv(graph.name))
    last = graph.conv(ACTIVATIONS[activation](graph, x))
    model, result = run(graph, last)
    assert sqnr_db(model, result.model, graph.samples()) > 28
    assert not {"Relu", "Clip", "Conv"} & set(kernels(result.model))


@pytest.mark.parametrize("group", [1, 4, 16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("target", ["x64-vnni", "x64-avx2", "arm64", "portable"])
def test_convolutions_of_all_groups(group, bias, target):
    graph = Graph()
    last = graph.conv(graph.conv_relu(graph.name, group=group, bias=bias), group=group, bias=bias)
    model, result = run(graph, last, target=target)
    assert kernels(result.model).count("QLinearConv") == 2
    assert sqnr_db(model, result.model, graph.samples()) > 28
    safe = target in ("x64-avx2", "portable") and group < 16
    assert (result.quantization.weights_made_safe > 0) == safe


@pytest.mark.parametrize("rank", [1, 3])
def test_convolutions_over_one_and_three_axes(rank):
    graph = Graph((1, 8, *[9] * rank))
    w = graph.constant(graph.rng.normal(0, 0.2, (16, 8, *[3] * rank)).astype(np.float32))
    model, result = run(graph, graph.op("Conv", graph.name, w))
    assert "QLinearConv" in kernels(result.model)
    assert sqnr_db(model, result.model, graph.samples()) > 28


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", ["vector", "row", "scalar", "none"])
@pytest.mark.parametrize("factors", [(1.0, 1.0), (0.5, 2.0)])
def test_gemm(transposed, bias, factors):
    graph = Graph((4, 32))
    array = graph.rng.normal(0, 1, {"vector": 24, "row": (1, 24), "scalar": (), "none": 0}[bias]).astype(np.float32)
    w = graph.matrix(32, 24) if not transposed else graph.matrix(24, 32)
    operands = [w] if bias == "none" else [w, graph.constant(array)]
    y = graph.op("Gemm", graph.name, *operands, transB=transposed, alpha=factors[0], beta=factors[1])
    model, result = run(graph, y)
    assert kernels(result.model) == ["QuantizeLinear", "QGemm"]  # and floats come straight out of it
    assert sqnr_db(model, result.model, graph.samples()) > 30


@pytest.mark.parametrize("shape", [(4, 32), ("n", 32), (2, 4, 32), ("n", 4, 32)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("behind", ["Relu", "Softmax", None])
def test_matmul_needs_no_integer_output(shape, bias, behind):
    graph = Graph(shape)
    y = graph.op("MatMul", graph.name, graph.matrix(32, 24))
    if bias:
        y = graph.op("Add", y, graph.constant(graph.rng.normal(0, 1, 24).astype(np.float32)))
    if behind:
        y = graph.op(behind, y)
    model, result = run(graph, y)
    found = kernels(result.model)
    assert {"QGemm", "MatMulIntegerToFloat"} & set(found)
    assert not {"MatMul", "Gemm", "FusedGemm"} & set(found)
    assert sqnr_db(model, result.model, graph.samples()) > 30


@pytest.mark.parametrize("op_type", ["MatMul", "Gemm"])
@pytest.mark.parametrize("activation", ["Relu", "Relu6", "two-sided", "no lower bound", "twice"])
def test_a_product_may_write_float_before_a_clipping_activation(op_type, activation):
    graph = Graph((4, 32))
    y = ACTIVATIONS[activation](graph, graph.op(op_type, graph.name, graph.matrix(32, 24)))
    model, result = run(graph, graph.op("Softmax", y))
    assert {"QGemm", "MatMulIntegerToFloat"} & set(kernels(result.model))
    assert sqnr_db(model, result.model, graph.samples()) > 30


def test_matmul_between_integers_has_an_integer_output():
    graph = Graph((4, 32))
    y = graph.op("MatMul", graph.op("MatMul", graph.name, graph.matrix(32, 32)), graph.matrix(32, 24))
    model, result = run(graph, y)
    assert kernels(result.model) == ["QuantizeLinear", "QLinearMatMul", "MatMulIntegerToFloat"]
    assert sqnr_db(model, result.model, graph.samples()) > 30


def test_a_batch_of_matrices_is_quantized_per_tensor():
    graph = Graph((3, 4, 8))
    w = graph.constant(graph.rng.normal(0, 1, (3, 8, 5)).astype(np.float32))
    model, result = run(graph, graph.op("MatMul", graph.name, w))
    assert "MatMulIntegerToFloat" in kernels(result.model)
    assert sqnr_db(model, result.model, graph.samples()) > 30


@pytest.mark.parametrize("operator", ["Add", "Mul"])
def test_a_constant_operand_becomes_uint8(operator):
    graph = Graph()
    c = graph.constant(graph.rng.uniform(-1, 1, (1, 16, 12, 12)).astype(np.float32))
    model, result = run(graph, graph.conv(graph.op(operator, graph.conv_relu(graph.name), c)))
    assert f"QLinear{operator}" in kernels(result.model)
    assert sqnr_db(model, result.model, graph.samples()) > 28


SMOOTH = {
    "SiLU": (lambda g, x: g.op("Mul", x, g.op("Sigmoid", x)), {"QLinearSigmoid", "QLinearMul"}),
    "QuickGelu": (
        lambda g, x: g.op("Mul", x, g.op("Sigmoid", g.op("Mul", x, g.constant(np.float32(1.702))))),
        {"QLinearSigmoid", "QLinearMul"},
    ),
    "HardSwish in parts": (
        lambda g, x: g.op(
            "Div",
            g.op(
                "Mul",
                x,
                g.op(
                    "Clip",
                    g.op("Add", x, g.constant(np.float32(3))),
                    g.constant(np.float32(0)),
                    g.constant(np.float32(6)),
                ),
            ),
            g.constant(np.float32(6)),
        ),
        {"QLinearAdd", "QLinearMul"},
    ),
    "squeeze and excite": (
        lambda g, x: g.op(
            "Mul",
            x,
            g.op("Sigmoid", g.conv(g.conv_relu(g.op("GlobalAveragePool", x), 16, 4, kernel=1), 4, 16, kernel=1)),
        ),
        {"QLinearGlobalAveragePool", "QLinearSigmoid", "QLinearMul"},
    ),
}


@pytest.mark.parametrize("pattern", SMOOTH)
def test_smooth_activations_run_on_integers_throughout(pattern):
    build, wanted = SMOOTH[pattern]
    graph = Graph()
    model, result = run(graph, graph.conv(build(graph, graph.conv(graph.name))))
    found = kernels(result.model)
    assert wanted <= set(found)
    assert not {"Conv", "FusedConv", "QuickGelu", "HardSigmoid", "Mul", "Clip"} & set(found)
    assert [found.count(name) for name in ("QuantizeLinear", "DequantizeLinear")] == [1, 1]
    assert sqnr_db(model, result.model, graph.samples()) > 26


@pytest.mark.parametrize("function", ["HardSwish", "HardSigmoid", "Elu", "PRelu", "Tanh"])
def test_a_convolution_before_a_float_function_still_fuses(function):
    graph = Graph()
    operands = [graph.constant(np.full((16, 1, 1), 0.1, np.float32))] if function == "PRelu" else []
    _, result = run(graph, graph.conv(graph.op(function, graph.conv(graph.name), *operands)))
    found = kernels(result.model)
    assert found.count("QLinearConv") == 2
    assert not {"Conv", "FusedConv"} & set(found)
    (note,) = result.quantization.left_float
    assert (note.op_type, "no integer" in note.reason) == (function, True)


EXACT_AVERAGES = {
    "no padding": {"kernel_shape": [3, 3]},
    "padding that counts": {"kernel_shape": [3, 3], "pads": [1, 0, 1, 2], "count_include_pad": 1},
    "strides": {"kernel_shape": [2, 3], "strides": [2, 3]},
    "ceil_mode that changes nothing": {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
    "SAME": {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER", "count_include_pad": 1},
    "dilations": {"kernel_shape": [3, 3], "dilations": [2, 2]},
}


@pytest.mark.parametrize("window", EXACT_AVERAGES)
def test_an_average_pool_becomes_a_depthwise_convolution(window):
    opset = 19 if window == "dilations" else 17
    graph = Graph()
    pooled = graph.op("AveragePool", graph.conv_relu(graph.name), **EXACT_AVERAGES[window])
    model, result = run(graph, graph.conv_relu(pooled), opset=opset)
    found = kernels(result.model)
    assert found.count("QLinearConv") == 3
    assert not {"AveragePool", "QLinearAveragePool"} & set(found)
    assert sqnr_db(model, result.model, graph.samples()) > 30


def test_the_convolution_of_an_average_pool_rounds_as_the_integer_pool_does():
    graph = Graph()
    pooled = graph.op(
        "AveragePool", graph.conv_relu(graph.name), kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1
    )
    _, result = run(graph, graph.conv_relu(pooled))
    lowered = result.model
    (pool,) = [node for node in lowered.graph if node.name == "AveragePool2"]
    other = clone(lowered)
    (node,) = [node for node in other.graph if node.name == pool.name]
    node.op_type = "AveragePool"
    node.resize_inputs(1)
    node.attributes.pop("group")
    node.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
    node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", [3, 3])
    assert "QLinearAveragePool" in kernels(other)
    for feed in graph.samples(3):
        ours, theirs = Session(lowered).run(feed), Session(other).run(feed)
        for name, array in ours.items():
            np.testing.assert_array_equal(array, theirs[name])


PARTLY = {
    "padding left out": ("AveragePool", {"kernel_shape": [3, 3], "pads": [1] * 4}),
    "a window over the border": ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    "Softmax": ("Softmax", {"axis": 1}),
}


@pytest.mark.parametrize("pattern", PARTLY)
def test_slow_integer_kernels_are_kept_out_between_integers(pattern):
    """onnxruntime would fuse DequantizeLinear -> AveragePool -> QuantizeLinear, asked or not."""
    op_type, attributes = PARTLY[pattern]
    graph = Graph()
    model, result = run(graph, graph.conv(graph.op(op_type, graph.conv(graph.name), **attributes)))
    found = kernels(result.model)
    assert op_type in found
    assert f"QLinear{op_type}" not in found
    assert found.count("QLinearConv") == 2
    assert [(note.op_type, "slower" in note.reason) for note in result.quantization.left_float] == [(op_type, True)]
    assert sqnr_db(model, result.model, graph.samples()) > 28


@pytest.mark.parametrize("rank", [3, 4, 5])
@pytest.mark.parametrize("keep", [0, 1])
def test_means_over_space_are_global_pools(rank, keep):
    graph = Graph((1, 16, *[5] * (rank - 2)))
    w = graph.constant(graph.rng.normal(0, 0.1, (16, 16, *[1] * (rank - 2))).astype(np.float32))
    mean = graph.op("ReduceMean", graph.op("Conv", graph.name, w), axes=list(range(-rank + 2, 0)), keepdims=keep)
    last = graph.op("Conv", mean, w) if keep else graph.op("Gemm", mean, graph.matrix(16, 8))
    model, result = run(graph, last)
    found = kernels(result.model)
    # the mean over the last axis of a sequence is a part of LayerNormalization, and stays
    assert ("QLinearGlobalAveragePool" in found, "ReduceMean" in found) == (rank > 3, rank == 3)
    assert sqnr_db(model, result.model, graph.samples()) > 28


def test_a_window_over_the_whole_image_is_a_global_pool():
    graph = Graph()
    pooled = graph.op("AveragePool", graph.conv_relu(graph.name), kernel_shape=[12, 12])
    model, result = run(graph, graph.op("Gemm", graph.op("Flatten", pooled), graph.matrix(16, 8)))
    assert "QLinearGlobalAveragePool" in kernels(result.model)
    assert sqnr_db(model, result.model, graph.samples()) > 30


@pytest.mark.parametrize("operator", ["Sub", "Div"])
def test_the_inverse_of_a_constant_operand_has_an_integer_kernel(operator):
    graph = Graph()
    c = graph.constant(graph.rng.uniform(0.5, 2, (1, 16, 12, 12)).astype(np.float32))
    model, result = run(graph, graph.conv(graph.op(operator, graph.conv_relu(graph.name), c)))
    assert {"Sub": "QLinearAdd", "Div": "QLinearMul"}[operator] in kernels(result.model)
    assert sqnr_db(model, result.model, graph.samples()) > 28


def test_a_product_of_activations_is_an_integer_kernel_where_it_is_asked_for():
    graph = Graph((2, 4, 12, 16))
    q, k = (graph.op("MatMul", graph.name, graph.matrix(16, 16)) for _ in range(2))
    y = graph.op("MatMul", q, graph.op("Transpose", k, perm=[0, 1, 3, 2]))
    model, result = run(graph, graph.op("Softmax", y))
    assert kernels(result.model).count("QLinearMatMul") == 2
    assert "MatMulIntegerToFloat" in kernels(result.model)
    assert "MatMul" not in kernels(result.model)
    assert sqnr_db(model, result.model, graph.samples()) > 28


def test_a_float_operator_between_convolutions_keeps_both_integer():
    graph = Graph()
    model, result = run(graph, graph.conv(graph.op("HardSwish", graph.conv(graph.name))), opset=17)
    assert kernels(result.model).count("QLinearConv") == 2
    assert any(note.op_type == "HardSwish" for note in result.quantization.left_float)
    assert sqnr_db(model, result.model, graph.samples()) > 28


def test_an_output_of_the_model_keeps_its_name_and_type():
    graph = Graph()
    first = graph.conv_relu(graph.name)
    last = graph.conv(first)
    model, result = run(graph, first, last)
    assert [value.name for value in result.model.graph.outputs] == [value.name for value in model.graph.outputs]
    assert sqnr_db(model, result.model, graph.samples()) > 28


def test_a_float_max_pool_before_integers_is_not_dragged_along():
    graph = Graph((1, 3, 32, 32))
    pooled = graph.op("MaxPool", graph.op("Tanh", graph.name), kernel_shape=[3, 3], strides=[2, 2])
    model, result = run(graph, graph.conv(graph.conv_relu(pooled, into=3)))
    found = kernels(result.model)
    assert found.index("MaxPool") < found.index("QuantizeLinear")
    assert sqnr_db(model, result.model, graph.samples()) > 28


def test_zero_padding_is_the_convolutions_own():
    graph = Graph()
    padded = graph.op("Pad", graph.conv_relu(graph.name), graph.constant(np.array([0, 0, 0, 1, 0, 0, 1, 0])))
    model, result = run(graph, graph.conv(padded))
    assert "Pad" not in kernels(result.model)
    assert sqnr_db(model, result.model, graph.samples()) > 28


def test_per_tensor_weights():
    graph = Graph()
    options = QuantizeOptions(target="x64-vnni", per_tensor=True, selection=EVERYTHING)
    model, result = run(graph, graph.conv(graph.conv_relu(graph.name)), options=options)
    scales = [v for v in result.model.graph.initializers.values() if v.name.endswith("_s")]
    assert all(v.const_value.shape.rank() == 0 for v in scales)
    assert sqnr_db(model, result.model, graph.samples()) > 28


@pytest.mark.parametrize("method", ["auto", "minmax", "percentile", "mse"])
def test_every_method(method):
    graph = Graph()
    options = QuantizeOptions(target="x64-vnni", method=method, selection=EVERYTHING)
    model, result = run(graph, graph.conv(graph.conv_relu(graph.name)), options=options)
    assert sqnr_db(model, result.model, graph.samples()) > 28
