"""From a decision to the plan: which value gets Q and DQ, with parameters of its own or those of another."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx_ir as ir

from onnxqp.ops import rule_for
from onnxqp.plan import PlannedConstant, PlannedMove, PlannedNode, PlannedWeight, QuantizationPlan
from onnxqp.quantize.annotate import Annotation, Unit
from onnxqp.quantize.decide import Decision
from onnxqp.specs import Compute, Movement, Observed, Shared, Spec
from onnxqp.targets import Kernel, Move, Target

CLOSE = 2.0  # spans that differ by less may share a scale: at most one bit is lost

Span = Callable[[ir.Value], float | None]


def make_plan(
    annotation: Annotation, decision: Decision, target: Target, span: Span = lambda value: None
) -> QuantizationPlan:
    """Lay down, by name, everything that will be inserted. `span`: the width of a value's calibrated range."""
    integer = dict.fromkeys(decision.integer)
    uses = _Uses(annotation, integer)
    values = [value for value in annotation.values() if uses.is_quantized(value)]
    roots = _share(decision.integer, uses, span)
    specs: dict[str, Spec] = {}
    for value in values:
        root = roots.find(value)
        low, high = roots.bounds.get(root) or uses.bounds(root)
        specs[_name(value)] = Observed(low=low, high=high) if root is value else Shared(_name(root))
    return QuantizationPlan(
        target=target.name,
        nodes=tuple(_nodes(annotation, decision)),
        values=specs,
        dequantized=frozenset(pair for value in values for pair in uses.dequantized(value)),
        only_integers=frozenset(_name(value) for value in values if uses.only_integers(value)),
        weights=tuple(weight for unit in integer for weight in _weights(unit)),
        constants=tuple(PlannedConstant(unit.node.name or "", index) for unit in integer for index in unit.constants),
        moves=tuple(move for unit in integer for move in _moves(unit)),
        guarded=frozenset(_name(value) for value in values if uses.maker(value) is None and _is_guarded(value, target)),
        barred=frozenset(_name(value) for value in values if _is_barred(value, uses, target)),
        shielded=tuple(unit.absorbed[0].name or "" for unit in integer if uses.writes_float_before_clip(unit)),
        lowered=tuple(unit.node.name or "" for unit in integer if isinstance(unit.role, Compute) and unit.role.lowered),
    )


class _Uses:
    """Who makes and reads a value, once the decision stands."""

    def __init__(self, annotation: Annotation, integer: dict[Unit, None]) -> None:
        self._annotation = annotation
        self._integer = integer

    def maker(self, value: ir.Value) -> Unit | None:
        unit = self._annotation.made_by.get(value)
        return unit if unit in self._integer else None

    def readers(self, value: ir.Value) -> list[Unit]:
        return [unit for unit in self._annotation.read_by.get(value, ()) if unit in self._integer]

    def is_quantized(self, value: ir.Value) -> bool:
        maker = self.maker(value)
        return bool(self.readers(value)) or (maker is not None and maker.requantizes)

    def bounds(self, value: ir.Value) -> tuple[float | None, float | None]:
        """What is known of the value without data, from the integer unit that makes it."""
        maker = self.maker(value)
        return (None, None) if maker is None else (maker.low, maker.high)

    def only_integers(self, value: ir.Value) -> bool:
        """Whether nothing reads the value before Q: what an integer kernel with an integer output needs."""
        maker = self.maker(value)
        if maker is None:
            return False
        return maker.requantizes or (not value.is_graph_output() and len(self._pairs(value)) == len(value.uses()))

    def writes_float_before_clip(self, unit: Unit) -> bool:
        """Whether a Relu or Clip stands behind its float output, with no QuantizeLinear behind it."""
        return bool(unit.absorbed) and not unit.requantizes and not self.only_integers(unit.outputs[0])

    def dequantized(self, value: ir.Value) -> list[tuple[str, int]]:
        """The (node, input) pairs that read the value after DQ."""
        if self.only_integers(value):
            return [(use.node.name or "", use.idx) for use in value.uses()]
        return self._pairs(value)

    def _pairs(self, value: ir.Value) -> list[tuple[str, int]]:
        return [(unit.node.name or "", i) for unit in self.readers(value) for i, read in unit.inputs if read is value]


