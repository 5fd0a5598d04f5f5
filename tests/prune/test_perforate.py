"""Fewer places in space where only their mean is asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper
from prune_checks import Build

from onnxqp.model import to_bytes
from onnxqp.options import PruneOptions, Selection
from onnxqp.prune.budgets import count_macs
from onnxqp.prune.perforate import find_regions, perforations
from onnxqp.recover import prune_and_recover, settled
from onnxqp.runtime import Session

SIZE = 9


def stem(build: Build, channels: int = 8, size: int = SIZE) -> str:
    x = build.input(1, 3, size, size, symbolic={0: "n"})
    return str(build.op("Relu", build.conv(x, 3, channels, 3)))


def plain(build: Build) -> str:
    return str(build.op("GlobalAveragePool", build.op("Relu", build.conv(stem(build), 8, 16, 3))))


def fire(build: Build) -> str:
    """Two branches, joined, and a 1x1 convolution behind them."""
    x = stem(build)
    left = build.op("Relu", build.conv(x, 8, 8))
    right = build.op("Relu", build.conv(x, 8, 8, 3))
    y = build.op("Concat", left, right, axis=1)
    return str(build.op("GlobalAveragePool", build.op("Relu", build.conv(y, 16, 12))))


def residual(build: Build) -> str:
    x = stem(build)
    return str(build.op("GlobalAveragePool", build.op("Add", x, build.conv(build.conv(x, 8, 8, 3), 8, 8, 3))))


def gated(build: Build) -> str:
    """Squeeze and excite, whose own average is taken over fewer places, too."""
    x = build.op("Relu", build.conv(stem(build), 8, 8, 3))
    gate = build.op("Sigmoid", build.conv(build.op("GlobalAveragePool", x), 8, 8))
    return str(build.op("GlobalAveragePool", build.op("Mul", x, gate)))


def shared(build: Build) -> str:
    """A 1x1 convolution of a value that another reads: its own stride grows."""
    x = stem(build)
    y = build.op("GlobalAveragePool", build.op("Relu", build.conv(x, 8, 16)))
    z = build.op("GlobalMaxPool", x)
    return str(build.op("Concat", y, z, axis=1))


def window(build: Build) -> str:
    return str(build.op("AveragePool", build.conv(stem(build), 8, 8, 3), kernel_shape=[SIZE, SIZE]))


def mean(build: Build) -> str:
    return str(build.op("ReduceMean", build.conv(stem(build), 8, 8, 3), axes=[2, 3], keepdims=0))


def automatic(build: Build) -> str:
    y = build.conv(stem(build), 8, 8, 4, pads=[0] * 4)
    build.nodes[-1].attribute.remove(next(a for a in build.nodes[-1].attribute if a.name == "pads"))
    build.nodes[-1].attribute.extend([helper.make_attribute("auto_pad", "SAME_LOWER")])
    return str(build.op("GlobalAveragePool", y))


def pooled(build: Build) -> str:
    y = build.op("MaxPool", stem(build), kernel_shape=[2, 2], strides=[1, 1])
    return str(build.op("GlobalAveragePool", build.conv(y, 8, 8)))


FORMS: list[tuple[Callable[[Build], str], int, int]] = [  # windows that grow, values that are sampled for the region
    (plain, 1, 0),
    (fire, 2, 0),
    (residual, 1, 1),
    (gated, 1, 0),
    (shared, 1, 0),
    (window, 1, 0),
    (mean, 1, 0),
    (automatic, 1, 0),
    (pooled, 1, 0),
]


@pytest.mark.parametrize(("form", "windows", "edges"), FORMS, ids=lambda value: getattr(value, "__name__", ""))
def test_every_way_computes_what_was_asked_of_the_whole(form: Callable[[Build], str], windows: int, edges: int) -> None:
    build = Build()
    model = build.model(form(build))
    (region,) = find_regions(model.graph)
    assert len(region.windows) == windows
    assert len(region.edges) == edges
    ways = perforations(model)
    assert {way.steps for way in ways} == {(1, 2), (2, 1), (2, 2)}
    for way in ways:
        fewer = way.of(model)
        expected, found = (Session(to_bytes(each)).run(build.feed) for each in (way.asked_of(model), fewer))
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, atol=1e-5)
        assert count_macs(fewer) < count_macs(model)
        again = Session(model).run(build.feed)  # the model itself is as it was
        assert any(np.abs(again[name] - array).max() > 1e-4 for name, array in expected.items())


def test_shapes_are_those_that_run() -> None:
    build = Build()
    model = build.model(fire(build))
    for way in perforations(model):
        fewer = way.of(model)
        taps = [value for node in fewer.graph for value in node.outputs if not value.is_graph_output()]
        fewer.graph.outputs.extend(taps)
        for name, array in Session(to_bytes(fewer)).run(build.feed).items():
            value = next(each for each in fewer.graph.outputs if each.name == name)
            assert value.shape is not None
            assert list(value.shape)[1:] == list(array.shape)[1:]


@pytest.mark.parametrize("reader", ["output", "flatten"])
def test_a_value_that_others_read_whole_is_left_alone(reader: str) -> None:
    build = Build()
    x = build.conv(stem(build), 8, 8, 3)
    y = build.op("GlobalAveragePool", x)
    model = build.model(y, x if reader == "output" else build.op("Flatten", x))
    assert find_regions(model.graph) == []


def test_small_and_excluded_images_are_left_alone() -> None:
    build = Build()
    small = build.op("GlobalAveragePool", build.conv(stem(build, size=3), 8, 8, 3))
    assert find_regions(build.model(small).graph) == []
    build = Build()
    model = build.model(plain(build))
    (region,) = find_regions(model.graph)
    assert find_regions(model.graph, Selection(exclude=tuple(region.windows))) == []


def test_a_weight_of_unknown_shape_is_left_alone() -> None:
    build = Build()
    model = build.model(plain(build))
    (region,) = find_regions(model.graph)
    (conv,) = (node for node in model.graph if node.name in region.windows)
    weight = conv.inputs[1]
    assert weight is not None
    weight.shape = None
    assert find_regions(model.graph) == []


def smooth(count: int, size: int = 16) -> list[dict[str, np.ndarray]]:
    """Images without detail: places beside each other tell the same."""
    random = np.random.default_rng(3)
    return [
        {"x": np.kron(random.normal(size=(1, 3, 2, 2)), np.ones((size // 2, size // 2))).astype(np.float32)}
        for _ in range(count)
    ]


def wide() -> ir.Model:
    """Most work is in front of the average."""
    build = Build()
    y = build.op("Relu", build.conv(stem(build, 8, 16), 8, 32, 3))
    flat = build.op("Flatten", build.op("GlobalAveragePool", y))
    return build.model(build.linear(flat, 32, 10))


def test_work_is_saved_where_it_costs_least() -> None:
    model, feeds = wide(), smooth(24)
    options = settled(PruneOptions(macs_ratio=0.5, round_to=1), "data")
    found = prune_and_recover(model, feeds[:2], feeds, options, kind="least-squares")
    (region,) = found.pruning.perforated or []
    assert found.pruning.macs_ratio is not None
    assert found.pruning.macs_ratio == pytest.approx(count_macs(found.model) / count_macs(model))
    assert found.pruning.macs_ratio < 0.55
    assert found.pruning.proof is not None
    assert found.pruning.proof.checked
    channels = prune_and_recover(model, feeds[:2], feeds, settled(options, "data"), kind=None)
    assert channels.pruning.perforated is None
    unseen = smooth(40)[24:]
    (name,) = (value.name for value in model.graph.outputs)
    outputs = [np.concatenate([Session(each).run(f)[name] for f in unseen]) for each in (model, found.model)]
    assert region.cost < 0.05
    assert np.square(outputs[1] - outputs[0]).sum() < 0.05 * np.square(outputs[0]).sum()


@pytest.mark.parametrize(
    "options",
    [PruneOptions(ratio=0.5), PruneOptions(macs_ratio=0.5, criterion="l1"), PruneOptions(params_ratio=0.5)],
)
def test_channels_go_where_channels_were_asked_for(options: PruneOptions) -> None:
    feeds = smooth(10)
    found = prune_and_recover(wide(), feeds[:2], feeds, settled(options, "data"), kind="least-squares")
    assert found.pruning.perforated is None
    assert found.pruning.channels_after < found.pruning.channels_before
