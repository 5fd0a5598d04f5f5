"""What onnxruntime's fusion of a node between DequantizeLinear and QuantizeLinear asks for, and which part is broken.

The conditions are those of the selectors in its optimizer/qdq_transformer, found by hand-made graphs on 1.31.1. They
are held against any model with Q/DQ nodes, whoever placed them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.graph import constant, is_constant
from onnxqp.ops import rebuilt, rule_for
from onnxqp.specs import Activation, Compute, Float, Movement, Role

_EIGHT_BITS = (ir.DataType.UINT8, ir.DataType.INT8)


@dataclass(frozen=True)
class _Steps:
    """A Q or DQ node with its parameters; None where they are computed. `kind` is that of its integers."""

    node: ir.Node
    kind: ir.DataType | None
    scale: npt.NDArray[np.floating] | None
    zero_point: npt.NDArray[np.integer] | None

    @property
    def word(self) -> str:
        return "an unknown type" if self.kind is None else self.kind.name.lower()

    @property
    def scalar(self) -> bool:
        known = self.scale is not None and self.zero_point is not None
        return known and self.scale.ndim == self.zero_point.ndim == 0  # type: ignore[union-attr]

    def says(self, other: _Steps) -> bool:
        """Whether both have the same scale and zero point."""
        mine, theirs = (self.scale, self.zero_point), (other.scale, other.zero_point)
        pairs = zip(mine, theirs, strict=True)
        return all(a is not None and b is not None and np.array_equal(a, b) for a, b in pairs)

    def covers(self, activation: Activation) -> bool:
        """Whether the range of the integers lies inside the bounds of a clipping activation, after rounding."""
        if not self.scalar or self.kind is None or self.scale is None or self.zero_point is None:
            return False
        least, most = (0, 255) if self.kind == ir.DataType.UINT8 else (-128, 127)
        scale, zero = float(self.scale), int(self.zero_point)
        low, high = activation.low, activation.high
        below = low is None or np.rint(low / scale) + zero <= least
        return bool(below and (high is None or np.rint(high / scale) + zero >= most))


def _steps(node: ir.Node) -> _Steps:
    integers = node.inputs[0] if node.op_type == "DequantizeLinear" else node.outputs[0]
    scale = constant(node.inputs[1])
    given = node.inputs[2] if len(node.inputs) > 2 else None
    zero = constant(given) if given is not None else None if scale is None else np.zeros(scale.shape, np.uint8)
    kind = integers.dtype if integers is not None else None
    if kind is None or node.op_type == "QuantizeLinear":
        kind = given.dtype if given is not None else ir.DataType.UINT8
    return _Steps(node, kind, scale, zero)


def broken_condition(node: ir.Node) -> str | None:
    """In words, the first condition of the fusion that does not hold for a node; None where all known ones do."""
    role = rule_for(node).quantization(node)
    if isinstance(role, Float):
        return role.reason
    return next(_broken(node, role), None)


def _broken(node: ir.Node, role: Role) -> Iterator[str]:
    indices = _indices(node, role)
    inputs: dict[int, _Steps] = {}
    for index in indices:
        value = node.inputs[index]
        producer = None if value is None else value.producer()
        if value is None or producer is None or producer.op_type != "DequantizeLinear":
            yield f"its input {'' if value is None else value.name} is not dequantized"
        else:
            inputs[index] = _steps(producer)
    weight = role.weight.index if isinstance(role, Compute) and role.weight is not None else None
    if isinstance(role, Compute) and role.channels == -1 and _is_stored(inputs.get(1)):
        weight = 1  # that of a MatMul is known by its DequantizeLinear alone
    for index, steps in inputs.items():
        if index == weight:
            yield from _about_weight(steps)
        else:
            yield from _about_activation(steps, f"its input {_name(node.inputs[index])}")
    yield from _about_types(inputs, weight)
    if isinstance(role, Compute):
        yield from _about_bias(node, role)
    first = next((steps for index, steps in inputs.items() if index != weight), None)
    yield from _about_output(node, role, first)
    for steps in inputs.values():
        if steps.kind == ir.DataType.INT8 and _shared(steps):
            yield "on x64, int8 activations become uint8 only where a single DequantizeLinear reads them"


def _indices(node: ir.Node, role: Role) -> list[int]:
    if isinstance(role, Movement):
        return list(role.inputs)
    if isinstance(role, Compute):
        return [*role.activations, *([role.weight.index] if role.weight is not None else [])]
    return [0]


def _about_activation(steps: _Steps, subject: str) -> Iterator[str]:
    if steps.scale is None or steps.zero_point is None or not steps.scalar:
        yield f"the scale or zero point of {subject} is not a constant scalar of rank 0"
    if steps.kind not in _EIGHT_BITS:
        yield f"{subject} is {steps.word}: integer kernels take 8 bits"


def _about_weight(steps: _Steps) -> Iterator[str]:
    source = steps.node.inputs[0]
    if source is None or not is_constant(source):
        yield "its weight is not a constant"
        return
    if steps.kind not in _EIGHT_BITS:
        yield f"its weight is {steps.word}: integer kernels take 8 bits"
    if steps.scale is None or steps.zero_point is None:
        yield "the scale or zero point of its weight is not constant"


def _about_types(inputs: dict[int, _Steps], weight: int | None) -> Iterator[str]:
    kinds = {index: steps.kind for index, steps in inputs.items() if index != weight}
    if len(set(kinds.values())) > 1:
        yield f"its operands are of different types: {' and '.join(steps.word for steps in inputs.values())}"
    if weight in inputs and ir.DataType.INT8 in kinds.values() and inputs[weight].kind != ir.DataType.INT8:
        yield f"its activations are int8, so its weight must be int8 too, not {inputs[weight].word}"


def _about_bias(node: ir.Node, role: Compute) -> Iterator[str]:
    bias = node.inputs[role.bias] if role.bias is not None and len(node.inputs) > role.bias else None
    producer = None if bias is None else bias.producer()
    if bias is None:
        return
    if producer is not None and producer.op_type == "DequantizeLinear":
        kind = _steps(producer).kind
        if kind != ir.DataType.INT32:
            yield f"its bias is {'unknown' if kind is None else kind.name.lower()}, not int32"
    elif rebuilt(bias) is None:
        yield "its bias is not constant"


def _about_output(node: ir.Node, role: Role, first: _Steps | None) -> Iterator[str]:
    output, between = node.outputs[0], []
    readers = _readers(output)
    while len(readers) == 1 and readers[0].op_type != "QuantizeLinear" and len(readers[0].outputs) == 1:
        between.append(readers[0])
        output = readers[0].outputs[0]
        readers = _readers(output)
    if not readers or any(reader.op_type != "QuantizeLinear" for reader in readers):
        between, output = [], node.outputs[0]
        readers = _readers(output)
    if not readers or any(reader.op_type != "QuantizeLinear" for reader in readers):
        clips = [reader for reader in readers if isinstance(rule_for(reader).quantization(reader), Activation)]
        if not (isinstance(role, Compute) and role.channels == -1):  # products of matrices may write float
            yield f"its output {_name(output)} is read in float"
        elif clips:
            yield f"the {clips[0].op_type} behind it has no QuantizeLinear behind"
        return
    written = _steps(readers[0])
    for other in between:
        absorbed = rule_for(other).quantization(other)
        if not isinstance(absorbed, Activation):
            yield f"{other.op_type} stands between it and its QuantizeLinear, where only Relu and Clip may"
        elif not written.covers(absorbed):
            yield f"the {other.op_type} behind it is not covered by the range of its output: {_why(written, absorbed)}"
    if not written.scalar:
        yield f"the scale or zero point of its output {_name(output)} is not a constant scalar of rank 0"
    if first is not None and written.kind != first.kind:
        yield f"its input is {first.word} and its output {written.word}"
    if isinstance(role, Movement) and first is not None and not written.says(first):
        yield "its input and its output have different scales or zero points"


def _why(steps: _Steps, activation: Activation) -> str:
    if steps.zero_point is None or steps.scale is None or steps.zero_point.ndim:
        return "its parameters are no constant scalars"
    least = 0 if steps.kind == ir.DataType.UINT8 else -128
    zero, scale = int(steps.zero_point), float(steps.scale)
    if activation.low == 0 and zero != least:
        return f"the zero point is {zero}, not {least}"
    reach = (least - zero) * scale, (least + 255 - zero) * scale
    return f"it reaches from {reach[0]:.4g} to {reach[1]:.4g}"


def _is_stored(steps: _Steps | None) -> bool:
    return steps is not None and is_constant(steps.node.inputs[0])


def _shared(steps: _Steps) -> bool:
    source = steps.node.inputs[0]
    return source is not None and not is_constant(source) and len(source.uses()) > 1


def _readers(value: ir.Value) -> list[ir.Node]:
    """The nodes that read a value; none tells the whole story of a graph output."""
    return [] if value.is_graph_output() else list(dict.fromkeys(use.node for use in value.uses()))


def _name(value: ir.Value | None) -> str:
    return "" if value is None else value.name or ""
