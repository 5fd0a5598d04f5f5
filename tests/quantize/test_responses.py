"""Ranges by what becomes of a value: functions of single elements are found, worked out, and weigh its errors."""

import numpy as np
import pytest
from quantize_graphs import Graph, sqnr_db

from onnxqp.calibrate.observers import Histogram
from onnxqp.calibrate.ranges import auto
from onnxqp.options import QuantizeOptions, Selection
from onnxqp.quantize import quantize_model
from onnxqp.quantize.arithmetic import dequantize_linear, quantize_linear, range_parameters
from onnxqp.quantize.responses import Responses

RNG = np.random.default_rng(0)
WIDE = np.concatenate([RNG.normal(-20, 15, 40_000), RNG.normal(1, 1, 40_000)]).astype(np.float32)


def histogram(x):
    found = Histogram()
    found.update(x)
    return found


def silu(x):
    return x / (1 + np.exp(-x))


def test_the_function_behind_a_value_is_found():
    graph = Graph()
    x = graph.conv(graph.name)
    y = graph.op("Mul", x, graph.op("Sigmoid", x))
    z = graph.op("Div", graph.op("Add", y, graph.constant(np.float32(2))), graph.constant(np.array([4.0], np.float32)))
    h = histogram(WIDE)
    curves = Responses.of(graph.model(graph.conv(z))).at_edges(x, h)
    assert len(curves) == 1
    assert curves[0] == pytest.approx((silu(h.edges) + 2) / 4, abs=1e-5)


def test_what_else_is_read_counts_too():
    graph = Graph()
    x = graph.conv(graph.name)
    h = histogram(WIDE)
    model = graph.model(graph.conv(graph.op("Sigmoid", x)), graph.conv(x))
    curves = Responses.of(model).at_edges(x, h)
    assert len(curves) == 2
    assert curves[1] == pytest.approx(h.edges)


def test_values_that_meet_others_are_taken_as_they_are():
    graph = Graph()
    x, y = graph.conv(graph.name), graph.conv(graph.name)
    scaled = graph.op("Mul", y, graph.constant(np.ones((16, 1, 1), np.float32) * 3))
    responses = Responses.of(graph.model(graph.op("Add", x, scaled)))
    assert responses.at_edges(x, histogram(WIDE)) == []
    assert responses.at_edges(y, histogram(WIDE)) == []
    assert responses.at_edges(x, histogram(np.zeros(3))) == []


def test_steps_go_where_they_count():
    h = histogram(WIDE)
    plain, by_response = auto(h), auto(h, [silu(h.edges)])
    assert plain[0] < -40
    assert -12 < by_response[0] < -2
    errors = []
    for ends in (plain, by_response):
        scale, zero = range_parameters(*ends)
        rounded = dequantize_linear(quantize_linear(WIDE, scale, zero), scale, zero)
        errors.append(np.square(silu(rounded) - silu(WIDE)).mean())
    assert errors[1] < errors[0] / 4


def test_a_network_of_silus_gains(monkeypatch):
    graph = Graph((1, 16, 16, 16))
    x = graph.name
    for _ in range(2):
        x = graph.conv(graph.op("Mul", y := graph.conv(x), graph.op("Sigmoid", y)))
    for name in list(graph.weights):
        if name.startswith("w"):
            graph.weights[name] = graph.weights[name] * np.float32(4)
    model = graph.model(graph.op("Tanh", graph.op("Mul", x, graph.constant(np.float32(0.001)))))
    feeds = graph.samples(12)
    options = QuantizeOptions(target="x64-vnni", selection=Selection(include=("*",)))
    gains = sqnr_db(model, quantize_model(model, feeds, options).model, feeds)
    monkeypatch.setattr(Responses, "at_edges", lambda self, name, histogram: [])
    assert gains > sqnr_db(model, quantize_model(model, feeds, options).model, feeds) + 0.5