class _UnionFind:
    """Sets of values; `bounds` are those of a set, by its representative, where they are not those of its maker."""

    def __init__(self) -> None:
        self._parent: dict[ir.Value, ir.Value] = {}
        self.bounds: dict[ir.Value, tuple[float | None, float | None]] = {}

    def find(self, value: ir.Value) -> ir.Value:
        root = value
        while (parent := self._parent.get(root, root)) is not root:
            root = parent
        while value is not root:
            self._parent[value], value = root, self._parent[value]
        return root

    def union(self, root: ir.Value, other: ir.Value) -> None:
        self._parent[self.find(other)] = self.find(root)


def _share(integer: Iterable[Unit], uses: _Uses, span: Span) -> _UnionFind:
    """What must have the same parameters (movements), and what had better (operands that are only copied)."""
    sets = _UnionFind()
    for unit in integer:
        if isinstance(unit.role, Movement):
            for output in unit.outputs:
                sets.union(unit.inputs[0][1], output)
        elif unit.role.copies and not unit.constants:
            copied = _copied(unit, uses, span)
            for value in copied:
                sets.union(unit.outputs[0], value)
            if copied:
                sets.bounds[unit.outputs[0]] = uses.bounds(copied[0])
    return sets


def _copied(unit: Unit, uses: _Uses, span: Span) -> list[ir.Value]:
    """The operands that take the parameters of the output.

    One that nothing else reads loses nothing, for the output is rounded to these steps anyway; others only when their
    ranges are close. A clipping activation in a maker must find its bounds kept, or it could not be absorbed.
    """
    operands = list(dict.fromkeys(value for _, value in unit.inputs))
    if len({uses.bounds(value) for value in operands}) > 1 or unit.absorbed:
        return []
    whole = span(unit.outputs[0])
    made = [value for value in operands if (maker := uses.maker(value)) is not None and not maker.moves]
    return [value for value in made if len(value.uses()) == 1 or _close(span(value), whole)]


def _close(part: float | None, whole: float | None) -> bool:
    return part is not None and whole is not None and part * CLOSE > whole


def _nodes(annotation: Annotation, decision: Decision) -> Iterable[PlannedNode]:
    units = {unit.node.name: unit for unit in decision.integer}
    absorbed = {node.name for unit in decision.integer for node in unit.absorbed}
    reasons = annotation.reasons | dict(decision.reasons)
    for name, op_type in annotation.names:
        quantizable = name in annotation.quantizable
        if name in units:
            yield PlannedNode(name, op_type, quantizable, integer=True, fused=units[name].kernel.fused)
        elif name in annotation.at_run and name not in decision.reasons:
            yield PlannedNode(name, op_type, quantizable, integer=True, fused=(op_type.rpartition(".")[2],))
        elif name not in absorbed:
            reason = reasons.get(name, "the node before it stays in float")
            yield PlannedNode(name, op_type, quantizable, integer=False, reason=reason)


def _weights(unit: Unit) -> list[PlannedWeight]:
    role = unit.role
    if not isinstance(role, Compute) or role.weight is None or not isinstance(unit.kernel, Kernel):
        return []
    return [
        PlannedWeight(
            node=unit.node.name or "",
            index=role.weight.index,
            channel_axis=role.weight.channel_axis,
            summed=role.weight.summed,
            channels=role.channels,
            input_value=_name(unit.inputs[0][1]),
            bias_index=role.bias,
            saturates=unit.kernel.saturates,
            float_bias=unit.kernel.rounds_bias,
            zeros=not unit.kernel.adds_zeros,
            output_value=_name(unit.outputs[0]),
        )
    ]


def _moves(unit: Unit) -> list[PlannedMove]:
    if isinstance(unit.role, Movement) and isinstance(unit.kernel, Move) and unit.kernel.by_hand:
        return [PlannedMove(unit.node.name or "", unit.role.fill)]
    return []


def _is_guarded(value: ir.Value, target: Target) -> bool:
    node = value.producer()
    role = rule_for(node).quantization(node) if node is not None else None
    move = target.moves.get(role.form) if isinstance(role, Movement) else None
    return move is not None and move.guarded


def _is_barred(value: ir.Value, uses: _Uses, target: Target) -> bool:
    """Whether a Q right behind its maker would draw the runtime into a fusion that is not wanted, or spoil one that
    is: a product writes float for some readers only while none of the others is a Q."""
    maker = uses.maker(value)
    if maker is not None:
        return not (maker.moves or maker.requantizes or uses.only_integers(value))
    node = value.producer()
    role = rule_for(node).quantization(node) if node is not None else None
    return isinstance(role, Compute) and role.form in target.barred


def _name(value: ir.Value) -> str:
    return value.name or ""
