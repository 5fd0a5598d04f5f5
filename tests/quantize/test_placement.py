"""Where integers are placed: costs, followers, heads, sharing, selections, and a reason for everything left."""

import numpy as np
import pytest
from quantize_graphs import Graph

from onnxqp.options import QuantizeOptions, Selection
from onnxqp.quantize import plan_quantization
from onnxqp.specs import Observed, Shared

VNNI = QuantizeOptions(target="x64-vnni")


def plan_of(graph, *outputs, options=VNNI):
    return plan_quantization(graph.model(*outputs), options)


def reasons(plan):
    return {node.node: node.reason for node in plan.nodes if node.reason}


def integers(plan):
    return [node.op_type for node in plan.nodes if node.integer]


def wide(seed=0):
    """A graph whose convolutions are large enough to gain."""
    return Graph((1, 64, 28, 28), seed=seed)


def test_large_convolutions_gain_and_the_head_writes_no_integers():
    graph = wide()
    x = graph.conv_relu(graph.conv_relu(graph.name, 64, 64), 64, 64)
    head = graph.conv(x, 64, 8, kernel=1)
    plan = plan_of(graph, head)
    assert integers(plan) == ["Conv", "Conv"]
    (reason,) = reasons(plan).values()
    assert "writes an output" in reason or "not faster" in reason


def test_a_lone_small_node_is_not_worth_entering_the_integers():
    graph = Graph((1, 16, 4, 4))
    plan = plan_of(graph, graph.conv_relu(graph.name))
    assert integers(plan) == []
    assert set(reasons(plan)) == {"Conv0", "Relu1"}


def test_a_named_node_is_quantized_whatever_it_costs():
    graph = Graph((1, 16, 4, 4))
    options = QuantizeOptions(target="x64-vnni", selection=Selection(include=("Conv0",)))
    assert integers(plan_of(graph, graph.conv_relu(graph.name), options=options)) == ["Conv"]


def test_exclusion_by_name_and_type_is_a_reason():
    graph = wide()
    y = graph.conv_relu(graph.conv_relu(graph.name, 64, 64), 64, 64)
    excluded = QuantizeOptions(target="x64-vnni", selection=Selection(exclude=("Conv2",)))
    plan = plan_of(graph, y, options=excluded)
    assert integers(plan) == ["Conv"]
    assert reasons(plan)["Conv2"] == "excluded by --exclude Conv2"
    other = QuantizeOptions(target="x64-vnni", selection=Selection(op_types=("MatMul",)))
    assert reasons(plan_of(graph, y, options=other))["Conv0"] == "not among the types of --op-type"


def test_an_add_of_a_float_value_stays_in_float():
    graph = wide()
    x = graph.conv(graph.name, 64, 64)
    y = graph.op("Add", x, graph.op("Tanh", graph.name))
    plan = plan_of(graph, graph.conv_relu(y, 64, 64))
    assert integers(plan) == ["Conv", "Conv"]
    assert "is float" in reasons(plan)["Add2"]
    assert "no integer Tanh" in reasons(plan)["Tanh1"]


def test_what_only_floats_read_stays_in_float():
    graph = wide()
    x, y = graph.conv(graph.name, 64, 64), graph.conv(graph.name, 64, 64)
    plan = plan_of(graph, graph.op("Tanh", graph.op("Add", x, y)))
    assert integers(plan) == ["Conv", "Conv"]
    assert reasons(plan)["Add2"] in ("nothing behind it runs on integers", "the nodes around it stay in float")


def test_a_residual_stays_on_integers():
    graph = wide()
    x = graph.conv_relu(graph.name, 64, 64)
    y = graph.op("Relu", graph.op("Add", x, graph.conv(x, 64, 64)))
    plan = plan_of(graph, graph.conv_relu(y, 64, 64))
    assert reasons(plan) == {}
    assert {name: spec.low for name, spec in plan.values.items()} == {
        "x": None,
        "v1": 0.0,
        "v2": None,
        "v4": 0.0,
        "v6": 0.0,
    }


def test_moved_values_share_the_parameters_of_their_source():
    graph = wide()
    x = graph.op("Transpose", graph.conv_relu(graph.name, 64, 64), perm=[0, 1, 3, 2])
    x = graph.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    plan = plan_of(graph, graph.conv_relu(x, 64, 64))
    assert plan.values["v1"] == Observed(low=0.0)
    assert plan.values["v2"] == plan.values["v3"] == Shared("v1")


