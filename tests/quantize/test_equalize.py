"""Equalisation: the same bits in float, more even channels, and statistics that belong to what was scaled."""

import itertools

import numpy as np
import onnx_ir as ir
import pytest
from quantize_graphs import Graph, sqnr_db

from onnxqp.calibrate import store
from onnxqp.errors import DataError, UsageError
from onnxqp.options import QuantizeOptions, Selection
from onnxqp.quantize import observe_model, quantize_model
from onnxqp.quantize.equalize import ChannelSizes, equalized, find_pairs, scale
from onnxqp.runtime import Session

EVERYTHING = Selection()
UNEVEN = 2.0 ** np.arange(-4, 4).repeat(4)


def uneven(graph, x, function="Relu", **attributes):
    """A pointwise layer whose channels differ in size, a function, and a depthwise layer that evens them out."""
    w = graph.rng.normal(0, 0.3, (32, 32, 1, 1)) * UNEVEN[:, None, None, None]
    y = graph.op("Conv", x, graph.constant(w.astype(np.float32), "w"))
    y = graph.op(function, y, **attributes) if function else y
    w = graph.rng.normal(0, 0.3, (32, 1, 3, 3)) / UNEVEN[:, None, None, None]
    return graph.op("Conv", y, graph.constant(w.astype(np.float32), "w"), group=32, pads=[1] * 4)


def network(**attributes):
    graph = Graph((1, 32, 12, 12))
    x = graph.conv(uneven(graph, graph.name, **attributes), 32, 32)
    return graph, graph.model(graph.op("Tanh", x))


FUNCTIONS = [
    {"function": None},
    {"function": "Relu"},
    {"function": "LeakyRelu", "alpha": 0.1},
    {"function": "MaxPool", "kernel_shape": [2, 2]},
    {"function": "AveragePool", "kernel_shape": [2, 2]},
]


@pytest.mark.parametrize("attributes", FUNCTIONS, ids=str)
def test_the_float_model_computes_the_same_bits(attributes):
    graph, model = network(**attributes)
    scaled, exponents = equalized(model, graph.samples(16), EVERYTHING)
    assert "Conv0" in exponents
    assert len(set(exponents["Conv0"])) > 3
    assert scaled is not model
    ours, theirs = Session(model), Session(scaled)
    for feed in graph.samples(20):
        for name, array in ours.run(feed).items():
            assert np.array_equal(array, theirs.run(feed)[name])


@pytest.mark.parametrize("function", ["Sigmoid", "Tanh", "HardSwish"])
def test_other_functions_are_not_passed(function):
    graph, model = network(function=function)
    assert "Conv0" not in {pair.first.name for pair in find_pairs(model, EVERYTHING)}
    assert "Conv0" not in equalized(model, graph.samples(16), EVERYTHING)[1]


def test_an_upper_bound_is_not_passed_and_a_second_reader_counts():
    graph = Graph((1, 32, 12, 12))
    x = graph.conv(graph.name, 32, 32)
    clipped = graph.op("Clip", x, graph.constant(np.float32(0)), graph.constant(np.float32(6)))
    y = graph.op("Relu", graph.conv(clipped, 32, 32))
    left, right = graph.conv(y, 32, 8), graph.conv(y, 32, 8)
    z = graph.op("Relu", graph.conv(clipped, 32, 32))
    model = graph.model(graph.op("Add", left, right), graph.op("Add", graph.conv(z, 32, 32), graph.op("Exp", z)))
    found = {pair.first.name: [node.name for node, _ in pair.readers] for pair in find_pairs(model, EVERYTHING)}
    assert found == {"Conv2": ["Conv4", "Conv5"]}


def test_products_are_scaled_by_column_and_row():
    graph = Graph((4, 24))
    w = graph.rng.normal(0, 1, (24, 32)) * UNEVEN
    x = graph.op("Gemm", graph.name, graph.constant(w.astype(np.float32), "w"), graph.constant(np.ones(32, np.float32)))
    w = graph.rng.normal(0, 1, (8, 32)) / UNEVEN
    y = graph.op("Gemm", graph.op("Relu", x), graph.constant(w.astype(np.float32), "w"), transB=1, alpha=0.3)
    model = graph.model(y)
    scaled, exponents = equalized(model, graph.samples(16), EVERYTHING)
    assert list(exponents) == ["Gemm0"]
    feed = graph.samples(1)[0]
    assert np.array_equal(*(next(iter(Session(each).run(feed).values())) for each in (model, scaled)))


