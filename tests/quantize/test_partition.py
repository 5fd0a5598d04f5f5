"""The minimum cut, held against trying every choice."""

import itertools
import random
import time

import pytest

from onnxqp.quantize.partition import FORBIDDEN, Partition, _Network


def brute(nodes, borders):
    """The least cost over all choices."""

    def cost(choice):
        unary = sum(i if state else f for (f, i), state in zip(nodes, choice, strict=True))
        return unary + sum(c for a, b, c in borders if not choice[a] and choice[b])

    return min(map(cost, itertools.product([False, True], repeat=len(nodes)))), cost


@pytest.mark.parametrize("seed", range(40))
def test_no_choice_is_cheaper(seed):
    rng = random.Random(seed)
    size = rng.randint(1, 9)
    nodes = [(rng.uniform(0, 10), rng.uniform(0, 10)) for _ in range(size)]
    for i in rng.sample(range(size), size // 4):
        nodes[i] = rng.choice([(FORBIDDEN, 1.0), (1.0, FORBIDDEN)])
    borders = [(rng.randrange(size), rng.randrange(size), rng.uniform(0, 8)) for _ in range(2 * size)]
    partition = Partition()
    for node in nodes:
        partition.node(*node)
    for border in borders:
        partition.border(*border)
    best, cost = brute(nodes, borders)
    assert cost(partition.solve()) == pytest.approx(best)


def test_a_forbidden_border_ties_a_node_to_another():
    partition = Partition()
    dear = partition.node(1.0, 5.0)
    cheap = partition.node(3.0, 0.0)
    partition.border(dear, cheap, FORBIDDEN)
    assert partition.solve() == [False, False]


def test_nothing_to_gain_stays_float():
    partition = Partition()
    partition.node(1.0, 1.0)
    assert partition.solve() == [False]
    assert Partition().solve() == []


def test_a_long_chain_is_quick():
    rng = random.Random(0)
    partition = Partition()
    numbers = [partition.node(rng.uniform(0, 10), rng.uniform(0, 10)) for _ in range(20_000)]
    for a, b in itertools.pairwise(numbers):
        cost = rng.uniform(0, 5)
        partition.border(a, b, cost)
        partition.border(b, a, cost)
    begun = time.perf_counter()
    assert len(partition.solve()) == 20_000
    assert time.perf_counter() - begun < 5


def test_residual_blocks_vanish_without_a_cut(monkeypatch):
    """Chains with bypasses have a treewidth of 2: elimination alone solves them, however deep they are."""
    left = []
    monkeypatch.setattr(_Network, "cut", lambda self, source, sink: left.append(source) or [])
    rng = random.Random(1)
    partition = Partition()
    last = partition.node(1.0, 2.0)
    for _ in range(3000):
        inner = partition.node(rng.uniform(0, 10), rng.uniform(0, 10))
        join = partition.node(rng.uniform(0, 10), rng.uniform(0, 10))
        for a, b in ((last, inner), (inner, join), (last, join)):
            partition.border(a, b, rng.uniform(0, 5))
            partition.border(b, a, rng.uniform(0, 5))
        last = join
    assert len(partition.solve()) == 6001
    assert left == [0]  # nothing


@pytest.mark.parametrize("seed", range(20))
def test_among_equal_choices_the_fewest_integers(seed):
    rng = random.Random(seed)
    size = rng.randint(2, 8)
    nodes = [(rng.randint(0, 2), rng.randint(0, 2)) for _ in range(size)]
    borders = [(rng.randrange(size), rng.randrange(size), rng.randint(0, 2)) for _ in range(2 * size)]
    partition = Partition()
    for node in nodes:
        partition.node(*node)
    for border in borders:
        partition.border(*border)
    best, cost = brute(nodes, borders)
    choices = [c for c in itertools.product([False, True], repeat=size) if cost(c) == best]
    assert partition.solve() == list(min(choices, key=sum))
