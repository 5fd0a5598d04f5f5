"""Which nodes to run on integers: the cheapest partition of the graph, as a minimum cut.

Every node costs one thing in float and another in int8, and every border between the two costs a conversion. That is
a sum of unary and submodular pairwise terms, so a minimum s-t cut finds the global optimum (Greig, Porteous and Seheult
1989; the algorithm for the cut is Dinic's).
"""

from __future__ import annotations

import math
from collections import deque
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
        limit = 2 * finite + 1  # dearer than any allowed choice, and finite for the flow
        network = _Network(len(self._float) + 2)
        source, sink = len(self._float), len(self._float) + 1
        for number, (as_float, as_integer) in enumerate(zip(self._float, self._integer, strict=True)):
            network.edge(source, number, min(as_float, limit))  # cut when the node is float
            network.edge(number, sink, min(as_integer, limit))  # cut when it is int8
        for in_float, in_integer, cost in self._borders:
            network.edge(in_integer, in_float, min(cost, limit))
        reached = network.cut(source, sink)
        return reached[: len(self._float)]


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
