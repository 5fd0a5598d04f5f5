"""Images cut at their ends, where only averages look at them as a whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from prune_checks import Build

from onnxqp.model import to_bytes
from onnxqp.options import PruneOptions, Selection
from onnxqp.prune.budgets import count_macs
from onnxqp.prune.margins import margins
from onnxqp.prune.places import at_fewer_places, ways_of
from onnxqp.prune.pruning import plan
from onnxqp.recover import Pruner, Stage, prune_and_recover, settled
from onnxqp.recover.iterate import Choice, by_kinds
from onnxqp.recover.unseen import Kinds
from onnxqp.runtime import Session
from onnxqp.specs import Feed

SIZE = 32  # of the image; that of the last is 8


def stem(build: Build, size: int = SIZE) -> str:
    x = build.input(1, 3, size, size, symbolic={0: "n"})
    x = build.op("Relu", build.conv(x, 3, 8, 3, strides=[2, 2]))
    return str(build.op("Relu", build.conv(x, 8, 8, 3, strides=[2, 2])))


def plain(build: Build) -> str:
    return str(build.op("GlobalAveragePool", build.op("Relu", build.conv(stem(build), 8, 16, 3))))


def gated(build: Build) -> str:
    """Squeeze and excite, twice as large as the last image, whose own average is taken over less, too."""
    x = build.op("Relu", build.conv(build.input(1, 3, SIZE, SIZE, symbolic={0: "n"}), 3, 8, 3, strides=[2, 2]))
    gate = build.op("Sigmoid", build.conv(build.op("GlobalAveragePool", x), 8, 8))
    y = build.conv(build.op("Mul", x, gate), 8, 8, 3, strides=[2, 2])
    return str(build.op("GlobalAveragePool", build.op("Relu", y)))


def joined(build: Build) -> str:
    x = stem(build)
    return str(build.op("ReduceMean", build.op("Concat", x, build.conv(x, 8, 4, 3), axis=1), axes=[2, 3], keepdims=0))


def padded(build: Build) -> str:
    """As Keras writes strided convolutions: more places at the end, by a node of its own."""
    x = build.op("Pad", build.input(1, 3, SIZE, SIZE), build.const([0, 0, 0, 0, 0, 0, 1, 1]))
    x = build.op("Relu", build.conv(x, 3, 8, 3, strides=[2, 2], pads=[0] * 4))
    x = build.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    return str(build.op("GlobalAveragePool", build.conv(x, 8, 8, 3)))


def turned(build: Build) -> str:
    """Channels come last, as in TensorFlow."""
    x = build.op("Transpose", build.input(1, SIZE, SIZE, 3), perm=[0, 3, 1, 2])
    x = build.conv(x, 3, 8, 5, strides=[4, 4])
    return str(build.op("AveragePool", build.op("Relu", x), kernel_shape=[8, 8]))


FORMS: list[Callable[[Build], str]] = [plain, gated, joined, padded, turned]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_way_computes_what_was_asked_of_a_smaller_image(form: Callable[[Build], str]) -> None:
    build = Build()
    model = build.model(form(build))
    ways = margins(model)
    assert {way.less for way in ways} == {(a, b) for a in (0, 4, 8) for b in (0, 4, 8)} - {(0, 0)}
    whole = Session(model).run(build.feed)
    for way in ways:
        narrow = way.of(model)
        expected, found = (Session(to_bytes(each)).run(build.feed) for each in (way.asked_of(model), narrow))
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, atol=1e-5)
            assert np.abs(whole[name] - array).max() > 1e-5
        assert count_macs(narrow) < count_macs(model)
        assert narrow.graph.inputs[0].shape == model.graph.inputs[0].shape, "nobody needs to send other images"


def test_places_that_are_left_lie_where_they_lay() -> None:
    build = Build()
    model = build.model(plain(build))
    (mean,) = (node for node in model.graph if node.op_type == "GlobalAveragePool")
    last = str(mean.inputs[0] and mean.inputs[0].name)
    (way,) = (each for each in margins(model) if each.less == (0, 8))
    before, after = (Session(each, taps=[last]).run(build.feed)[last] for each in (model, way.of(model)))
    assert (before.shape[2:], after.shape[2:]) == ((8, 8), (8, 6))
    np.testing.assert_allclose(after[..., :4], before[..., :4], atol=1e-5)
    assert np.abs(after[..., 5] - before[..., 5]).max() > 1e-4, "beside the new edge there is padding"


def test_shapes_are_those_that_run() -> None:
    build = Build()
    model = build.model(joined(build))
    for way in margins(model):
        narrow = way.of(model)
        taps = [value for node in narrow.graph for value in node.outputs if not value.is_graph_output()]
        narrow.graph.outputs.extend(taps)
        for name, array in Session(to_bytes(narrow)).run(build.feed).items():
            value = next(each for each in narrow.graph.outputs if each.name == name)
            assert value.shape is not None
            assert list(value.shape)[1:] == list(array.shape)[1:]


def flattened(build: Build, x: str) -> str:
    return str(build.op("Flatten", x))


def constant_beside(build: Build, x: str) -> str:
    return str(build.op("GlobalAveragePool", build.op("Add", x, build.weight(8, 8, 8))))


def turned_again(build: Build, x: str) -> str:
    return str(build.op("GlobalAveragePool", build.op("Transpose", x, perm=[0, 1, 3, 2])))


@pytest.mark.parametrize("reader", [flattened, constant_beside, turned_again], ids=lambda reader: reader.__name__)
def test_an_image_that_others_read_whole_is_left_alone(reader: Callable[[Build, str], str]) -> None:
    build = Build()
    x = stem(build)
    model = build.model(build.op("GlobalAveragePool", x), reader(build, x))
    assert margins(model) == []


def test_small_uneven_open_and_excluded_images_are_left_alone() -> None:
    for size in (8, 30):  # 2 places are left of one, and of the other no whole step
        build = Build()
        assert margins(build.model(build.op("GlobalAveragePool", stem(build, size)))) == []
    build = Build()
    x = build.input(1, 3, SIZE, SIZE, symbolic={2: "h", 3: "w"})
    assert margins(build.model(build.op("GlobalAveragePool", build.conv(x, 3, 8, 3)))) == []
    build = Build()
    model = build.model(plain(build))
    assert margins(model)
    first, *others = (node.name or "" for node in model.graph)
    for name in others:
        assert margins(model, Selection(exclude=(name,))) == []
    assert {way.source for way in margins(model, Selection(exclude=(first,)))} == {"v0_0"}, "cut behind it"


def test_only_real_samples_judge_margins() -> None:
    build = Build()
    model = build.model(plain(build))
    assert len(ways_of(model, real=True)) == len(ways_of(model)) + len(margins(model))


def repeated(count: int) -> list[dict[str, np.ndarray]]:
    """Images that say the same in every quarter of their width, and each something else."""
    random = np.random.default_rng(5)
    tiles = random.normal(size=(count, 3, 8, 4)).repeat(4, axis=2).repeat(2, axis=3)
    return [{"x": 3 * np.tile(tile[None], (1, 1, 1, 4)).astype(np.float32)} for tile in tiles]


def busy() -> ir.Model:
    """Every channel says something that no other says."""
    build = Build()
    x = build.input(1, 3, SIZE, SIZE, symbolic={0: "n"})
    y = build.op("Relu", build.conv(x, 3, 16, 4, strides=[4, 4], pads=[0] * 4))
    y = build.op("Relu", build.conv(y, 16, 16))
    flat = build.op("Flatten", build.op("GlobalAveragePool", y))
    return build.model(build.linear(flat, 16, 16))


def test_less_of_an_image_is_looked_at_where_that_costs_least_and_the_user_is_told() -> None:
    model, feeds = busy(), repeated(60)
    options = settled(PruneOptions(macs_ratio=0.76), "data")
    found = prune_and_recover(model, feeds[:2], feeds, options, kind="least-squares")
    (narrowed,) = found.pruning.narrowed or []
    assert (narrowed.input, narrowed.size) == ("x", [32, 32])
    assert narrowed.kept[0] == 32
    assert narrowed.kept[1] < 32
    assert found.pruning.macs_ratio == pytest.approx(count_macs(found.model) / count_macs(model))
    assert found.pruning.macs_ratio is not None
    assert found.pruning.macs_ratio < 0.8
    assert found.pruning.proof is not None
    assert found.pruning.proof.checked
    (warning,) = (each for each in found.warnings if "no longer looks" in each)
    assert f"the last {32 - narrowed.kept[1]} of 32 places along axis 3 of input 'x'" in warning
    kept = prune_and_recover(model, feeds[:2], feeds, options, kind="least-squares", likeness="pictures")
    assert kept.pruning.narrowed is None
    excluded = settled(PruneOptions(macs_ratio=0.76, selection=Selection(exclude=tuple(narrowed.means))), "data")
    assert prune_and_recover(model, feeds[:2], feeds, excluded, kind="least-squares").pruning.narrowed is None


@pytest.mark.parametrize(
    ("doubts", "work", "elsewhere", "narrowed"),
    [(True, 5e10, 1.0, True), (True, 5e10, 0.0, False), (False, 5e10, 1.0, False), (True, 1.0, 1.0, False)],
)
def test_what_samples_of_few_kinds_say_is_checked_on_others(
    monkeypatch: pytest.MonkeyPatch, doubts: bool, work: float, elsewhere: float, narrowed: bool
) -> None:
    """On kinds that were seen channels seem to cost less; `elsewhere` they do not. Much work is not done twice."""
    monkeypatch.setattr("onnxqp.recover.iterate.CHECKED_WORK", work)
    model, feeds = busy(), repeated(20)
    (way,) = (each for each in margins(model) if each.less == (0, 8))
    asked = []

    def cheapest(self: Pruner, stage: Stage, options: PruneOptions, plain: Stage, judges: list[Feed]) -> Choice:
        asked.append((len(self.samples), len(judges)))
        after = 0.01 if len(self.samples) == len(feeds) else elsewhere
        return Choice(way, 0.02, 0.02, after)

    kinds = Kinds(tuple(range(20)), frozenset(range(20)), 1000)
    monkeypatch.setattr(Pruner, "_cheapest", cheapest)
    monkeypatch.setattr("onnxqp.recover.iterate.kinds_of", lambda model, samples: kinds)
    options = settled(PruneOptions(macs_ratio=0.76), "data")
    found = Pruner(model, feeds[:2], feeds, "least-squares", "data", doubts=doubts).cut(Stage(model), options)
    assert (found.pruning.narrowed is not None) == narrowed
    assert asked == [(20, 4), (10, 10)][: 1 + (doubts and work > 1)]


def test_the_record_and_the_proof_of_a_way() -> None:
    build = Build()
    model = build.model(plain(build))
    groups = plan(model, PruneOptions(ratio=0.0, criterion="l1")).record
    (way,) = (each for each in margins(model) if each.less == (4, 0))
    done, record = at_fewer_places(model, way, [build.feed], groups, 0.25)
    assert record.narrowed is not None
    assert (record.narrowed[0].kept, record.narrowed[0].cost) == ([28, 32], 0.25)
    assert record.macs_ratio == pytest.approx(count_macs(done) / count_macs(model))
    assert record.params_ratio == 1.0
    assert record.proof is not None
    assert record.proof.checked


def test_half_of_the_kinds_judge_the_other() -> None:
    feeds = [{"x": np.full(1, place, np.float32)} for place in range(6)]
    making, judging = by_kinds(feeds, Kinds((5, 1, 5, 2, 9, 1), frozenset({1, 2, 5, 9}), 1000))
    assert [float(feed["x"][0]) for feed in making] == [1, 3, 5]
    assert [float(feed["x"][0]) for feed in judging] == [0, 2, 4]
    assert by_kinds(feeds, Kinds((7,) * 6, frozenset({7}), 1000))[0] == []
