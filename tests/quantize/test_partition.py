"""The minimum cut, held against trying every choice."""

import itertools
import random
import time

import pytest

from onnxqp.quantize.partition import FORBIDDEN, Partition


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