def test_what_is_excluded_is_left_alone():
    graph, model = network()
    for name in ("Conv0", "Conv2"):
        exponents = equalized(model, graph.samples(16), Selection(exclude=(name,)))[1]
        assert "Conv0" not in exponents


def test_uneven_channels_gain_and_the_option_turns_it_off():
    graph, model = network()
    gains = [
        sqnr_db(
            model,
            quantize_model(
                model, graph.samples(16), QuantizeOptions(target="x64-vnni", selection=EVERY, equalize=on)
            ).model,
            graph.samples(20),
        )
        for on in (True, False)
    ]
    assert gains[0] > gains[1] + 3


EVERY = Selection(include=("*",))


def test_channel_sizes_merge():
    parts = [np.random.default_rng(i).normal(0, i + 1, (2, 3, 4)) for i in range(4)]
    whole, left, right = ChannelSizes(1), ChannelSizes(1), ChannelSizes(1)
    for index, part in enumerate(parts):
        whole.update(part)
        (left if index % 2 else right).update(part)
    left.merge(right)
    assert np.array_equal(left.magnitude, whole.magnitude)
    assert left.squares == pytest.approx(whole.squares)
    assert left.count == whole.count == 32


def test_statistics_know_their_scales(tmp_path):
    graph, model = network()
    feeds, options = graph.samples(20), QuantizeOptions(target="x64-avx2")
    whole = observe_model(model, feeds, options)
    assert whole.scales
    store.save(whole, tmp_path / "a.npz")
    kept = store.read(tmp_path / "a.npz")
    assert kept.scales == whole.scales
    with pytest.raises(DataError, match="with equalised channels") as caught:
        quantize_model(model, feeds, QuantizeOptions(target="x64-avx2", equalize=False), statistics=kept)
    assert "--no-equalize" in (caught.value.hint or "")
    plain = observe_model(model, feeds, QuantizeOptions(equalize=False))
    assert plain.scales is None
    with pytest.raises(DataError, match="without equalised channels"):
        quantize_model(model, feeds, options, statistics=plain)
    with pytest.raises(UsageError, match="differently equalised"):
        whole.merge(plain)
    ours, theirs = (quantize_model(model, feeds, options, statistics=each).ranges for each in (kept, None))
    assert ours == theirs


def test_shards_of_one_draw_are_scaled_alike():
    graph, model = network()
    drawn = graph.samples(20)
    shards = [observe_model(model, drawn[i::2], QuantizeOptions(), few=drawn) for i in range(2)]
    assert shards[0].scales == shards[1].scales == observe_model(model, drawn, QuantizeOptions()).scales
    shards[0].merge(shards[1])
    assert shards[0].samples == 20


def test_scales_of_a_file_that_fit_nothing_change_nothing():
    _, model = network()
    scaled = scale(model, {"Conv0": (1, 2), "nobody": (3,) * 32})
    pairs = itertools.zip_longest(model.graph.initializers.values(), scaled.graph.initializers.values())
    assert all(np.array_equal(a.const_value.numpy(), b.const_value.numpy()) for a, b in pairs)
    assert isinstance(scaled, ir.Model)


def test_a_fixed_batch_is_not_cut_and_few_samples_are_not_enough():
    graph = Graph((20, 32, 8, 8))
    x = graph.conv(uneven(graph, graph.name), 32, 32)
    model = graph.model(graph.op("Tanh", x))
    assert equalized(model, graph.samples(1), EVERYTHING)[1]
    assert quantize_model(model, graph.samples(3), QuantizeOptions(target="x64-vnni")).quantization.nodes_quantized
    few, one = network()
    assert not equalized(one, few.samples(15), EVERYTHING)[1]
