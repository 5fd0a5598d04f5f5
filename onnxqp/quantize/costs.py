"""What a unit costs in float and in int8, and what a border between the two does: by a target's table, or measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxqp.graph import dims
from onnxqp.quantize.annotate import Unit, element_count
from onnxqp.specs import Compute
from onnxqp.targets import Move, Target, Work


@dataclass(frozen=True)
class Costs:
    """Nanoseconds of one inference. `elements`: how many a value had in calibration, where its shape does not say.

    What was measured takes the place of the table: `as_float` and `as_integer` by the name of a unit's node, `border`
    as (per element, per node).
    """

    target: Target
    elements: Mapping[str, int] = field(default_factory=dict)
    as_float: Mapping[str, float] = field(default_factory=dict)
    as_integer: Mapping[str, float] = field(default_factory=dict)
    measured_border: tuple[float, float] | None = None

    @property
    def source(self) -> str:
        """Where the figures come from, for a reason in the report."""
        return "as measured here" if self.as_integer else "by the table"

    def count(self, value: ir.Value) -> int:
        """Elements of a value in one sample."""
        return self.elements.get(value.name or "", element_count(value))

    def of(self, unit: Unit) -> tuple[float, float]:
        """In float and in int8. A measured figure counts only beside its counterpart: tables and clocks do not mix."""
        name = unit.node.name or ""
        if name in self.as_float and name in self.as_integer:
            return self.as_float[name], self.as_integer[name]
        return self._by_table(unit)

    def border(self, value: ir.Value) -> float:
        """Of entering or leaving the integers with a value."""
        per_element, per_node = self.measured_border or (self.target.border_ns, self.target.node_ns)
        return self.count(value) * per_element + per_node

    def _by_table(self, unit: Unit) -> tuple[float, float]:
        count = sum(self.count(value) for value in unit.outputs)
        if isinstance(unit.kernel, Move):
            return count * unit.kernel.float_ns, count * unit.kernel.integer_ns
        work = self._work(unit, count)
        return unit.kernel.float_ns(work), unit.kernel.integer_ns(work)

    def _work(self, unit: Unit, count: int) -> Work:
        weight = unit.role.weight if isinstance(unit.role, Compute) else None
        value = unit.node.inputs[weight.index] if weight is not None else None
        shape = [size or 1 for size in dims(value) or ()]
        if weight is None or not shape:
            return Work(max(count, *(self.count(v) for _, v in unit.inputs)))
        axis = weight.channel_axis if weight.channel_axis is not None else len(shape) - 1
        summed = math.prod(shape) // shape[axis]
        return Work(count, count * summed, shape[weight.summed[-1]], shape[axis])
