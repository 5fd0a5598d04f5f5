"""The words in which passes talk to each other: inputs, notes, quantization specs and roles.

Data only: nothing here reads a model. `ops/` says what an operator *is* (its `Role`), `targets/` says what a CPU
makes of it, `quantize/` turns both into a `Spec` per value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.generic]
FloatArray: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Feed: TypeAlias = dict[str, npt.NDArray[np.generic]]
Likeness: TypeAlias = Literal["data", "pictures", "noise"]  # samples: the user's; made up like photographs; of anything


@dataclass(frozen=True)
class InputSpec:
    """One graph input or output: its name, element type, and dimensions.

    `dtype` is None for what numpy cannot feed (sequences, optionals); a dimension is a number, a symbolic
    name, or None when nothing is known of it; `shape` is None when not even the rank is known.
    """

    name: str
    dtype: np.dtype[np.generic] | None
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True)
class Note:
    """One "no", with its reason: a node left in float, a channel group pinned, something repaired."""

    kind: str
    subject: str
    op_type: str
    reason: str


# ---- what an operator is, for quantization: its role ------------------------------------------------------


@dataclass(frozen=True)
class Weight:
    """Which input is the weight, and which of its axes runs over the output channels (None: per tensor).

    `summed` are the axes summed over, slowest first, in the order in which integer kernels walk them; the last runs
    over the input channels, group by group.
    """

    index: int
    channel_axis: int | None
    summed: tuple[int, ...]


@dataclass(frozen=True)
class Compute:
    """Arithmetic on its operands that some integer kernel may do: Conv, MatMul, Add, Concat, pools.

    `form` is the key of the target's kernel table: the operator's name, or that of a special case ("DepthwiseConv").
    `activations` are the inputs that carry activations; `weight` and `bias` name constant operands. `low` and `high`
    bound the output whatever the input, as Sigmoid's (0, 1). `copies`: elements pass unchanged, so that equal
    parameters of operands and output make it a plain copy, as Concat. `channels` is the axis of the first
    activation that the weight's input channels run along. `lowered`: on integers the node becomes another one
    (`Operator.lower`).
    """

    form: str
    activations: tuple[int, ...]
    weight: Weight | None = None
    bias: int | None = None
    low: float | None = None
    high: float | None = None
    copies: bool = False
    channels: int = 1
    lowered: bool = False


@dataclass(frozen=True)
class Movement:
    """Moves or selects elements and changes none: every output shares the parameters of `inputs`.

    `form` is the key of the target's table of movements; `fill` is an input that holds the zero, if anything,
    which the operator writes between the moved elements, as Pad's.
    """

    form: str
    inputs: tuple[int, ...] = (0,)
    fill: int | None = None


@dataclass(frozen=True)
class Activation:
    """Clips one input to [low, high] (None: unbounded), as Relu (0, None) and ReLU6 (0, 6).

    A producing integer kernel absorbs it by the range of its output.
    """

    low: float | None
    high: float | None


@dataclass(frozen=True)
class Float:
    """Stays in float, and why."""

    reason: str


@dataclass(frozen=True)
class AtRun(Float):
    """Reads and writes float; on integers it quantizes what it reads at every inference, in an operator of its own.

    `becomes` is that operator, in onnxruntime's domain; None: the node is one already. `weights` are the inputs that it
    takes as int8, each [directions, gates, columns].
    """

    becomes: str | None = None
    weights: tuple[int, ...] = ()


Role: TypeAlias = Compute | Movement | Activation | Float


# ---- what will be done to a value: its spec ------------------------------------------------------------------


@dataclass(frozen=True)
class Observed:
    """uint8, its range from calibration, capped by what is known of it: a Clip's bounds."""

    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Shared:
    """The same scale and zero point as another value, by name."""

    with_value: str


Spec: TypeAlias = Observed | Shared