def concat(first, second, spy=None):
    """Two makers into a Concat into a Conv; `spy` reads the first as well."""
    graph = wide()
    a = first(graph, graph.conv(graph.name, 64, 64))
    b = second(graph, graph.conv(graph.name, 64, 64))
    last = graph.conv_relu(graph.op("Concat", a, b, axis=1), 128, 64)
    outputs = [last]
    if spy:
        outputs.append(graph.conv_relu(a, 64, 64))
    return plan_of(graph, *outputs), a, b


def relu(graph, x):
    return graph.op("Relu", x)


def identity(graph, x):
    return x


def test_operands_of_a_concat_take_its_parameters():
    plan, a, b = concat(relu, relu)
    (joined,) = [name for name, spec in plan.values.items() if isinstance(spec, Observed) and name not in ("x", "v6")]
    assert plan.values[a] == plan.values[b] == Shared(joined)
    assert plan.values[joined].low == 0.0  # or the activations could not be absorbed


def test_operands_of_unlike_bounds_keep_their_own():
    plan, a, b = concat(relu, identity)
    assert plan.values[a] == Observed(low=0.0)
    assert plan.values[b] == Observed()


def test_an_operand_that_others_read_keeps_its_own_while_its_range_is_not_known():
    plan, a, b = concat(relu, relu, spy=True)
    assert plan.values[a] == Observed(low=0.0)
    assert isinstance(plan.values[b], Shared)


def test_a_plan_names_only_what_is_in_the_graph_and_is_the_same_every_time():
    graph = wide()
    x = graph.conv_relu(graph.name, 64, 64)
    model = graph.model(graph.conv_relu(x, 64, 64))
    first, second = plan_quantization(model, VNNI), plan_quantization(model, VNNI)
    assert first == second
    names = {value.name for node in model.graph for value in node.outputs} | {"x"}
    assert set(first.values) <= names


def test_half_precision_and_shapes_are_left_alone():
    graph = wide()
    y = graph.conv_relu(graph.name, 64, 64)
    half = graph.op("Cast", y, to=10)
    plan = plan_of(graph, graph.op("Cast", graph.op("Relu", half), to=1), graph.op("Cast", graph.op("Shape", y), to=1))
    assert "Shape4" not in {node.node for node in plan.nodes}
    assert integers(plan) == ["Conv"]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda g, x: g.op("Conv", x, g.op("GlobalAveragePool", x)), "its weight is not constant"),
        (lambda g, x: g.op("Softmax", x), "slower"),
        (lambda g, x: g.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4), "slower"),
        (lambda g, x: g.op("MatMul", x, g.op("Transpose", x, perm=[0, 1, 3, 2])), "not faster in int8"),
        (lambda g, x: g.op("Sub", x, g.op("Tanh", x)), "no integer Sub"),
        (lambda g, x: g.op("Resize", x, "", g.constant(np.array([1, 1, 2, 2], np.float32)), mode="linear"), "nearest"),
        (lambda g, x: g.op("LpNormalization", x), "no integer LpNormalization"),
        (lambda g, x: g.op("Det", x), "no integer rule for operator Det"),
    ],
)
def test_every_no_has_its_reason(build, words):
    graph = wide()
    y = build(graph, graph.conv_relu(graph.name, 64, 64))
    plan = plan_of(graph, graph.op("Tanh", y))
    assert any(words in reason for reason in reasons(plan).values()), reasons(plan)


def test_the_target_decides():
    graph = Graph((1, 256, 14, 14))
    y = graph.conv_relu(graph.op("Tanh", graph.conv_relu(graph.name, 256, 256, group=256)), 256, 256, group=256)
    assert integers(plan_of(graph, y)) == []  # depthwise alone gains nowhere
    dense = Graph((1, 64, 28, 28))
    y = dense.conv_relu(dense.conv_relu(dense.name, 64, 64), 64, 64)
    for target in ("x64-avx2", "x64-vnni", "arm64", "portable"):
        plan = plan_of(dense, y, options=QuantizeOptions(target=target))
        assert integers(plan) == ["Conv", "Conv"]
        assert all(weight.saturates == (target in ("x64-avx2", "portable")) for weight in plan.weights)


def test_the_record_counts():
    graph = wide()
    y = graph.op("Tanh", graph.conv_relu(graph.name, 64, 64))
    record = plan_of(graph, y).record()
    assert (record.nodes_quantizable, record.nodes_quantized, record.nodes_fused) == (1, 1, 0)
    assert [(note.node, note.op_type) for note in record.left_float] == [("Tanh2", "Tanh")]
