"""What a runtime and CPU make of a quantized model, as data: integer kernels, their conditions, and what they cost.

Costs are rough: they rank int8 against float for one node and price the border between them; they predict no latency.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """Time of a kernel: picoseconds per multiply-accumulate and nanoseconds per output element."""

    mac_ps: float
    element_ns: float

    def nanoseconds(self, work: Work) -> float:
        return work.macs * self.mac_ps / 1000 + work.elements * self.element_ns


@dataclass(frozen=True)
class Work:
    """What one node does in one inference: output elements, multiply-accumulates, channels (0: does not apply).

    `channels_in` are those of one group.
    """

    elements: int
    macs: int = 0
    channels_in: int = 0
    channels_out: int = 0


@dataclass(frozen=True)
class Kernel:
    """How one form of computation runs in integers.

    `fused` are the operator types that may stand for it in the optimised graph. `writes_float`: without a
    QuantizeLinear behind it the kernel returns float; the others fall back to float then. `follows`: worth it only
    where every activation is an integer already. `saturates`: adds neighbouring products in 16 bits on this CPU.
    `multiple` and `least`: what the fast paths want channels to be a multiple of (in and out), and how many of them at
    least (in, of one group); other counts have the unaligned rates. `rounds_bias`: the runtime makes a float bias
    integers by itself when it opens the model (onnxruntime, `weight_bias_quantization.cc`): the file need not hold
    their scales. `adds_zeros`: nor the zero points of symmetric weights (`qdq_actions.cc`, SetOptionalZeroPoint), which
    kernels of products want one of for every scale. `remark`: what else a user should know of it.
    """

    fused: tuple[str, ...]
    float_rate: Rate
    integer_rate: Rate
    float_unaligned: Rate | None = None
    integer_unaligned: Rate | None = None
    multiple: tuple[int, int] = (1, 1)
    least: int = 0
    writes_float: bool = False
    follows: bool = False
    saturates: bool = False
    rounds_bias: bool = False
    adds_zeros: bool = False
    remark: str = ""

    def float_ns(self, work: Work) -> float:
        rate = self.float_rate if self._aligned(work, stem=True) else self.float_unaligned
        return (rate or self.float_rate).nanoseconds(work)

    def integer_ns(self, work: Work) -> float:
        rate = self.integer_rate if self._aligned(work, stem=False) else self.integer_unaligned
        return (rate or self.integer_rate).nanoseconds(work)

    def _aligned(self, work: Work, *, stem: bool) -> bool:
        """Float kernels also have a fast path for the few input channels of a stem."""
        into, out = self.multiple
        few = stem and work.channels_in < into
        enough = stem or work.channels_in >= self.least
        return enough and (few or work.channels_in % into == 0) and work.channels_out % out == 0


@dataclass(frozen=True)
class Move:
    """How a movement runs on integers.

    `by_hand`: the runtime leaves it in float between Q and DQ, so that the node itself must be put on the integers.
    `guarded`: where it stays in float and its output is quantized, the runtime would pull the QuantizeLinear before
    it and run it on integers, slowly; a Clip between the two, which is dropped later, keeps them apart. `follows` and
    `fused`: as of `Kernel`; without `fused` the operator itself runs on integers. Nanoseconds are per output element.
    """

    integer_ns: float
    float_ns: float
    fused: tuple[str, ...] = ()
    by_hand: bool = False
    guarded: bool = False
    follows: bool = False


@dataclass(frozen=True)
class Target:
    """One family of CPUs under onnxruntime. Tables are keyed by the `form` of a role (`onnxqp.specs`)."""

    name: str
    kernels: Mapping[str, Kernel]
    moves: Mapping[str, Move]
    absorbed: frozenset[str]  # operators that clip, which the kernel before them does by the range of its output
    left_float: Mapping[str, str]  # forms that are not worth it, or have no kernel, and why
    barred: frozenset[str]  # forms that stay in float, and that the runtime would fuse all the same between DQ and Q
    border_ns: float  # entering or leaving the integers: Q or DQ and the change of layout, per element
    node_ns: float  # what every node costs
    channel_step: int  # channel counts that are a multiple of it run on the fast paths
    evidence: str  # where the numbers come from
