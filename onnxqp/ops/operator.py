"""One record per operator: all that onnxqp knows of it stands in one subclass of `Operator`.

How its axes couple (pruning), what must be rewritten when an axis shrinks, what it is to a quantizer, what can be
folded into it, what it costs. Everything else in the package is generic and never tests `op_type`. Adding an operator
is adding one small class in a file of its family and naming its types in `op_types`; `onnxqp ops` prints the docstring.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.axes import Pin
from onnxqp.graph import subgraphs
from onnxqp.ops.contraction import Contraction, Gates
from onnxqp.ops.windows import Window
from onnxqp.specs import Float, Role

if TYPE_CHECKING:
    from onnxqp.axes import AxisLabels, Cut

# What is known of a small integer tensor: its elements, None where only the data will tell.
Elements: TypeAlias = Sequence[int | None]


@dataclass(frozen=True)
class Affine:
    """y = scale * x + shift along one axis of the output, x being input `data` of the node.

    Both float64, of shape [channels], or [1] for all channels alike.
    """

    data: int
    axis: int
    scale: npt.NDArray[np.float64]
    shift: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Alike:
    """A standard operator whose output, of some of the inputs and attributes, has the shape of output 0."""

    op_type: str
    inputs: Sequence[int]
    attributes: Sequence[str] = ()


class Operator:
    """An operator that nobody described: its axes are pinned and it stays in float."""

    op_types: ClassVar[tuple[str, ...]] = ()  # "Conv", or "com.microsoft.FusedConv" outside the default domain
    quantized: ClassVar[bool] = False  # it occurs only in models that are quantized already

    def fault(self, node: ir.Node) -> str | None:
        """Why the node cannot be right, where onnxruntime opens the model all the same and fails when it runs."""
        return None

    # ---- pruning

    channels_first: ClassVar[bool] = False  # input 0 is an image: channels on axis 1, the axes behind it are mixed
    keeps_axes: ClassVar[bool] = False  # axes of the inputs are axes of the output, aligned from the right

    def averages(self, node: ir.Node) -> bool:
        """Whether output 0 is the mean of an image over all places in space; `plain` makes it a GlobalAveragePool."""
        return False

    def keeps_places(self, node: ir.Node) -> bool:
        """Whether every place in space of output 0, an image, follows from that place of the inputs alone."""
        return self.pointwise

    def widens(self, node: ir.Node) -> bool:
        """Whether output 0 is image 0 with the same number of places added at its edges, however large it is."""
        return False

    def window(self, node: ir.Node) -> Window | None:
        """What is read for one place of the output, where the output may be computed at every n-th place instead."""
        return None

    moves: ClassVar[bool] = False  # the elements of the output are those of input 0, moved about
    joins: ClassVar[bool] = False  # those of all inputs
    carries: ClassVar[Mapping[int, int]] = MappingProxyType({})  # inputs that a state begins with, outputs it ends in

    def couple(self, node: ir.Node, labels: AxisLabels) -> None:
        """Tie the axis labels of inputs, outputs and weights that must shrink together."""
        labels.pin_node(node, f"no pruning rule for operator {node.op_type}")

    def leave(self, node: ir.Node, labels: AxisLabels) -> None:
        """Tie what comes out of the bodies of `node`, once the labels of these are known."""
        for value in (value for body in subgraphs(node) for value in (*body.inputs, *body.outputs)):
            labels.freeze_value(value, Pin(node.op_type, node.name or "", f"enters or leaves a {node.op_type}"))

    def resize(self, node: ir.Node, cut: Cut) -> None:
        """Rewrite attributes and shape constants of `node` after its tensors were cut."""

    rebuilds: ClassVar[bool] = (
        False  # of constants alone, output 0 is a weight again, in other numbers: DequantizeLinear
    )

    def settle(self, node: ir.Node, labels: AxisLabels) -> None:
        """Where the node rebuilds a weight: hand the labels that its readers gave it down to the operands."""
        raise NotImplementedError(f"{node.op_type} rebuilds no weight")

    def rebuild(self, node: ir.Node, operands: Sequence[npt.NDArray[Any] | None]) -> npt.NDArray[Any]:
        """The weight that the node rebuilds from constant operands."""
        raise NotImplementedError(f"{node.op_type} rebuilds no weight")

    def blank(self, node: ir.Node) -> npt.NDArray[Any] | None:
        """Where the node rebuilds a weight: what operand 0 holds where the weight is 0, broadcasting; None: unknown."""
        return None

    # ---- recovery

    def contraction(self, node: ir.Node) -> Contraction | None:
        """Output 0 as a linear map of one input by a constant weight, so that the weight can be refitted."""
        return None

    def entering(self, node: ir.Node) -> Gates | None:
        """What a recurrent layer with constant weights makes of its inputs, as a matrix product."""
        return None

    def summands(self, node: ir.Node) -> tuple[int, ...]:
        """The inputs whose sum output 0 is, as in a residual connection; () for anything else."""
        return ()

    # ---- quantization

    def quantization(self, node: ir.Node) -> Role:
        """What this node is to a quantizer."""
        return Float(f"no integer rule for operator {node.op_type}")

    def plain(self, node: ir.Node) -> bool:
        """Rewrite the node, exactly, into the form that integer kernels take; whether the graph changed."""
        return False

    def lower(self, node: ir.Node) -> None:
        """Turn a node whose role says `lowered` into the one that its integer kernel is, between Q and DQ."""
        raise NotImplementedError(f"{node.op_type} is not lowered")

    pointwise: ClassVar[bool] = False  # each element of output 0 follows from the elements of the inputs at its place

    homogeneous: ClassVar[bool] = False  # f(k x) = k f(x) for k > 0, every channel of input 0 by itself

    # ---- normalisation

    def passes_through(self, node: ir.Node) -> bool:
        """Whether output 0 always equals input 0, as with Identity."""
        return False

    def folds(self, node: ir.Node) -> bool:
        """Whether the node may be computed once, now, when all its inputs are constant."""
        return True

    def affine(self, node: ir.Node) -> Affine | None:
        """The node as a per-channel scale and shift of one input, when its other operands are constant."""
        return None

    def learned_scale(self, node: ir.Node) -> npt.NDArray[Any] | None:
        """One factor per channel of axis 1 that training chose, where it says what a channel matters."""
        return None

    def absorb(self, node: ir.Node, affine: Affine) -> bool:
        """Take a scale and shift that follows into the node's own weights; False when that is not exact."""
        return False

    def elements(self, node: ir.Node, known: Callable[[ir.Value | None], Elements | None]) -> Elements | None:
        """The elements of a small integer output, as far as shapes alone tell; `known` gives those of an input."""
        return None

    def infer(self, node: ir.Node) -> Sequence[int | str | None] | None:
        """The shape of output 0, of the type of input `type_from`, where standard shape inference leaves it open."""
        return None

    def returned(self, node: ir.Node) -> Sequence[tuple[ir.Value, ir.Value]]:
        """Outputs of unknown shape, each with the value inside a body whose shape it has."""
        return ()

    def alike(self, node: ir.Node) -> Alike | None:
        """The same, for operators that onnx does not know, by one that it knows."""
        return None

    type_from: ClassVar[int] = 0
    twins: ClassVar[tuple[int, ...]] = ()  # further outputs of the shape and type of output 0

    open_shape: ClassVar[bool] = False  # dimensions that come out equal for several input sizes may be taken as fixed

    def index_limit(self, node: ir.Node, index: int) -> int | None:
        """How many different integers input `index` may hold, where it selects rows of a table."""
        return None

    # ---- cost

    def macs(self, node: ir.Node) -> int:
        """Multiply-accumulates of one inference at the static shapes of the graph; 0 where negligible."""
        return 0
