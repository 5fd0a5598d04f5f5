"""What quantization will do to which node and value, and why not: data only, by name, before anything is edited."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from onnxqp.report.records import NodeNote, Quantization
from onnxqp.specs import Spec


@dataclass(frozen=True)
class PlannedNode:
    """One node of arithmetic and its fate. `reason` says why it stays in float; `fused` what it should become."""

    node: str
    op_type: str
    quantizable: bool  # the target has an integer kernel for it
    integer: bool
    reason: str | None = None
    fused: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedWeight:
    """The constant operands of one integer node, by the words of `specs.Weight` and `specs.Compute`.

    `input_value` is the activation whose scale the bias derives from; `bias_index` where a bias is or could be, and
    `float_bias` whether it stays float in the file; `zeros` whether the weight needs zero points there.
    `output_value` is the activation that the node makes, behind what it absorbs.
    """

    node: str
    index: int
    channel_axis: int | None
    summed: tuple[int, ...]
    channels: int
    input_value: str
    bias_index: int | None
    saturates: bool
    float_bias: bool = False
    zeros: bool = True
    output_value: str = ""


@dataclass(frozen=True)
class PlannedConstant:
    """A constant operand of an integer node that is no weight, as the addend of an Add: uint8, per tensor."""

    node: str
    index: int


@dataclass(frozen=True)
class PlannedMove:
    """A movement that the runtime would leave in float: the node itself is put on the integers."""

    node: str
    fill: int | None


@dataclass(frozen=True)
class QuantizationPlan:
    """Everything that will be inserted. `values` are the activations that get Q and DQ.

    `dequantized` names the (node, input) pairs that read the dequantized value; the other consumers of a value, and
    graph outputs unless the value is in `only_integers`, keep reading it as it is.
    """

    target: str
    nodes: tuple[PlannedNode, ...]
    values: dict[str, Spec] = field(default_factory=dict)
    dequantized: frozenset[tuple[str, int]] = frozenset()
    only_integers: frozenset[str] = frozenset()
    weights: tuple[PlannedWeight, ...] = ()
    constants: tuple[PlannedConstant, ...] = ()
    moves: tuple[PlannedMove, ...] = ()
    guarded: frozenset[str] = frozenset()  # values that get a Clip to their range before Q
    barred: frozenset[str] = frozenset()  # values that get a Max between their maker and Q
    shielded: tuple[str, ...] = ()  # clipping activations that must not look like one behind their float kernel
    lowered: tuple[str, ...] = ()  # nodes that become others on integers (`Operator.lower`)

    @property
    def integer_nodes(self) -> Iterator[PlannedNode]:
        return (node for node in self.nodes if node.integer)

    def record(self) -> Quantization:
        """The plan as a section of the report; nothing is fused or stored yet."""
        return Quantization(
            nodes_quantizable=sum(node.quantizable for node in self.nodes),
            nodes_quantized=sum(node.integer for node in self.nodes),
            nodes_fused=0,
            weights_at_rest=0,
            left_float=[NodeNote(n.node, n.op_type, n.reason) for n in self.nodes if n.reason is not None],
            unfused=[],
            weights_made_safe=0,
            bias_corrected=0,
        )
