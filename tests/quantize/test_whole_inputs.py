"""Models of every make: opsets, where weights stand, bodies, functions, external data, what is quantized already."""

import functools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from quantize_graphs import Graph, kernels, sqnr_db

from onnxqp import api
from onnxqp.errors import UnsupportedError
from onnxqp.model import load, to_bytes
from onnxqp.normalize import normalize
from onnxqp.options import MeasureOptions, QuantizeOptions, Selection
from onnxqp.quantize import quantize_model
from onnxqp.runtime import Session, ceilings

EVERYTHING = QuantizeOptions(target="x64-vnni", selection=Selection(include=("*",)))
RNG = np.random.default_rng(5)
SHAPES = {"w": (16, 8, 3, 3), "b": (16,), "s": (16,), "o": (16,), "m": (16,), "v": (16,), "g": (16, 10), "c": (10,)}
WEIGHTS = {name: RNG.normal(0, 0.2, shape).astype(np.float32) for name, shape in SHAPES.items()}
WEIGHTS["v"] = np.abs(WEIGHTS["v"]) + np.float32(0.5)
WEIGHTS["s"] += np.float32(1)


def samples(count=8, batch=2):
    return [{"x": RNG.normal(0, 1, (batch, 8, 10, 10)).astype(np.float32)} for _ in range(count)]


def quantized(proto, feeds=None, options=EVERYTHING, least=28.0):
    """The result, held against the model as it was given; and that everything in it fused."""
    given = proto.SerializeToString()
    model = ir.from_proto(proto)
    normalize(model)
    feeds = feeds or samples()
    result = quantize_model(model, feeds, options)
    assert result.quantization.unfused == []
    assert sqnr_db(given, result.model, feeds) > least
    return result


def network(opset=17, *, form="initializers", ir_version=10):
    """Conv, BatchNormalization, ReLU6, a global pool and a Gemm, as an exporter writes them at this opset."""
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["1"], name="conv", pads=[1] * 4)]
    nodes.append(helper.make_node("BatchNormalization", ["1", "s", "o", "m", "v"], ["2"], name="norm"))
    arrays = dict(WEIGHTS)
    if opset < 11:
        nodes.append(helper.make_node("Clip", ["2"], ["3"], name="relu6", min=0.0, max=6.0))
    else:
        arrays |= {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
        nodes.append(helper.make_node("Clip", ["2", "zero", "six"], ["3"], name="relu6"))
    nodes.append(helper.make_node("GlobalAveragePool", ["3"], ["4"], name="pool"))
    nodes.append(helper.make_node("Flatten", ["4"], ["5"], name="flat"))
    nodes.append(helper.make_node("Gemm", ["5", "g", "c"], ["y"], name="gemm"))
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8, 10, 10])]
    if form == "inputs":
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
    if form == "constants":
        nodes[:0] = [helper.make_node("Constant", [], [t.name], name=f"k_{t.name}", value=t) for t in tensors]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])]
    graph = helper.make_graph(nodes, "net", inputs, outputs, [] if form == "constants" else tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


@pytest.mark.parametrize("opset", range(7, ceilings().opset + 1))
def test_every_opset_that_the_runtime_reads(opset):
    result = quantized(network(opset))
    assert result.quantization.nodes_quantized == 3  # the BatchNormalization is folded, the Clip absorbed
    assert {"QLinearConv", "QGemm"} <= set(kernels(result.model))
    assert not {"Clip", "BatchNormalization", "Conv", "FusedConv", "Gemm"} & set(kernels(result.model))


@pytest.mark.parametrize("form", ["initializers", "inputs", "constants"])
@pytest.mark.parametrize(("opset", "ir_version"), [(8, 3), (17, 8), (21, 10)])
def test_weights_may_stand_anywhere(form, opset, ir_version):
    if ir_version == 3 and form == "initializers":
        form = "inputs"  # IR 3 knows no other
    result = quantized(network(opset, form=form, ir_version=ir_version))
    assert result.quantization.nodes_quantized == 3
    assert [value.name for value in result.model.graph.inputs] == ["x"]


def test_a_weight_that_is_filled_with_one_number():
    graph = Graph((2, 16, 8, 8))
    shape = graph.constant(np.array([16, 16, 1, 1]))
    fill = numpy_helper.from_array(np.array([0.25], np.float32))
    y = graph.op("Conv", graph.name, graph.op("ConstantOfShape", shape, value=fill))
    result = quantized(graph.proto(y), graph.samples())
    assert "QLinearConv" in kernels(result.model)


def test_one_weight_of_several_nodes_along_different_axes():
    graph = Graph((4, 32))
    w = graph.matrix(32, 32)
    x = graph.op("Relu", graph.op("Gemm", graph.name, w))
    x = graph.op("Relu", graph.op("Gemm", x, w, transB=1))
    x = graph.op("Relu", graph.op("MatMul", x, w))
    result = quantized(graph.proto(graph.op("Softmax", x)), graph.samples())
    assert result.quantization.nodes_quantized == 3
    stored = [
        v for v in result.model.graph.initializers.values() if v.dtype == ir.DataType.INT8 and v.const_value.size > 32
    ]
    assert len(stored) == 2  # one for each axis of channels


def test_a_weight_that_an_integer_and_a_float_node_read():
    graph = Graph((4, 32))
    w = graph.matrix(32, 32)
    y = graph.op("Tanh", graph.op("Einsum", graph.name, w, equation="ij,jk->ik"))
    result = quantized(graph.proto(graph.op("Gemm", y, w)), graph.samples())
    assert result.quantization.nodes_quantized == 1


def test_an_embedding_tied_to_the_last_layer():
    graph = Graph((2, 8))
    table = graph.constant(graph.rng.normal(0, 1, (200, 32)).astype(np.float32))
    embedded = graph.op("Gather", table, graph.op("Cast", graph.name, to=TensorProto.INT64))
    logits = graph.op("MatMul", graph.op("Tanh", embedded), graph.op("Transpose", table, perm=[1, 0]))
    feeds = [{"x": RNG.integers(0, 200, (2, 8)).astype(np.float32)} for _ in range(4)]
    proto = graph.proto(logits)
    result = quantized(proto, feeds)
    assert len(to_bytes(result.model)) < 0.65 * len(proto.SerializeToString())  # in two orders of int8


@pytest.mark.parametrize("shape", [("n", 8, 10, 10), (None, 8, None, None), ("n", 8, "h", "w")])
def test_dynamic_shapes_stay_dynamic(shape):
    proto = network()
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, shape))
    result = quantized(proto)
    session = Session(result.model)
    for batch, size in [(1, 10), (3, 10), *([(2, 16)] if shape[2] != 10 else [])]:
        (found,) = session.run({"x": np.ones((batch, 8, size, size), np.float32)}).values()
        assert found.shape == (batch, 10)


