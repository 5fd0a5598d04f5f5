"""Half and double precision: computed in float32, the signature kept, weights stored in half again where exact."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxqp.model import clone, to_bytes
from onnxqp.normalize import normalize
from onnxqp.normalize.precision import float32_form, store_halves
from onnxqp.options import QuantizeOptions, Selection
from onnxqp.quantize import quantize_model
from onnxqp.runtime import Session, optimized_graph

KINDS = {
    "half": TensorProto.FLOAT16,
    "bfloat": TensorProto.BFLOAT16,
    "double": TensorProto.DOUBLE,
    "single": TensorProto.FLOAT,
}
RNG = np.random.default_rng(3)
W0, W1 = (RNG.normal(0, 0.1, shape).astype(np.float16) for shape in [(64, 64), (64, 64)])


def tensor(name, array, kind):
    return helper.make_tensor(name, kind, array.shape, array.astype(np.float32).ravel())


def build(kind, *, outside=None, middle=()):
    """x -> MatMul -> Relu -> MatMul -> y in one precision; `outside`: that of the signature, with Casts to it."""
    kind, outside = KINDS[kind], KINDS[outside or kind]
    nodes = [
        helper.make_node("Cast", ["x"], ["x0"], to=kind),
        helper.make_node("MatMul", ["x0", "w0"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        *middle,
        helper.make_node("MatMul", ["b" if not middle else middle[-1].output[0], "w1"], ["c"], name="second"),
        helper.make_node("Cast", ["c"], ["y"], to=outside),
    ]
    ends = [helper.make_tensor_value_info(name, outside, ["n", 64]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [tensor("w0", W0, kind), tensor("w1", W1, kind)])
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))
    normalize(model)
    return model


def feeds(kind, count=4):
    dtype = helper.tensor_dtype_to_np_dtype(KINDS[kind])
    return [{"x": RNG.normal(0, 1, (3, 64)).astype(dtype)} for _ in range(count)]


def truth(feed):
    x = feed["x"].astype(np.float64)
    return np.maximum(x @ W0.astype(np.float64), 0) @ W1.astype(np.float64)


@pytest.mark.parametrize("kind", ["half", "double"])
def test_the_signature_stays_and_the_inside_is_float32(kind):
    model = build(kind)
    before = to_bytes(model)
    form, notes = float32_form(model)
    assert to_bytes(model) == before
    assert len(notes) == 1
    assert notes[0].reason.endswith("it computes in float32")
    onnx.checker.check_model(ir.to_proto(form), full_check=True)
    for ours, theirs in zip(
        (*form.graph.inputs, *form.graph.outputs), (*model.graph.inputs, *model.graph.outputs), strict=True
    ):
        assert (ours.name, ours.dtype, ours.shape) == (theirs.name, theirs.dtype, theirs.shape)
    inner = {value.dtype for node in form.graph for value in node.outputs} - {model.graph.outputs[0].dtype}
    assert inner == {ir.DataType.FLOAT}
    for feed in feeds(kind):
        (found,) = Session(form).run(feed).values()
        np.testing.assert_allclose(found, truth(feed), rtol=2e-3 if kind == "half" else 1e-5, atol=1e-2)


@pytest.mark.parametrize("kind", ["half", "bfloat", "double"])
def test_casts_inside_vanish(kind):
    form, notes = float32_form(build(kind, outside="single"))
    assert notes
    assert [node.op_type for node in form.graph] == ["MatMul", "Relu", "MatMul"]
    assert Session(form)


def test_a_float32_model_is_left_as_it_is():
    model = build("single")
    form, notes = float32_form(model)
    assert form is model
    assert notes == []
    assert store_halves(form) == 0


def test_a_sum_in_double_inside_a_float32_model_stays():
    middle = [
        helper.make_node("Cast", ["b"], ["b64"], to=TensorProto.DOUBLE),
        helper.make_node("Exp", ["b64"], ["e64"]),
        helper.make_node("Cast", ["e64"], ["e"], to=TensorProto.FLOAT),
    ]
    model = build("single", middle=middle)
    assert float32_form(model)[0] is model


def test_attributes_say_the_new_type():
    middle = [
        helper.make_node("Shape", ["b"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["one"], value=numpy_helper.from_array(np.ones(1, np.float16))),
        helper.make_node("Add", ["b", "one"], ["d"]),
    ]
    form, _ = float32_form(build("half", middle=middle))
    onnx.checker.check_model(ir.to_proto(form), full_check=True)
    (made,) = [node for node in form.graph if node.op_type == "ConstantOfShape"]
    assert made.attributes["value"].as_tensor().dtype == ir.DataType.FLOAT
    assert Session(form)


def test_weights_are_stored_in_half_again_and_folded_when_the_model_opens():
    model = build("half")
    form, _ = float32_form(model)
    work = clone(form)
    assert store_halves(work) == 2
    assert len(to_bytes(work)) < 1.1 * len(to_bytes(model))
    assert [node.op_type for node in optimized_graph(work).graph.node].count("Cast") == 2  # those of the signature
    for feed in feeds("half"):
        np.testing.assert_array_equal(Session(work).run(feed)["y"], Session(form).run(feed)["y"])
    rounded = clone(form)
    value = rounded.graph.initializers["w0"]
    value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.0001), name="w0")
    assert store_halves(rounded) == 1  # the other would lose bits


@pytest.mark.parametrize("kind", ["half", "double"])
def test_they_quantize(kind):
    model = build(kind)
    samples = feeds(kind, 8)
    options = QuantizeOptions(target="x64-vnni", selection=Selection(include=("*",)))
    result = quantize_model(model, samples, options)
    assert result.quantization.nodes_fused == 2
    assert len(to_bytes(result.model)) < (0.7 if kind == "half" else 0.3) * len(to_bytes(model))
    assert [value.dtype for value in result.model.graph.outputs] == [value.dtype for value in model.graph.outputs]
    for feed in samples:
        want = truth(feed)
        (found,) = Session(result.model).run(feed).values()
        assert 10 * np.log10(np.square(want).sum() / np.square(found - want).sum()) > 25


def test_half_weights_that_are_left_stay_in_half():
    samples = feeds("half", 8)
    options = QuantizeOptions(target="x64-vnni", selection=Selection(include=("first",)))
    result = quantize_model(build("half"), samples, options)
    kinds = {name: value.dtype for name, value in result.model.graph.initializers.items()}
    assert kinds["w1_half"] == ir.DataType.FLOAT16
