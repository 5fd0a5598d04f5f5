"""What operator rules find out of a node beside its ties: why it cannot be cut, how it uses up an axis, which of its
inputs are weights. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class CannotCouple(Exception):
    """An operator rule found a node that it does not cover; the node is pinned with this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Pin:
    """Why a label can never be removed: the operator and node that read it, and the reason."""

    op_type: str
    node: str
    reason: str


class Reduction(Enum):
    """How a node uses up a labelled axis: what removed channels must look like to contribute nothing."""

    SUM = "sum"  # as 0
    MEAN = "mean"  # as 0, and the mean counts the kept ones only
    MAX = "max"  # as -inf
    MIN = "min"  # as +inf
    PRODUCT = "product"  # as 1
    STATISTIC = "statistic"  # computed over the kept ones only


@dataclass(frozen=True)
class Zero:
    """Of integers, what stands for 0: input `index` of their reader, along `axis` where each channel has its own."""

    index: int
    axis: int | None = None


@dataclass(frozen=True)
class Scale:
    """Of integers, what they stand for: (w - zero) * scale, by names of constants; along `axis`, or None for all."""

    scale: str
    zero: str | None
    axis: int | None


@dataclass(frozen=True)
class Consumption:
    """Input `index` of `node` (by name) is used up along `axis`, an inner axis of that input."""

    node: str
    index: int
    axis: int
    reduction: Reduction
    zero: Zero | None = None


@dataclass(frozen=True)
class Weight:
    """A constant that `node` multiplies with: its slices measure how much a channel matters.

    `produced` is the axis of `value` whose slices make output channels, `consumed` the axis that meets input channels;
    None where there is none or where channels merely pass (depthwise convolutions produce none of their own).
    """

    node: str
    op_type: str
    value: str
    produced: int | None
    consumed: int | None
    scale: Scale | None = None  # of a weight that the node reads as integers
