"""Labels, classes, families and cuts, without a model."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxqp.axes import AxisLabels, Cut, Family, Pin, components, spread


def value(name: str, *shape: int) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))


@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=80))
def test_components_are_those_of_a_graph_walk(count: int, pairs: list[tuple[int, int]]) -> None:
    pairs = [(a % count, b % count) for a, b in pairs]
    expected = list(range(count))
    changed = True
    while changed:
        changed = False
        for a, b in pairs:
            low = min(expected[a], expected[b])
            changed |= expected[a] != low or expected[b] != low
            expected[a] = expected[b] = low
    left, right = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    assert components(count, left, right).tolist() == expected


def test_a_long_chain_is_one_class() -> None:
    count = 200_000
    order = np.random.default_rng(0).permutation(count)
    assert (components(count, order[:-1], order[1:]) == 0).all()


def test_ties_broadcast() -> None:
    labels = AxisLabels()
    block, row = labels.fresh(3, 4), labels.fresh(4)
    labels.tie(block, row)
    classes = labels.classes()
    assert (classes[block] == classes[row]).all()
    assert len(set(classes[row].tolist())) == 4


def test_coarsening_makes_blocks_alike() -> None:
    labels = AxisLabels()
    family = Family(("h", "d"), labels.fresh(3, 4))
    narrow = labels.coarsen(family, ["d"])
    assert narrow.axes == ("d",)
    assert narrow.labels.shape == (4,)
    classes = labels.classes()
    assert (classes[family.labels] == classes[narrow.labels]).all()
    assert labels.coarsen(family, ["h", "d"]) is family


def test_labels_of_a_frozen_axis_are_born_pinned() -> None:
    labels = AxisLabels()
    weight = value("w", 4, 5)
    labels.freeze(weight, 1, Pin("Op", "node", "why"))
    first, second = labels.own(weight, (0,)), labels.own(weight, (1,))
    pinned = np.concatenate([ids for ids, _ in labels.pins])
    assert set(pinned.tolist()) == set(second.labels.tolist())
    assert labels.families(weight) == (first, second)
    assert labels.family(weight, 1) is second
    assert labels.why_free(weight, 1) == Pin("Op", "node", "why")


def test_a_family_across_the_blocks_of_another_is_pinned() -> None:
    labels = AxisLabels()
    heads, inside = Family((1,), labels.fresh(4)), Family((1, 3), labels.fresh(4, 8))
    labels.give(value("x", 2, 4, 5, 8), [heads, inside])
    assert labels.pins[0][0].tolist() == heads.labels.tolist()


def cut_of(labels: AxisLabels, *removed: int) -> Cut:
    gone = np.zeros(labels.count, np.bool_)
    gone[list(removed)] = True
    return Cut(labels, gone)


def test_cut_of_one_axis() -> None:
    labels = AxisLabels()
    weight = value("w", 4, 2)
    ids = labels.own(weight, (0,)).labels
    cut = cut_of(labels, ids[1], ids[2])
    array = np.arange(8).reshape(4, 2)
    assert cut.sizes(weight) == {0: 2}
    assert cut.size("w", 0) == 2
    assert cut.size("w", 1) is None
    kept = cut.kept(weight, 0)
    assert kept is not None
    assert kept.tolist() == [0, 3]
    assert cut.compact(weight, array).tolist() == [[0, 1], [6, 7]]
    assert cut.kept(weight, 1) is None


def test_cut_of_blocks_compacts_each_on_its_own() -> None:
    labels = AxisLabels()
    x = value("x", 3, 5, 2)
    ids = labels.fresh(2, 3)
    labels.give(x, [Family((2, 0), ids)])  # blocks along axis 2, compacted along axis 0
    cut = cut_of(labels, ids[0, 1], ids[1, 0])
    array = np.arange(30).reshape(3, 5, 2)
    compacted = cut.compact(x, array)
    assert cut.sizes(x) == {0: 2}
    np.testing.assert_array_equal(compacted[:, :, 0], array[[0, 2], :, 0])
    np.testing.assert_array_equal(compacted[:, :, 1], array[[1, 2], :, 1])
    with pytest.raises(ValueError, match="different positions"):
        cut.kept(x, 0)


def test_blocks_of_different_length_are_refused() -> None:
    labels = AxisLabels()
    x = value("x", 2, 3)
    ids = labels.fresh(2, 3)
    labels.give(x, [Family((0, 1), ids)])
    with pytest.raises(ValueError, match="different numbers"):
        cut_of(labels, ids[0, 1]).sizes(x)


def test_spread_puts_axes_in_place() -> None:
    array = np.arange(6).reshape(2, 3)
    placed = spread(array, (3, 1), 4)
    assert placed.shape == (1, 3, 1, 2)
    np.testing.assert_array_equal(placed[0, :, 0, :], array.T)