def test_functions_are_looked_into():
    proto = network()
    body = [helper.make_node("Gemm", ["a", "b", "c"], ["d"], name="inner"), helper.make_node("Tanh", ["d"], ["e"])]
    function = helper.make_function("local", "Layer", ["a", "b", "c"], ["e"], body, [helper.make_opsetid("", 17)])
    proto.functions.append(function)
    proto.opset_import.append(helper.make_opsetid("local", 1))
    gemm = proto.graph.node[-1]
    gemm.op_type, gemm.domain = "Layer", "local"
    result = quantized(proto)
    assert "QGemm" in kernels(result.model)


def test_external_data(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(network(), path, save_as_external_data=True, location="model.data", size_threshold=0)
    model = load(path)
    normalize(model)
    feeds = samples()
    result = quantize_model(model, feeds, EVERYTHING)
    assert result.quantization.nodes_quantized == 3
    assert sqnr_db(path, result.model, feeds) > 28


def test_a_result_that_is_larger_says_so():
    graph = Graph((1, 4, 8, 8))
    proto = graph.proto(graph.op("Tanh", graph.conv(graph.name, 4, 4)))
    done = api.quantize(proto, options=EVERYTHING, measure=MeasureOptions(validate=False))
    assert any("larger than the input" in warning for warning in done.report.warnings)
    graph = Graph((1, 64, 8, 8))
    proto = graph.proto(graph.op("Tanh", graph.conv(graph.name, 64, 64)))
    done = api.quantize(proto, options=EVERYTHING, measure=MeasureOptions(validate=False))
    assert not any("larger" in warning for warning in done.report.warnings)


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_half_and_double_precision_from_file_to_file(tmp_path, kind):
    """The size is against the file as it was; onnxruntime has no double Conv, which is held against float32."""
    proto = network()
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(kind), tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    data = [{"x": feed["x"].astype(kind)} for feed in samples(16)]
    np.savez(tmp_path / "data.npz", x=np.concatenate([feed["x"] for feed in data]))
    measure = MeasureOptions(validate=False)
    done = api.quantize(path, options=EVERYTHING, data=str(tmp_path / "data.npz"), measure=measure)
    assert done.report.quantization.nodes_fused == done.report.quantization.nodes_quantized >= 2
    assert done.report.size.baseline_bytes == path.stat().st_size
    assert any("it computes in float32" in warning for warning in done.report.warnings)
    assert ("the baseline is" in " ".join(done.report.warnings)) == (kind is np.float64)
    session = Session(tmp_path / "model.int8.onnx")
    assert session.outputs[0].dtype == kind
    assert session.run(data[0])["y"].dtype == kind


# ---- bodies of control flow -------------------------------------------------------------------------------------


def _body(name, output="t"):
    weight = numpy_helper.from_array(RNG.normal(0, 0.1, (64, 64)).astype(np.float32), f"{name}_w")
    bias = numpy_helper.from_array(RNG.normal(0, 0.1, 64).astype(np.float32), f"{name}_b")
    nodes = [
        helper.make_node("Gemm", ["h", weight.name, bias.name], [f"{name}_1"], name=f"{name}_gemm"),
        helper.make_node("Relu", [f"{name}_1"], [f"{name}_{output}"], name=f"{name}_relu"),
    ]
    ends = [helper.make_tensor_value_info(f"{name}_{output}", TensorProto.FLOAT, ["n", 64])]
    return helper.make_graph(nodes, name, [], ends, [weight, bias])


def branching():
    """A Gemm before an If, and one in each of its bodies."""
    before = numpy_helper.from_array(RNG.normal(0, 0.1, (64, 64)).astype(np.float32), "w")
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"], name="before"),
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], name="if", then_branch=_body("then"), else_branch=_body("else")),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64]) for name in ("x", "y")]
    zero = numpy_helper.from_array(np.array(0, np.float32), "zero")
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], [before, zero])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def looping():
    """A Loop that multiplies by a weight of its body three times."""
    weight = numpy_helper.from_array(RNG.normal(0, 0.12, (64, 64)).astype(np.float32), "body_w")
    nodes = [
        helper.make_node("MatMul", ["state", "body_w"], ["product"], name="in_loop"),
        helper.make_node("Tanh", ["product"], ["next"]),
        helper.make_node("Identity", ["go"], ["on"]),
    ]
    inside = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        helper.make_tensor_value_info("state", TensorProto.FLOAT, ["n", 64]),
    ]
    outside = [
        helper.make_tensor_value_info("on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("next", TensorProto.FLOAT, ["n", 64]),
    ]
    body = helper.make_graph(nodes, "body", inside, outside, [weight])
    loop = helper.make_node("Loop", ["times", "yes", "x"], ["y"], name="loop", body=body)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64]) for name in ("x", "y")]
    given = [numpy_helper.from_array(np.array(3), "times"), numpy_helper.from_array(np.array(True), "yes")]
    graph = helper.make_graph([loop], "net", ends[:1], ends[1:], given)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def scanning():
    """A Scan over rows with a weight of the graph around it."""
    weight = numpy_helper.from_array(RNG.normal(0, 0.12, (64, 64)).astype(np.float32), "w")
    nodes = [
        helper.make_node("MatMul", ["row", "w"], ["product"], name="in_scan"),
        helper.make_node("Add", ["product", "state"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["next"]),
        helper.make_node("Identity", ["next"], ["kept"]),
    ]
    kinds = functools.partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT, shape=[1, 64])
    body = helper.make_graph(nodes, "body", [kinds("state"), kinds("row")], [kinds("next"), kinds("kept")])
    scan = helper.make_node("Scan", ["start", "x"], ["last", "y"], name="scan", body=body, num_scan_inputs=1)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, 64]) for name in ("x", "y")]
    start = numpy_helper.from_array(np.zeros((1, 64), np.float32), "start")
    graph = helper.make_graph([scan], "net", ends[:1], ends[1:], [weight, start])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


