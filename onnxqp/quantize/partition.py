"""Which nodes to run on integers: the cheapest partition of the graph, as a minimum cut.

Every node costs one thing in float and another in int8, and every border between the two costs a conversion. That is
a sum of unary and submodular pairwise terms, so a minimum s-t cut finds the global optimum (Greig, Porteous and Seheult
1989; the algorithm for the cut is Dinic's). Flow creeps along a deep network in as many phases as that has layers. But
minimising over a node with at most two neighbours leaves a submodular term between these two, so chains and residual
blocks vanish in linear time (variable elimination: their treewidth is 2), and only what is woven more closely is cut.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

FORBIDDEN = math.inf


@dataclass
class Partition:
    """A choice of float (False) or int8 (True) for each of a number of nodes, by cost. All costs are >= 0."""

    _float: list[float] = field(default_factory=list)
    _integer: list[float] = field(default_factory=list)
    _borders: list[tuple[int, int, float]] = field(default_factory=list)

    def node(self, float_cost: float, integer_cost: float) -> int:
        """A new node; `FORBIDDEN` for a state that it cannot have. Returns its number."""
        self._float.append(float_cost)
        self._integer.append(integer_cost)
        return len(self._float) - 1

    def border(self, in_float: int, in_integer: int, cost: float) -> None:
        """Pay `cost` when the first is float while the second is int8."""
        if cost > 0:
            self._borders.append((in_float, in_integer, cost))

    def solve(self) -> list[bool]:
        """The state of every node; among equally cheap choices the one with the fewest integers."""
        finite = sum(c for c in (*self._float, *self._integer, *(b[2] for b in self._borders)) if c < FORBIDDEN)
        limit = 2 * finite + 1  # dearer than any allowed choice, and finite for the arithmetic
        gains = [min(f, limit) - min(i, limit) for f, i in zip(self._float, self._integer, strict=True)]
        terms = _Terms(gains, 1e-12 * limit)
        for in_float, in_integer, cost in self._borders:
            terms.border(in_float, in_integer, min(cost, limit))
        return terms.minimum()


_Row = tuple[tuple[int, float, float], ...]  # a neighbour; paid when only the node is int8; when only the neighbour is


class _Terms:
    """The cost as a sum of terms: what int8 saves in each node, and what each border costs.

    `borders[v][u]` is paid when v is int8 and u is float; a pair stands in the rows of both. Differences up to `least`
    are rounding.
    """

    def __init__(self, gains: Sequence[float], least: float) -> None:
        self.gains = list(gains)
        self.borders: list[dict[int, float]] = [{} for _ in gains]
        self.least = least

    def border(self, in_float: int, in_integer: int, cost: float) -> None:
        if in_float != in_integer:
            self.borders[in_integer][in_float] = self.borders[in_integer].get(in_float, 0.0) + cost
            self.borders[in_float].setdefault(in_integer, 0.0)

    def minimum(self) -> list[bool]:
        """The cheapest states."""
        gone = [False] * len(self.gains)
        eliminated: list[tuple[int, _Row]] = []
        waiting = [number for number, row in enumerate(self.borders) if len(row) <= 2]
        while waiting:
            number = waiting.pop()
            if not gone[number] and len(self.borders[number]) <= 2:
                gone[number] = True
                row = tuple(
                    (other, cost, self.borders[other].pop(number)) for other, cost in self.borders[number].items()
                )
                eliminated.append((number, row))
                self._hand_over(number, row)
                waiting += [other for other, _, _ in row]
        states = self._cut([number for number, out in enumerate(gone) if not out])
        for number, row in reversed(eliminated):
            as_float, as_integer = self._costs(number, row, [states[other] for other, _, _ in row])
            states[number] = as_integer < as_float - self.least
        return states

    def _costs(self, number: int, row: _Row, states: Sequence[bool]) -> tuple[float, float]:
        """What a node and its borders cost in float and in int8, given the states of its neighbours."""
        as_float = sum(theirs for (_, _, theirs), state in zip(row, states, strict=True) if state)
        return as_float, sum(own for (_, own, _), state in zip(row, states, strict=True) if not state) - self.gains[
            number
        ]

    def _hand_over(self, number: int, row: _Row) -> None:
        """The least that a node adds becomes a term of its one or two neighbours."""
        if len(row) == 1:
            (other, _, _) = row[0]
            self.gains[other] += min(self._costs(number, row, [False])) - min(self._costs(number, row, [True]))
        elif row:
            first, second = row[0][0], row[1][0]
            neither, both = min(self._costs(number, row, [False, False])), min(self._costs(number, row, [True, True]))
            one, two = min(self._costs(number, row, [True, False])), min(self._costs(number, row, [False, True]))
            bond = max(0.0, one + two - neither - both)  # paid, all of it, when only the second is int8
            self.gains[first] += neither - one
            self.gains[second] += neither - two + bond
            self.border(first, second, bond)

    def _cut(self, left: Sequence[int]) -> list[bool]:
        """The states of the nodes that are left, by a minimum cut; the others are float as yet."""
        states = [False] * len(self.gains)
        place = {number: index for index, number in enumerate(left)}
        network = _Network(len(left) + 2)
        source, sink = len(left), len(left) + 1
        for number, index in place.items():
            network.edge(source, index, max(0.0, self.gains[number]))  # cut when the node is float
            network.edge(index, sink, max(0.0, -self.gains[number]))  # cut when it is int8
            for other, cost in self.borders[number].items():
                network.edge(index, place[other], cost)
        for number, reached in zip(left, network.cut(source, sink), strict=False):
            states[number] = reached
        return states


class _Network:
    """A flow network; edges are numbered in pairs, the reverse of edge e being e ^ 1."""

    def __init__(self, size: int) -> None:
        self.out: list[list[int]] = [[] for _ in range(size)]
        self.head: list[int] = []
        self.room: list[float] = []

    def edge(self, tail: int, head: int, capacity: float) -> None:
        self.out[tail].append(len(self.head))
        self.out[head].append(len(self.head) + 1)
        self.head += [head, tail]
        self.room += [capacity, 0.0]

    def cut(self, source: int, sink: int) -> list[bool]:
        """Saturate the network; which nodes the source still reaches."""
        least = 1e-9 * max(self.room, default=1.0)
        while True:
            level = self._levels(source, least)
            if level[sink] < 0:
                return [depth >= 0 for depth in level]
            self._block(source, sink, level, least)

    def _levels(self, source: int, least: float) -> list[int]:
        level = [-1] * len(self.out)
        level[source] = 0
        queue = deque([source])
        while queue:
            here = queue.popleft()
            for edge in self.out[here]:
                there = self.head[edge]
                if self.room[edge] > least and level[there] < 0:
                    level[there] = level[here] + 1
                    queue.append(there)
        return level

    def _block(self, source: int, sink: int, level: list[int], least: float) -> None:
        """A blocking flow along edges that go one level down, by depth-first search without recursion."""
        following = [0] * len(self.out)
        path: list[int] = []
        here = source
        while True:
            if here == sink:
                amount = min(self.room[edge] for edge in path)
                for edge in path:
                    self.room[edge] -= amount
                    self.room[edge ^ 1] += amount
                full = next(i for i, edge in enumerate(path) if self.room[edge] <= least)
                here = self.head[path[full] ^ 1]
                del path[full:]
                continue
            edges = self.out[here]
            while following[here] < len(edges):
                edge = edges[following[here]]
                if self.room[edge] > least and level[self.head[edge]] == level[here] + 1:
                    path.append(edge)
                    here = self.head[edge]
                    break
                following[here] += 1
            else:
                if here == source:
                    return
                level[here] = -1
                here = self.head[path.pop() ^ 1]
