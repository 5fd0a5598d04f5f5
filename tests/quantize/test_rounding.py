"""Weights rounded by the output: never worse than to the nearest, safe from saturation, the same for any batching."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantize_graphs import Graph, sqnr_db

from onnxqp.calibrate.collect import collect
from onnxqp.calibrate.moments import Moments
from onnxqp.calibrate.observers import together
from onnxqp.ops.contraction import Product, Windows
from onnxqp.options import QuantizeOptions
from onnxqp.quantize import quantize_model
from onnxqp.quantize.layer_inputs import LayerInputs, layer_roundings
from onnxqp.quantize.rounding import LayerRounding, factor_of, round_by_hessian
from onnxqp.quantize.weights import PAIR_LIMIT, quantize_weight, worst_pair

CONV = Windows(groups=1, kernel=(3, 3), strides=(1, 1), dilations=(1, 1), pads=(1, 1))


def moments_of(rows):
    """Of rows [groups, rows, inputs]."""
    found = Moments.about(rows.mean(axis=1, dtype=np.float64), np.zeros((len(rows), 0)))
    found.update(rows, np.zeros((*rows.shape[:2], 0), rows.dtype))
    return found


def correlated(rng, groups, count, inputs):
    """Inputs that mostly follow a few common causes, about a mean."""
    causes = rng.normal(0, 1, (groups, count, 3)) @ rng.normal(0, 1, (groups, 3, inputs))
    return (causes + rng.normal(0, 0.2, (groups, count, inputs)) + rng.normal(0, 2, inputs)).astype(np.float32)


def output_error(rows, error, *, centred):
    noise = rows @ error
    return float(np.square(noise - noise.mean(axis=1, keepdims=True) if centred else noise).mean())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.integers(1, 3), st.integers(1, 80))
def test_the_output_error_falls_and_integers_fit(seed, centred, groups, inputs):
    rng = np.random.default_rng(seed)
    rows = correlated(rng, groups, 400, inputs)
    weight = rng.normal(0, 1, (4 * groups, inputs, 1, 1)).astype(np.float32)
    layer = LayerRounding(Windows(groups, (1, 1), (1, 1), (1, 1), (0, 0)), moments_of(rows))
    nearest = quantize_weight(weight, 0)
    scale = nearest.scale.reshape(-1, 1, 1, 1)
    found = layer.round(weight, scale, nearest.values, centred=centred)
    assert found.dtype == np.int8
    assert found.shape == weight.shape
    matrix = layer.contraction.matrix
    before, after = (
        output_error(rows, matrix(weight) - matrix(integers * scale), centred=centred)
        for integers in (nearest.values, found)
    )
    assert after <= before * (1 + 1e-6) + 1e-12
    if inputs > 20:
        assert after < 0.5 * before, "correlated inputs leave much to gain"


def test_it_is_the_best_there_is_where_all_can_be_tried():
    rng = np.random.default_rng(3)
    hessian = np.cov(correlated(rng, 1, 500, 2)[0].T)[None]
    factor, order = factor_of(hessian, 0.0)
    wins = 0
    for _ in range(50):
        weight = rng.normal(0, 3, (1, 2, 1))
        found = round_by_hessian(weight, np.ones((1, 2, 1)), factor, order)
        grid = np.floor(weight) + np.array([[i, j] for i in range(-4, 6) for j in range(-4, 6)]).T[None]
        errors = np.einsum("io,ij,jo->o", (weight - grid)[0], hessian[0], (weight - grid)[0])
        own = float(np.einsum("gio,gij,gjo->", weight - found, hessian, weight - found))
        plain = weight - np.rint(weight)
        assert own <= float(np.einsum("gio,gij,gjo->", plain, hessian, plain)) * 4
        wins += own <= errors.min() * 1.000001
    assert wins >= 30


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([3, 4, 7, 16]))
def test_pairs_stay_safe(seed, channels):
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, 1, (5, channels, 3, 3)).astype(np.float32)
    weight[0] = np.abs(weight[0])
    layer = LayerRounding(CONV, moments_of(correlated(rng, 1, 800, channels * 9)))
    nearest = quantize_weight(weight, 0, summed=(2, 3, 1), safe=True)
    assert nearest.made_safe
    scale = nearest.scale.reshape(-1, 1, 1, 1)
    safe = layer.round(weight, scale, nearest.values, centred=True, summed=(2, 3, 1))
    assert worst_pair(safe, (2, 3, 1)) <= PAIR_LIMIT
    assert (safe != nearest.values).any()


def test_the_bias_takes_back_what_the_rows_say():
    rng = np.random.default_rng(0)
    rows = correlated(rng, 1, 300, 40)
    weight = rng.normal(0, 1, (40, 6)).astype(np.float32)
    layer = LayerRounding(Product(bias=2), moments_of(rows))
    rounded = (np.round(weight * 8) / 8).astype(np.float32)
    noise = rows[0] @ (weight - rounded)
    assert layer.shift(weight, rounded) == pytest.approx(noise.mean(axis=0), rel=1e-3, abs=1e-4)


def smooth(graph, count):
    """Images whose neighbouring pixels are alike."""
    rng = np.random.default_rng(5)
    shape = [size if isinstance(size, int) else 1 for size in graph.shape]
    images = rng.normal(0, 1, (count, *shape[1:])).cumsum(axis=2).cumsum(axis=3)
    return [{graph.name: (image[None] / 10 + 3).astype(np.float32)} for image in images]


def network(batch=1):
    graph = Graph((batch, 16, 12, 12))
    x = graph.conv_relu(graph.name, 16, 32)
    y = graph.op("Tanh", graph.conv_relu(x, 32, 32))
    pooled = graph.op("Flatten", graph.op("GlobalAveragePool", y))
    return graph, graph.model(graph.op("MatMul", pooled, graph.matrix(32, 8)))


def test_batches_change_nothing():
    graph, model = network("n")
    feeds = smooth(graph, 9)
    stacked = [{graph.name: np.concatenate([feed[graph.name] for feed in feeds[i : i + 4]])} for i in range(0, 9, 4)]
    alone, together = layer_roundings(model, feeds), layer_roundings(model, stacked)
    assert list(alone) == list(together)
    assert {"Conv0", "Conv2", "MatMul7"} == set(alone)
    for name, layer in alone.items():
        assert layer.moments.count == together[name].moments.count
        assert layer.moments.covariance == pytest.approx(together[name].moments.covariance, rel=1e-4, abs=1e-5)
        assert layer.moments.x_mean == pytest.approx(together[name].moments.x_mean, rel=1e-5, abs=1e-6)


def test_what_was_rounded_is_known_until_more_is_seen():
    graph, model = network()
    layers, feeds = LayerInputs(model), smooth(graph, 6)
    collect(model, feeds[:4], together(layers.observers()))
    first, again = layers.roundings(), layers.roundings()
    assert all(again[name] is rounding for name, rounding in first.items())
    collect(model, feeds[4:], together(layers.observers()))
    assert all(layers.roundings()[name] is not rounding for name, rounding in first.items())


def test_layers_look_at_samples_from_all_over():
    graph, model = network()
    feeds = smooth(graph, 40)
    sorted_ = [{graph.name: feed[graph.name] + np.float32(place >= 20)} for place, feed in enumerate(feeds)]
    plain, found = (layer_roundings(model, each)["Conv0"].moments.x_mean.mean() for each in (feeds, sorted_))
    assert found == pytest.approx(plain + 0.5, abs=0.1)


@pytest.mark.parametrize("target", ["x64-vnni", "x64-avx2"])
def test_the_whole_model_gains(monkeypatch, target):
    graph, model = network()
    feeds = smooth(graph, 24)
    options = QuantizeOptions(target=target)
    by_output = sqnr_db(model, quantize_model(model, feeds[:16], options).model, feeds[16:])
    monkeypatch.setattr(LayerInputs, "roundings", lambda self, corrects: {})
    nearest = sqnr_db(model, quantize_model(model, feeds[:16], options).model, feeds[16:])
    assert by_output > nearest + 1
