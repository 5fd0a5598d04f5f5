"""Random graphs: whatever is cut, pruned and masked agree, and the result runs.

ONNXQP_EXAMPLES=2000 tries that many graphs of each kind instead of a few.
"""

from __future__ import annotations

import os

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from onnx import helper
from prune_checks import Build, Feed

from onnxqp.errors import UnsupportedError
from onnxqp.options import PruneOptions
from onnxqp.prune import plan, prune_model
from onnxqp.prune.apply import cut_model, never_empty
from onnxqp.prune.masked import mask_model
from onnxqp.prune.proof import prove
from onnxqp.prune.pruning import Plan, attempt
from onnxqp.prune.select import choose
from onnxqp.prune.units import label_heads, label_units

_EXAMPLES = int(os.environ.get("ONNXQP_EXAMPLES", "50"))
# what fails is shown as it was found: to shrink it takes longer than all else
_PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
_UNARY = ["Relu", "Sigmoid", "Tanh", "LeakyRelu", "Softplus", "Abs"]


class Image:
    """Grows a graph of images [2, C, 4, 4]; `here` are values to go on from, with their channels."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.b = Build(seed=data.draw(st.integers(0, 99)))
        x = self.b.input(2, 3, 4, 4, symbolic={0: "N"} if data.draw(st.booleans()) else None)
        self.here: list[tuple[str, int]] = [(self.b.conv(x, 3, 12), 12)]

    def pick(self) -> tuple[str, int]:
        return self.data.draw(st.sampled_from(self.here[-4:]))

    def step(self) -> None:
        makers = [
            *(self.conv, self.grouped, self.depthwise, self.transposed, self.unary, self.residual, self.concat),
            *(self.split, self.slice, self.shuffle, self.gate, self.norm, self.pad, self.gather, self.channels_last),
            *(self.shared, self.scale, self.depth, self.at_rest, self.dequantized, self.flat, self.put, self.tile),
            *(self.branches, self.largest, self.grouped_norm),
        ]
        self.here.append(self.data.draw(st.sampled_from(makers))(*self.pick()))

    def conv(self, x: str, c: int) -> tuple[str, int]:
        out = self.data.draw(st.sampled_from([4, 6, 12]))
        return self.b.conv(x, c, out, self.data.draw(st.sampled_from([1, 3]))), out

    def grouped(self, x: str, c: int) -> tuple[str, int]:
        group = self.data.draw(st.sampled_from([g for g in (2, 3, 4) if c % g == 0] or [1]))
        return self.b.conv(x, c, 12, group=group), 12

    def depthwise(self, x: str, c: int) -> tuple[str, int]:
        times = self.data.draw(st.sampled_from([1, 1, 2]))
        return self.b.conv(x, c, c * times, 3, group=c), c * times

    def transposed(self, x: str, c: int) -> tuple[str, int]:
        group = self.data.draw(st.sampled_from([g for g in (1, 2) if c % g == 0]))
        return self.b.op("ConvTranspose", x, self.b.weight(c, 6 // group, 3, 3), group=group, pads=[1] * 4), 6

    def unary(self, x: str, c: int) -> tuple[str, int]:
        return self.b.op(self.data.draw(st.sampled_from(_UNARY)), x), c

    def residual(self, x: str, c: int) -> tuple[str, int]:
        y = self.b.conv(self.b.op("Relu", self.b.conv(x, c, 8)), 8, c)
        return self.b.op(self.data.draw(st.sampled_from(["Add", "Mul", "Max"])), x, y), c

    def concat(self, x: str, c: int) -> tuple[str, int]:
        y, d = self.pick()
        return self.b.op("Concat", x, y, axis=1), c + d

    def split(self, x: str, c: int) -> tuple[str, int]:
        if c == 1:
            return self.unary(x, c)
        at = self.data.draw(st.integers(1, c - 1))
        parts = self.b.op("Split", x, self.b.const([at, c - at]), count=2, axis=1)
        self.here.append((parts[0], at))
        return parts[1], c - at

    def slice(self, x: str, c: int) -> tuple[str, int]:
        step = self.data.draw(st.sampled_from([1, 1, 2, -1]))
        start = self.data.draw(st.integers(0, c - 1))
        bounds = (start, -c - 1, step) if step < 0 else (start, c, step)
        count = len(range(c)[start::step])
        return self.b.op("Slice", x, *(self.b.const([n]) for n in (bounds[0], bounds[1], 1, bounds[2]))), count

    def gather(self, x: str, c: int) -> tuple[str, int]:
        indices = self.data.draw(st.lists(st.integers(0, c - 1), min_size=2, max_size=8))
        return self.b.op("Gather", x, self.b.const(indices), axis=1), len(indices)

    def shuffle(self, x: str, c: int) -> tuple[str, int]:
        group = self.data.draw(st.sampled_from([g for g in (2, 3, 4) if c % g == 0] or [1]))
        x = self.b.op("Reshape", x, self.b.const([-1, group, c // group, 4, 4]))
        x = self.b.op("Transpose", x, perm=[0, 2, 1, 3, 4])
        return self.b.op("Reshape", x, self.b.const([-1, c, 4, 4])), c

    def gate(self, x: str, c: int) -> tuple[str, int]:
        y = self.b.conv(self.b.op("GlobalAveragePool", x), c, 4)
        return self.b.op("Mul", x, self.b.op("Sigmoid", self.b.conv(self.b.op("Relu", y), 4, c))), c

    def norm(self, x: str, c: int) -> tuple[str, int]:
        if self.data.draw(st.booleans()):
            return self.b.op("InstanceNormalization", x, self.b.weight(c), self.b.weight(c)), c
        x = self.b.op("Sub", x, self.b.op("ReduceMean", x, axes=[1]))
        return self.b.op("Mul", x, self.b.weight(c, 1, 1)), c

    def pad(self, x: str, c: int) -> tuple[str, int]:
        before, after = self.data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
        return self.b.op("Pad", x, self.b.const([0, before, 0, 0, 0, after, 0, 0])), c + before + after

    def channels_last(self, x: str, c: int) -> tuple[str, int]:
        y = self.b.op("Transpose", x, perm=[0, 2, 3, 1])
        y = self.b.linear(self.b.op("LayerNormalization", y, self.b.weight(c), self.b.weight(c)), c, 8)
        return self.b.op("Transpose", y, perm=[0, 3, 1, 2]), 8

    def shared(self, x: str, c: int) -> tuple[str, int]:
        weight = self.b.weight(c, c, 1, 1)
        return self.b.op("Conv", self.b.op("Relu", self.b.op("Conv", x, weight)), weight), c

    def scale(self, x: str, c: int) -> tuple[str, int]:
        shape = self.data.draw(st.sampled_from([(c, 1, 1), (1,), (1, c, 1, 1), (4, 4)]))
        return self.b.op("Mul", x, self.b.weight(*shape)), c

    def depth(self, x: str, c: int) -> tuple[str, int]:
        y = self.b.conv(x, c, 4 * 3)
        y = self.b.op("DepthToSpace", y, blocksize=2, mode=self.data.draw(st.sampled_from(["DCR", "CRD"])))
        return self.b.conv(self.b.op("SpaceToDepth", y, blocksize=2), 12, 6), 6

    def at_rest(self, x: str, c: int) -> tuple[str, int]:
        stored = self.b.const(self.b.random.integers(-99, 99, (8, c, 1, 1)), np.int8)
        scale = self.b.const(self.b.random.uniform(0.002, 0.004, (8, 1, 1, 1)), np.float32)
        return self.b.op("Conv", x, self.b.op("Mul", self.b.op("Cast", stored, to=1), scale)), 8

    def dequantized(self, x: str, c: int) -> tuple[str, int]:
        group = self.data.draw(st.sampled_from([g for g in (1, 2, c) if c % g == 0]))
        each = self.data.draw(st.booleans())
        many = (c,) if each else ()
        stored = self.b.const(self.b.random.integers(0, 255, (c, c // group, 1, 1)), np.uint8)
        scale = self.b.const(self.b.random.uniform(0.002, 0.004, many), np.float32)
        zero = self.b.const(self.b.random.integers(120, 130, many), np.uint8)
        return self.b.op("Conv", x, self.b.op("DequantizeLinear", stored, scale, zero, axis=0), group=group), c

    def flat(self, x: str, c: int) -> tuple[str, int]:
        y = self.b.op("Gemm", self.b.op("Flatten", x), self.b.weight(32, 16 * c), self.b.weight(32), transB=1)
        return self.b.op("Reshape", y, self.b.const([-1, 2, 4, 4])), 2

    def put(self, x: str, c: int) -> tuple[str, int]:
        """Two rows of pixels written elsewhere."""
        axis = self.data.draw(st.sampled_from([2, 3]))
        largest, order = self.b.op("TopK", x, self.b.const([2]), axis=axis, count=2)
        return self.b.op("ScatterElements", x, order, self.b.op("Tanh", largest), axis=axis), c

    def tile(self, x: str, c: int) -> tuple[str, int]:
        return self.b.op("Tile", x, self.b.const([1, 2, 1, 1])), 2 * c

    def largest(self, x: str, c: int) -> tuple[str, int]:
        kind = self.data.draw(st.sampled_from(["ReduceMax", "ReduceMin", "ReduceL2"]))
        return self.b.op("Mul", x, self.b.op(kind, x, axes=[1])), c

    def grouped_norm(self, x: str, c: int) -> tuple[str, int]:
        """GroupNormalization as PyTorch writes it."""
        group = self.data.draw(st.sampled_from([g for g in (2, 3) if c % g == 0] or [1]))
        y = self.b.op("Reshape", x, self.b.const([0, group, -1]))
        ones, none = self.b.const(np.ones(group), np.float32), self.b.const(np.zeros(group), np.float32)
        y = self.b.op("Reshape", self.b.op("InstanceNormalization", y, ones, none), self.b.op("Shape", x))
        return self.b.op("Add", self.b.op("Mul", y, self.b.weight(c, 1, 1)), self.b.weight(c, 1, 1)), c

    def branches(self, x: str, c: int) -> tuple[str, int]:
        number = len(self.b.nodes)
        if "flag" not in self.b.feed:
            self.b.input(name="flag", array=np.array(self.data.draw(st.booleans())))

        def body(kind: str) -> onnx.GraphProto:
            inner = Build(seed=number, prefix=f"{kind}{number}_")
            y = inner.conv(inner.op(kind, inner.conv(x, c, 6)), 6, 8)
            result = helper.make_tensor_value_info(y, 1, ["N", 8, 4, 4])
            return helper.make_graph(inner.nodes, kind, [], [result], inner.weights)

        return self.b.op("If", "flag", then_branch=body("Relu"), else_branch=body("Tanh")), 8

    def finish(self) -> list[str]:
        return [self.b.conv(x, c, 3) for x, c in self.here[-2:]]


@settings(max_examples=_EXAMPLES, phases=_PHASES, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_images(data: st.DataObject) -> None:
    graph = Image(data)
    for _ in range(data.draw(st.integers(2, 8))):
        graph.step()
    agrees(graph.b, graph.finish(), data)


class Sequence:
    """Grows a graph of sequences [2, 5, C]: linear layers, heads, norms, residuals."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.b = Build(seed=data.draw(st.integers(0, 99)))
        x = self.b.input(2, 5, 6, symbolic={0: "N", 1: "S"} if data.draw(st.booleans()) else None)
        self.x, self.c = self.b.linear(x, 6, 12), 12

    def step(self) -> None:
        makers = [self.attention, self.feed_forward, self.norm, self.heads, self.token_mean, self.recurrent]
        makers += [self.rotated, self.fused, self.skip, self.largest, self.einsum, self.repeated]
        self.data.draw(st.sampled_from(makers))()

    def split(self, y: str, heads: int, size: int) -> str:
        shaped = self.b.op("Reshape", y, self.b.const([0, -1, heads, size]))
        return str(self.b.op("Transpose", shaped, perm=[0, 2, 1, 3]))

    def attention(self) -> None:
        heads, size = self.data.draw(st.sampled_from([(2, 4), (3, 4), (1, 6)]))
        shared = self.data.draw(st.booleans())  # one key and value head for all queries
        wide, narrow = heads * size, size if shared else heads * size
        b = self.b
        q = self.split(b.linear(self.x, self.c, wide), heads, size)
        k, v = (self.split(b.linear(self.x, self.c, narrow), 1 if shared else heads, size) for _ in range(2))
        if self.data.draw(st.booleans()):
            q = b.op("LayerNormalization", q, b.weight(size), b.weight(size))
        scores = b.op("Softmax", b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
        y = b.op("Transpose", b.op("MatMul", scores, v), perm=[0, 2, 1, 3])
        y = b.linear(b.op("Reshape", y, b.const([0, -1, wide])), wide, self.c)
        self.x = b.op("Add", self.x, y)

    def feed_forward(self) -> None:
        b = self.b
        if self.data.draw(st.booleans()):  # gated: one product, split into value and gate
            y = b.linear(self.x, self.c, 16)
            left, right = b.op("Split", y, b.const([8, 8]), count=2, axis=-1)
            y = b.op("Mul", left, b.op("Sigmoid", right))
        else:
            y = b.op("Erf", b.linear(self.x, self.c, 8))
        self.x = b.op("Add", self.x, b.linear(y, 8, self.c))

    def norm(self) -> None:
        b = self.b
        if self.data.draw(st.booleans()):
            self.x = b.op("LayerNormalization", self.x, b.weight(self.c), b.weight(self.c))
            return
        centred = b.op("Sub", self.x, b.op("ReduceMean", self.x, axes=[-1]))
        square = b.op("ReduceMean", b.op("Mul", centred, centred), axes=[-1])
        scaled = b.op("Div", centred, b.op("Sqrt", b.op("Add", square, b.const(1e-3, np.float32))))
        self.x = b.op("Add", b.op("Mul", scaled, b.weight(self.c)), b.weight(self.c))

    def heads(self) -> None:
        b = self.b
        y = self.split(b.linear(self.x, self.c, 12), 3, 4)
        y = b.op("Mul", y, b.weight(*self.data.draw(st.sampled_from([(3, 1, 4), (3, 1, 1), (4,)]))))
        y = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.const([0, -1, 12]))
        self.x, self.c = b.linear(y, 12, 10), 10

    def recurrent(self) -> None:
        b, (kind, gates) = self.b, self.data.draw(st.sampled_from([("LSTM", 4), ("GRU", 3), ("RNN", 1)]))
        both = self.data.draw(st.booleans())
        n, hidden = 1 + both, 4
        operands = [b.weight(n, gates * hidden, size) for size in (self.c, hidden)] + [b.weight(n, 2 * gates * hidden)]
        x = b.op("Transpose", self.x, perm=[1, 0, 2])
        way = "bidirectional" if both else "reverse"
        y = b.op(kind, x, *operands, count=2, hidden_size=hidden, direction=way)[0]
        y = b.op("Reshape", b.op("Transpose", y, perm=[2, 0, 1, 3]), b.const([0, 0, n * hidden]))
        self.x, self.c = y, n * hidden

    def rotated(self) -> None:
        """Halves of each head turned against each other."""
        b = self.b
        y = self.split(b.linear(self.x, self.c, 12), 2, 6)
        left, right = b.op("Split", y, b.const([3, 3]), count=2, axis=-1)
        turned = b.op("Concat", b.op("Neg", right), left, axis=-1)
        y = b.op("Add", b.op("Mul", y, b.weight(6)), b.op("Mul", turned, b.weight(6)))
        self.x, self.c = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.const([0, -1, 12])), 12

    def fused(self) -> None:
        b = self.b
        q, k, v = (b.op("MatMul", self.x, b.weight(self.c, 8)) for _ in range(3))
        bias = [b.weight(24)] if self.data.draw(st.booleans()) else []
        y = b.op("MultiHeadAttention", q, k, v, *bias, num_heads=2, domain="com.microsoft")
        self.x = b.op("Add", self.x, b.op("FusedMatMul", y, b.weight(self.c, 8), transB=1, domain="com.microsoft"))

    def skip(self) -> None:
        y = self.b.linear(self.b.op("Relu", self.b.linear(self.x, self.c, 8)), 8, self.c)
        scale = [self.b.weight(self.c), self.b.weight(self.c)]
        self.x = self.b.op("SkipLayerNormalization", self.x, y, *scale, domain="com.microsoft")

    def largest(self) -> None:
        found, order = self.b.op("TopK", self.x, self.b.const([2]), axis=1, count=2)
        if self.data.draw(st.booleans()):
            found = self.b.op("GatherElements", self.b.op("Tanh", self.x), order, axis=1)
        self.x = self.b.op("ScatterElements", self.x, order, found, axis=1)

    def einsum(self) -> None:
        b = self.b
        y = b.op("Einsum", self.x, b.weight(self.c, 2, 3), equation="...c,chd->...hd")
        self.x, self.c = b.op("Einsum", y, b.weight(2, 3, 8), equation="bshd,hdo->bso"), 8

    def repeated(self) -> None:
        """Two heads of keys and values, each for two heads of queries."""
        b = self.b
        q = self.split(b.linear(self.x, self.c, 12), 4, 3)

        def spread(y: str) -> str:
            y = b.op("Unsqueeze", self.split(y, 2, 3), b.const([2]))
            sizes = b.op("Concat", *(b.const([n]) for n in (1, 1, 2, 1, 1)), axis=0)
            return str(b.op("Reshape", b.op("Expand", y, sizes), b.const([0, 4, -1, 3])))

        k, v = (spread(b.linear(self.x, self.c, 6)) for _ in range(2))
        scores = b.op("Softmax", b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
        y = b.op("Transpose", b.op("MatMul", scores, v), perm=[0, 2, 1, 3])
        self.x, self.c = b.linear(b.op("Reshape", y, b.const([0, -1, 12])), 12, 10), 10

    def token_mean(self) -> None:
        mean = self.b.op("ReduceMean", self.x, axes=[1])
        self.x = self.b.op("Sub", self.x, self.b.linear(mean, self.c, self.c))


@settings(max_examples=_EXAMPLES, phases=_PHASES, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_sequences(data: st.DataObject) -> None:
    graph = Sequence(data)
    for _ in range(data.draw(st.integers(1, 5))):
        graph.step()
    agrees(graph.b, [graph.b.linear(graph.x, graph.c, 3)], data)


def agrees(b: Build, outputs: list[str], data: st.DataObject) -> None:
    """The cut of all groups together, and of a few alone, is proven; nothing has to be pinned for it."""
    model = b.model(*outputs)
    ratio = data.draw(st.sampled_from([0.25, 0.5, 0.75]))
    options = PruneOptions(
        ratio=ratio,
        allocation=data.draw(st.sampled_from(["uniform", "global"])),
        round_to=data.draw(st.sampled_from([None, 1])),
    )
    feeds = [b.feed]
    if model.graph.inputs[0].shape is not None and not isinstance(model.graph.inputs[0].shape[0], int):
        feeds.append({**b.feed, "x": b.feed["x"][:1]})
    if "flag" in b.feed:
        feeds.append({**b.feed, "flag": np.logical_not(b.feed["flag"], out=np.empty((), bool))})
    made = plan(model, options, step=4)
    if made.removes:
        some = data.draw(st.lists(st.sampled_from(range(len(made.chosen))), max_size=2, unique=True))
        for places in (range(len(made.chosen)), some):
            cut = made.cut_of(places)
            proof = prove(mask_model(model, made.labels, cut), cut_model(model, made.labels, cut), feeds)
            assert proof.checked, proof.skipped_reason
            assert proof.max_abs_diff is not None
            assert proof.max_abs_diff < 1e-4
        heads_agree(model, options, feeds)
        result = prune_model(model, feeds, options, step=4, samples=data.draw(st.sampled_from([[], feeds])))
        assert not result.warnings
        assert result.pruning.channels_after < result.pruning.channels_before
    else:
        try:
            prune_model(model, feeds, options, step=4)
        except UnsupportedError:
            return
        raise AssertionError("a plan that removes nothing was carried out")


def heads_agree(model: ir.Model, options: PruneOptions, feeds: list[Feed]) -> None:
    """So is the cut of whole heads, where there are some."""
    units = label_heads(model.graph, options.selection, 1, label_units(model.graph, options.selection))
    if units is None:
        return
    chosen = tuple(tuple(found) for found in choose(units.grouping.groups, options, 4))
    made = Plan(model, units.labels, units.grouping, chosen, "l1")
    if not never_empty(made.labels, made.cut, model.graph):
        proof = attempt(made, range(len(chosen)), feeds)[1]
        assert proof.checked, proof.skipped_reason


def test_what_fits_no_bundle_stays_though_other_layers_read_it() -> None:
    """Two grouped layers read overlapping channels, one of them twice: some can go with no others alike."""
    b = Build()
    x = b.conv(b.input(2, 3, 4, 4), 3, 12)
    some = b.op("Gather", x, b.const([1, 1, 0, 2]), axis=1)
    left = b.conv(b.conv(some, 4, 12, group=2), 12, 3)
    right = b.conv(b.conv(x, 12, 12, group=2), 12, 3)
    model = b.model(left, right)
    for ratio in (0.25, 0.5, 0.75):
        result = prune_model(model, [b.feed], PruneOptions(ratio=ratio, round_to=1), step=1)
        assert not result.warnings
        assert result.pruning.proof is not None
        assert result.pruning.proof.checked