BODIES = {"If": (branching, (3, 64), 3, 2), "Loop": (looping, (3, 64), 0, 1), "Scan": (scanning, (5, 1, 64), 0, 1)}


@pytest.mark.parametrize("kind", BODIES)
def test_weights_in_bodies_shrink_and_their_nodes_are_named(kind):
    build, shape, _, stored = BODIES[kind]
    proto = build()
    feeds = [{"x": RNG.normal(0, 1, shape).astype(np.float32)} for _ in range(8)]
    result = quantized(proto, feeds)
    record = result.quantization
    assert record.weights_at_rest == stored
    left = {note.node: note.reason for note in record.left_float}
    inside = {"If": {"then_gemm", "else_gemm"}, "Loop": {"in_loop"}, "Scan": {"in_scan"}}[kind]
    assert inside <= set(left)
    assert all("body of an If, Loop or Scan" in left[name] for name in inside)
    assert record.nodes_quantized == (kind == "If")
    assert len(to_bytes(result.model)) < 0.5 * len(proto.SerializeToString())


# ---- what is quantized already ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["QDQ", "QLinear", "dynamic"])
def test_what_is_quantized_already_is_refused_with_a_hint(form):
    graph = Graph((2, 16))
    scale, zero = graph.constant(np.float32(0.05)), graph.constant(np.uint8(128))
    if form == "QDQ":
        y = graph.op("DequantizeLinear", graph.op("QuantizeLinear", graph.name, scale, zero), scale, zero)
    elif form == "QLinear":
        w, zeros = graph.constant(np.ones((16, 4), np.int8)), graph.constant(np.int8(0))
        q = graph.op("QuantizeLinear", graph.name, scale, zero)
        q = graph.op("QLinearMatMul", q, scale, zero, w, scale, zeros, scale, zero)
        y = graph.op("DequantizeLinear", q, scale, zero)
    else:
        q, s, z = graph.op("DynamicQuantizeLinear", graph.name, outputs=3)
        y = graph.op("Cast", graph.op("MatMulInteger", q, graph.constant(np.ones((16, 4), np.int8)), z), to=1)
        y = graph.op("Mul", y, s)
    with pytest.raises(UnsupportedError, match="already quantized") as caught:
        quantize_model(graph.model(y), graph.samples(), EVERYTHING)
    assert "float model" in caught.value.hint
    assert caught.value.code == 5
