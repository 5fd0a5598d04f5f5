"""Which value of a candidate stands for which value of its baseline, by name.

A name that is a number says nothing (`onnxqp.quantize.naming`): then the node counts that makes the value.

A quantized value is looked for behind its DequantizeLinear: there its error is complete, and looking there leaves the
integer kernels of the runtime as they are, while the value before QuantizeLinear only exists in their registers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxqp.graph import constant, dims, is_constant
from onnxqp.specs import Array

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
# What quantizers append to the name of a value: onnxqp's own, now and before, and those of onnxruntime.quantization.
_SUFFIXES = ("_dq", "_dequantized", "_DequantizeLinear_Output", "_clipped", "_QuantizeLinear_Input")
_NUMBER = re.compile(r"v\d+(_\d+)?")
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)
_REACH = 3  # nodes that one integer kernel may hold between its arithmetic and QuantizeLinear: bias, activation


@dataclass(frozen=True)
class Quantizer:
    """The grid of a value, per tensor: low <= (x / scale + zero_point) <= high."""

    scale: float
    zero_point: int
    low: int
    high: int

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest number that it can say."""
        return (self.low - self.zero_point) * self.scale, (self.high - self.zero_point) * self.scale


@dataclass(frozen=True)
class Pair:
    """A value of the baseline, the node there that makes it ("" for an input), and its name in the candidate."""

    name: str
    node: str
    candidate: str
    quantizer: Quantizer | None = None


def match(baseline: ir.Model, candidate: ir.Model) -> list[Pair]:
    """The pairs in the order of the candidate's graph; bodies of If, Loop and Scan are not looked into."""
    known = _Known.of(baseline)
    pairs: dict[str, Pair] = {}
    for node in candidate.graph:
        if node.op_type == DEQUANTIZE and not is_constant(node.inputs[0]):
            found = known.first(_dequantized_names(node)) or known.maker(_before(node))
            _add(pairs, found, node.outputs[0], _quantizer(node))
    for node in candidate.graph:
        if node.op_type in (QUANTIZE, DEQUANTIZE):
            continue
        for value in node.outputs:
            if _holds_floats(value) and value.name not in pairs and not _inside_kernel(value):
                _add(pairs, known.first([value.name or ""]) or known.maker(value), value, None)
    places = {value.name or "": place for place, value in enumerate(_floats(candidate))}
    return sorted(pairs.values(), key=lambda pair: places.get(pair.candidate, 0))


@dataclass(frozen=True)
class _Known:
    """The values of the baseline, by name, and by what makes them: the node's name and type, and the output's place."""

    by_name: Mapping[str, ir.Value]
    by_maker: Mapping[tuple[str, str, int], ir.Value]

    @classmethod
    def of(cls, baseline: ir.Model) -> _Known:
        values = list(_floats(baseline))
        makers = {place: value for value in values if (place := _place(value)) is not None}
        return cls({value.name or "": value for value in values}, makers)

    def first(self, names: list[str]) -> ir.Value | None:
        return next((self.by_name[name] for name in names if name in self.by_name), None)

    def maker(self, value: ir.Value | None) -> ir.Value | None:
        """The value that a node of the same name makes, for one whose own name is a number."""
        place = None if value is None or not _NUMBER.fullmatch(value.name or "") else _place(value)
        return None if place is None else self.by_maker.get(place)


def _place(value: ir.Value) -> tuple[str, str, int] | None:
    node = value.producer()
    return None if node is None or not node.name else (node.name, node.op_type, value.index() or 0)


def _add(pairs: dict[str, Pair], found: ir.Value | None, value: ir.Value, quantizer: Quantizer | None) -> None:
    if found is None or found.name is None or value.name is None or found.name in pairs or _apart(found, value):
        return
    maker = found.producer()
    pairs[found.name] = Pair(found.name, "" if maker is None else maker.name or "", value.name, quantizer)


def _floats(model: ir.Model) -> Iterator[ir.Value]:
    """Inputs and node outputs that hold floats, in topological order."""
    for value in (*model.graph.inputs, *(value for node in model.graph for value in node.outputs)):
        if value.name and _holds_floats(value):
            yield value


def _holds_floats(value: ir.Value) -> bool:
    return isinstance(value.type, ir.TensorType) and value.dtype in _FLOATS  # a sequence has a dtype too


def _apart(one: ir.Value, other: ir.Value) -> bool:
    """Whether the static shapes say that these cannot be compared, as after pruning."""
    ours, theirs = dims(one), dims(other)
    if ours is None or theirs is None:
        return False
    return len(ours) != len(theirs) or any(
        a is not None and b is not None and a != b for a, b in zip(ours, theirs, strict=True)
    )


def _dequantized_names(node: ir.Node) -> list[str]:
    """Names that the float value behind a DequantizeLinear may have in the baseline, the surest first."""
    names = [node.outputs[0].name or ""]
    source = _before(node)
    names += [] if source is None else [source.name or ""]
    return [*names, *(name.removesuffix(end) for name in names for end in _SUFFIXES if name.endswith(end))]


def _before(node: ir.Node) -> ir.Value | None:
    """What the QuantizeLinear reads whose integers a DequantizeLinear turns back."""
    maker = None if node.inputs[0] is None else node.inputs[0].producer()
    return maker.inputs[0] if maker is not None and maker.op_type == QUANTIZE else None


def _quantizer(node: ir.Node) -> Quantizer | None:
    """The parameters of a DequantizeLinear per tensor that are constant."""
    scale = constant(node.inputs[1])
    zero_value = node.inputs[2] if len(node.inputs) > 2 else None
    zero: Array | None = np.zeros(1, np.uint8) if zero_value is None else constant(zero_value)
    if scale is None or zero is None or scale.size != 1 or zero.size != 1 or zero.dtype.kind not in "iu":
        return None
    signed, bits = zero.dtype.kind == "i", 8 * zero.dtype.itemsize
    low = -(2 ** (bits - 1)) if signed else 0
    return Quantizer(float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0]), low, low + 2**bits - 1)


def _inside_kernel(value: ir.Value) -> bool:
    """Whether looking at the value might take an integer kernel apart: arithmetic on dequantized inputs made it, and
    QuantizeLinear follows. One that QuantizeLinear itself reads is looked at behind its DequantizeLinear."""
    if any(use.node.op_type == QUANTIZE for use in value.uses()):
        return True
    behind = [value]
    for _ in range(_REACH):
        behind = list({output: None for each in behind for use in each.uses() for output in use.node.outputs})
        if any(use.node.op_type == QUANTIZE for each in behind for use in each.uses()):
            return _reads_dequantized(value, _REACH)
    return False


def _reads_dequantized(value: ir.Value, reach: int) -> bool:
    maker = value.producer()
    if maker is None or not reach:
        return False
    if maker.op_type == DEQUANTIZE:
        return not is_constant(maker.inputs[0])
    return any(_reads_dequantized(source, reach - 1) for source in maker.inputs if source is not None)
