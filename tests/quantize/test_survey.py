"""A survey: the same is seen of the same samples, however it comes to them."""

import itertools

import numpy as np
import pytest
from quantize_graphs import Graph

from onnxqp.calibrate.collect import Chosen
from onnxqp.options import QuantizeOptions, Selection
from onnxqp.quantize.draft import Draft, observed
from onnxqp.quantize.equalize import find_pairs, scale
from onnxqp.quantize.survey import Stage, Survey
from onnxqp.targets import TARGETS


class Numbered:
    """Feeds that tell which of them were read."""

    def __init__(self, feeds, read=None):
        self.feeds, self.read = feeds, [] if read is None else read

    @property
    def total(self):
        return len(self.feeds)

    def __iter__(self):
        for feed in self.feeds:
            self.read.append(feed)
            yield feed

    def at(self, places):
        return Numbered([self.feeds[place] for place in places], self.read)


def parts(count):
    graph = Graph((1, 8, 12, 12))
    y = graph.conv_relu(graph.conv_relu(graph.name, 8, 16), 16, 8)
    feeds, options = graph.samples(count), QuantizeOptions()
    return Draft.of(graph.model(y), TARGETS["x64-vnni"], options, feeds), feeds


def moments(survey):
    return {name: rounding.moments.covariance for name, rounding in survey.roundings().items()}


@pytest.mark.parametrize("count", [3, 26, 90])
@pytest.mark.parametrize("selectable", [True, False])
def test_a_sketch_first_or_everything_at_once(count, selectable):
    draft, feeds = parts(count)
    values = observed(draft.annotation)
    once, twice, few = (Survey(draft, Numbered(feeds) if selectable else feeds, count) for _ in range(3))
    whole = once.see(Stage.ALL, values)
    twice.see(Stage.SKETCH, values)
    found = twice.see(Stage.ALL, values)
    for name, histogram in whole.histograms.items():
        assert np.array_equal(histogram.counts, found.histograms[name].counts)
        assert histogram.count == found.histograms[name].count
    few.see(Stage.SKETCH, values)
    few.see(Stage.ALL, [])
    assert len(moments(once)) == 2
    for name, expected in moments(once).items():
        assert moments(twice)[name] == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert moments(few)[name] == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("count", [12, 40])
def test_after_channels_were_scaled_only_what_changed_is_seen_anew(count):
    graph = Graph((1, 8, 12, 12))
    y = graph.name
    for inputs, outputs in itertools.pairwise((8, 16, 8, 8, 4)):
        y = graph.conv_relu(y, inputs, outputs)
    model, options, feeds = graph.model(y), QuantizeOptions(), graph.samples(count)
    pairs = find_pairs(model, Selection())
    first, (reader, _) = pairs[1].first, pairs[1].readers[0]
    before = Draft.of(model, TARGETS["x64-vnni"], options, feeds)
    scaled = scale(model, {first.name: tuple(range(-3, 5))})
    after = Draft.of(scaled, TARGETS["x64-vnni"], options, feeds)
    old, adopted, fresh = Survey(before, feeds, count), Survey(after, feeds, count), Survey(after, feeds, count)
    old.see(Stage.SKETCH, observed(before.annotation))
    known = old.roundings()
    adopted.adopt(old, {first.name}, {reader.name})
    assert adopted.outputs
    found, expected = (each.see(Stage.ALL, observed(after.annotation)) for each in (adopted, fresh))
    for name, histogram in expected.histograms.items():
        assert np.array_equal(histogram.counts, found.histograms[name].counts), name
        assert (histogram.exponent, histogram.range) == (found.histograms[name].exponent, found.histograms[name].range)
    for name, covariance in moments(fresh).items():
        assert moments(adopted)[name] == pytest.approx(covariance, rel=1e-5, abs=1e-6)
    kept = {name for name, rounding in adopted.roundings().items() if rounding is known[name]}
    assert kept == set(known) - {first.name, reader.name}
    anew = Survey(after, feeds, count)
    anew.adopt(old, {"no node of the draft"}, {reader.name})
    assert not anew.outputs


def test_only_what_is_wanted_is_read():
    draft, feeds = parts(90)
    numbered = Numbered(feeds)
    survey = Survey(draft, numbered, 90)
    survey.see(Stage.SKETCH, observed(draft.annotation))
    assert len(numbered.read) <= 17  # one of them twice
    survey.see(Stage.ALL, [])
    assert len(numbered.read) <= 34
    places = range(0, 90, 9)
    assert [id(feed) for feed in Chosen(draft.model, numbered, places)] == [id(feeds[place]) for place in places]
