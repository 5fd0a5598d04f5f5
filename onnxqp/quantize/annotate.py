"""What could be quantized: every node's role held against the target's tables. Reads the graph, decides no trade-off.

A `Unit` is what runs as one integer kernel: a node of arithmetic with the clipping activations behind it, or a node
that moves elements. All other nodes stay in float, each with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from onnxqp.graph import dims, is_constant, iterate, op_name
from onnxqp.ops import rule_for
from onnxqp.options import Selection
from onnxqp.specs import Activation, AtRun, Compute, Float, Movement, Role
from onnxqp.targets import Kernel, Move, Target

APART = 8.0  # three bits of eight
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


@dataclass(eq=False)
class Unit:
    """A candidate for integers. `inputs` are the activations it reads, `constants` constant ones (their input index).

    `outputs` are the values behind what it absorbs, with their bounds. `chosen`: the user named it.
    """

    node: ir.Node
    role: Compute | Movement
    kernel: Kernel | Move
    inputs: tuple[tuple[int, ir.Value], ...]
    constants: tuple[int, ...]
    outputs: tuple[ir.Value, ...]
    absorbed: tuple[ir.Node, ...] = ()
    low: float | None = None
    high: float | None = None
    chosen: bool = False

    @property
    def moves(self) -> bool:
        return isinstance(self.role, Movement)

    @property
    def requantizes(self) -> bool:
        """Whether its output exists as integers alone, so that float consumers must dequantize it."""
        return isinstance(self.kernel, Move) or not self.kernel.writes_float


@dataclass
class Annotation:
    """The units of a graph in topological order, who makes and reads each value, and why the others stay in float."""

    units: list[Unit] = field(default_factory=list)
    made_by: dict[ir.Value, Unit] = field(default_factory=dict)
    read_by: dict[ir.Value, list[Unit]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)  # by node name
    quantizable: set[str] = field(default_factory=set)
    at_run: set[str] = field(default_factory=set)  # quantized already: they quantize what they read at every inference
    names: list[tuple[str, str]] = field(default_factory=list)  # (name, type) of all arithmetic, in order

    def without(self, names: Collection[str], because: str) -> Annotation:
        """The same but for the units that read or make one of these values: they stay in float, the value `because`."""
        gone: dict[Unit, str] = {}
        for unit in self.units:
            touched = [value.name or "" for value in (*unit.outputs, *(value for _, value in unit.inputs))]
            found = next((name for name in touched if name in names), None)
            if found is not None:
                gone[unit] = f"{found} {because}"
        return self._left(gone)

    def apart(self, widths: Mapping[str, float]) -> Annotation:
        """The same but for a Concat of values whose ranges differ more than `APART` times; `widths` of ranges by name.

        As integers they would all have the steps of the widest, and the others lose their digits: boxes beside scores
        in the head of a detector. Where only layers with weights read the whole, they need it in one range anyway.
        """
        gone: dict[Unit, str] = {}
        for unit in self.units:
            if not isinstance(unit.role, Compute) or not unit.role.copies:
                continue
            names = (value.name or "" for _, value in unit.inputs)
            parts = [widths[name] for name in names if name in widths]
            ratio = max(parts, default=0.0) / max(min(parts, default=0.0), 1e-30)
            if len(parts) > 1 and ratio > APART and not self._only_weights_read(unit.outputs[0]):
                gone[unit] = (
                    f"the ranges of its operands differ {ratio:.0f} times, and one scale would spoil the narrower"
                )
                gone |= dict.fromkeys(self._moved(unit.outputs[0]), "it moves values of unlike ranges, left in float")
        return self._left(gone)

    def _moved(self, value: ir.Value) -> list[Unit]:
        """The movements behind a value, one after the other."""
        found = [unit for unit in self.read_by.get(value, []) if unit.moves]
        for unit in found:
            found += [each for output in unit.outputs for each in self.read_by.get(output, []) if each.moves]
        return found

    def _only_weights_read(self, value: ir.Value) -> bool:
        readers = self.read_by.get(value, [])
        weighty = [unit for unit in readers if isinstance(unit.role, Compute) and unit.role.weight is not None]
        return bool(readers) and len(weighty) == len(value.uses())

    def _left(self, gone: Mapping[Unit, str]) -> Annotation:
        """The same without some units, which stay in float for these reasons."""
        return replace(
            self,
            units=[unit for unit in self.units if unit not in gone],
            made_by={value: unit for value, unit in self.made_by.items() if unit not in gone},
            read_by={value: [u for u in units if u not in gone] for value, units in self.read_by.items()},
            reasons=self.reasons | {unit.node.name or "": reason for unit, reason in gone.items()},
        )

    def values(self) -> list[ir.Value]:
        """Every value that may get Q and DQ."""
        found = dict.fromkeys(value for unit in self.units for _, value in unit.inputs)
        found |= dict.fromkeys(value for unit in self.units for value in unit.outputs)
        return list(found)


def annotate(model: ir.Model, target: Target, selection: Selection) -> Annotation:
    """Hold every node of a normalised model against the target."""
    annotation = Annotation()
    absorbed: set[ir.Node] = set()
    for node in iterate(model):
        role = rule_for(node).quantization(node)
        if not _handles_floats(node):
            continue
        name = node.name or ""
        kernel = _kernel(role, target)
        if not isinstance(role, Movement) or (kernel is not None and kernel.fused):
            annotation.names.append((name, op_name(node)))
            if kernel is not None:
                annotation.quantizable.add(name)
        if isinstance(role, AtRun) and role.becomes is None:
            annotation.at_run.add(name)
            annotation.quantizable.add(name)
        if node in absorbed or name in annotation.at_run:
            continue
        reason = _reason_against(model, node, role, target, selection)
        if reason is not None or kernel is None or isinstance(role, Activation | Float):
            annotation.reasons[name] = reason or "no integer kernel"
            continue
        unit = _unit(node, role, kernel, selection)
        absorbed.update(unit.absorbed)
        annotation.units.append(unit)
        annotation.made_by |= dict.fromkeys(unit.outputs, unit)
        for value in dict.fromkeys(value for _, value in unit.inputs):
            annotation.read_by.setdefault(value, []).append(unit)
    return annotation


def element_count(value: ir.Value) -> int:
    """Elements of a value at its static dimensions; unknown ones count as 1 (the first: a batch) or as 64."""
    shape = dims(value)
    if shape is None:
        return 64
    return math.prod((1 if axis == 0 else 64) if size is None else size for axis, size in enumerate(shape))


def _handles_floats(node: ir.Node) -> bool:
    """Whether an output may hold floats: nodes that compute shapes are no concern of a quantizer."""
    return any(value.dtype is None or value.dtype in _FLOATS for value in node.outputs)


def _kernel(role: Role, target: Target) -> Kernel | Move | None:
    if isinstance(role, Compute):
        return target.kernels.get(role.form)
    return target.moves.get(role.form) if isinstance(role, Movement) else None


def _reason_against(model: ir.Model, node: ir.Node, role: Role, target: Target, selection: Selection) -> str | None:
    if node.graph is not model.graph:
        return "inside the body of an If, Loop or Scan"
    if isinstance(role, Float):
        return role.reason
    against = selection.reason_against(node.name or "", op_name(node))
    if against is not None:
        return against
    if isinstance(role, Activation):
        return "no integer kernel before it can absorb it"
    if _kernel(role, target) is None:
        return target.left_float.get(role.form, f"no integer kernel for {role.form} on {target.name}")
    if isinstance(role, Movement):
        return _reason_against_operands(node, [node.inputs[i] for i in role.inputs])
    return _reason_against_compute(node, role)


def _reason_against_compute(node: ir.Node, role: Compute) -> str | None:
    if role.weight is not None and not is_constant(node.inputs[role.weight.index]):
        return "its weight is not constant"
    if role.bias is not None and len(node.inputs) > role.bias:
        bias = node.inputs[role.bias]
        if bias is not None and (not is_constant(bias) or len(dims(bias) or ()) != 1):
            return "its bias is not a constant vector"
    return _reason_against_operands(node, [node.inputs[i] for i in role.activations])


def _reason_against_operands(node: ir.Node, operands: list[ir.Value | None]) -> str | None:
    if all(is_constant(value) for value in operands):
        return "its operands are constant"
    for value in (*operands, *node.outputs):
        if value is not None and value.dtype != ir.DataType.FLOAT:
            kind = "of unknown type" if value.dtype is None else value.dtype.name.lower()
            return f"its values are {kind}, not float32"
    return None


def _unit(node: ir.Node, role: Compute | Movement, kernel: Kernel | Move, selection: Selection) -> Unit:
    indices = role.inputs if isinstance(role, Movement) else role.activations
    operands = [(i, value) for i in indices if (value := node.inputs[i]) is not None]
    unit = Unit(
        node,
        role,
        kernel,
        inputs=tuple((i, value) for i, value in operands if not is_constant(value)),
        constants=tuple(i for i, value in operands if is_constant(value)),
        outputs=tuple(node.outputs),
        chosen=bool(selection.include or selection.op_types),
    )
    if isinstance(role, Compute):
        unit.outputs = (node.outputs[0],)
        unit.low, unit.high = role.low, role.high
        for activation, clip in _activations(node.outputs[0], selection):
            unit.absorbed += (activation,)
            unit.outputs = (activation.outputs[0],)
            unit.low = clip.low if unit.low is None else max(unit.low, unit.low if clip.low is None else clip.low)
            unit.high = (
                clip.high if unit.high is None else min(unit.high, unit.high if clip.high is None else clip.high)
            )
    return unit


def _activations(value: ir.Value, selection: Selection) -> Iterator[tuple[ir.Node, Activation]]:
    """The clipping activations behind a value that nothing else reads. Zero, which is exact, must be inside."""
    graph = value.graph
    while len(value.uses()) == 1 and not value.is_graph_output():
        (use,) = value.uses()
        node = use.node
        role = rule_for(node).quantization(node)
        if not isinstance(role, Activation) or node.graph is not graph:
            return
        if (role.low or 0.0) > 0 or (role.high or 0.0) < 0:
            return
        if selection.reason_against(node.name or "", op_name(node)) is not None:
            return
        yield node, role
        value = node.outputs[0]
