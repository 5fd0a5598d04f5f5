"""Blocks that must stay equal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxqp.prune.blocks import bound_components, bundles, find_demands

Blocks = list[np.ndarray]


def made(balances: Blocks, count: int, pinned: tuple[int, ...] = ()) -> list[list[np.ndarray]]:
    free = np.ones(count, np.bool_)
    free[list(pinned)] = False
    scores = np.arange(count, dtype=float)
    return [bundles(component, scores) for component in bound_components(balances, np.arange(count), free)]


def check(balances: Blocks, chosen: list[np.ndarray]) -> None:
    """Whatever prefix of bundles goes, all blocks of every demand keep the same number, and at least one."""
    gone: list[int] = []
    for bundle in chosen:
        gone += bundle.tolist()
        assert len(set(gone)) == len(gone)
        for blocks in balances:
            left = (~np.isin(blocks, gone)).sum(axis=1)
            assert len(set(left.tolist())) == 1
            assert left[0] >= 1


def test_free_classes_are_not_bound() -> None:
    assert find_demands([np.zeros((3, 2), np.int64)], np.arange(1)) == []
    same = np.array([[0, 1], [1, 0]])
    assert find_demands([same], np.arange(2)) == []


def test_heads_lose_one_each() -> None:
    heads = np.arange(12).reshape(3, 4)
    (chosen,) = made([heads], 12)
    assert [sorted(bundle.tolist()) for bundle in chosen] == [[0, 4, 8], [1, 5, 9], [2, 6, 10]]


def test_equal_demands_count_once() -> None:
    heads = np.arange(12).reshape(3, 4)
    assert len(find_demands([heads, heads.copy()], np.arange(12))) == 1


def test_a_block_that_cannot_lose_holds_the_others() -> None:
    heads = np.arange(12).reshape(3, 4)
    assert made([heads], 12, pinned=(4, 5, 6, 7)) == [[]]
    assert len(made([heads], 12, pinned=(4, 5))[0]) == 2


def test_blocks_across_blocks() -> None:
    """Shuffled groups: rows and columns of a square."""
    square = np.arange(36).reshape(3, 3, 4)
    rows, columns = square.reshape(3, 12), square.transpose(1, 0, 2).reshape(3, 12)
    (chosen,) = made([rows, columns], 36)
    check([rows, columns], chosen)
    assert {len(bundle) for bundle in chosen} == {3}
    assert sum(len(bundle) for bundle in chosen) >= 24


def test_blocks_inside_blocks() -> None:
    eight = np.arange(32).reshape(8, 4)
    four = eight.reshape(4, 8)
    (chosen,) = made([four, eight], 32)
    check([four, eight], chosen)
    assert sum(len(bundle) for bundle in chosen) == 24


def test_halves_handed_on() -> None:
    """ShuffleNet V2: half of a unit's channels are one block of the next, its new channels the other."""
    balances, last, count = [], np.arange(16), 16
    for _ in range(4):
        fresh = np.arange(count, count + 8)
        count += 8
        balances.append(np.stack([last[:8], fresh]))
        last = balances[-1].T.reshape(-1)
    (chosen,) = made(balances, count)
    check(balances, chosen)
    gone = sum(len(bundle) for bundle in chosen)
    assert gone > 0.6 * (count - 8)


@given(st.lists(st.sampled_from([2, 3, 4, 6]), min_size=1, max_size=3), st.randoms(use_true_random=False), st.data())
def test_any_overlap_stays_balanced(widths: list[int], random: object, data: st.DataObject) -> None:
    balances = []
    for width in widths:
        order = np.arange(24) if data.draw(st.booleans()) else np.array(data.draw(st.permutations(range(24))))
        balances.append(order.reshape(width, -1))
    pinned = data.draw(st.lists(st.integers(0, 23), max_size=3))
    for chosen in made(balances, 24, tuple(pinned)):
        check(balances, chosen)
        assert not set(pinned) & {int(c) for bundle in chosen for c in bundle}


@pytest.mark.parametrize("heads", [12, 64])
def test_many_heads_in_many_layers_are_quick(heads: int) -> None:
    balances = [np.arange(n * heads * 32, (n + 1) * heads * 32).reshape(heads, 32) for n in range(40)]
    found = made(balances, 40 * heads * 32)
    assert len(found) == 40
    assert all(len(chosen) == 31 for chosen in found)
