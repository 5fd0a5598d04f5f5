"""The only place that edits the graph for quantization: a plan and parameters become Q, DQ and integer weights.

Everything is named for the value it quantizes, and in the order of the plan: the same plan gives the same file. Of x,
x_q are the integers, x_dq what they stand for, x_s and x_zp scale and zero point, and x_b is a bias that was corrected.
Biases that half precision can say are stored so, as x_h: onnxruntime folds the Cast behind them when it
opens the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from onnxqp.errors import InternalError
from onnxqp.graph import add_initializer, constant, renew_names, unique_name
from onnxqp.ops import rule_for
from onnxqp.plan import PlannedConstant, PlannedMove, PlannedWeight, QuantizationPlan
from onnxqp.quantize.arithmetic import (
    HALF_MAX,
    MANY_SCALES,
    Floats,
    Integers,
    dequantize_linear,
    integer_limits,
    quantize_bias,
    quantize_linear,
    scale_and_zero_point,
    smallest_weight_scale,
)
from onnxqp.quantize.bias import Means, mean_shift
from onnxqp.quantize.naming import Labels
from onnxqp.quantize.parameters import Parameters
from onnxqp.quantize.rounding import Roundings
from onnxqp.quantize.tied import IntegerCopy
from onnxqp.quantize.weights import IntegerWeight, quantize_weight
from onnxqp.specs import Activation

HALF_BIAS = 2.0**-12  # relative error of a bias in half precision...
SMALL_STEP = 1 / 16  # ...that may be so much of a step of the output
_NO_MEANS: Means = MappingProxyType({})
_NO_ROUNDINGS: Roundings = MappingProxyType({})


@dataclass
class Inserted:
    """What `insert` did. `scales_raised`: output channels whose weight scale grew so that the bias fits in 32 bits."""

    weights_made_safe: int = 0
    scales_raised: int = 0
    bias_corrected: int = 0
    copies: dict[str, IntegerCopy] = field(default_factory=dict)  # of weights, by the names of these


def insert(
    model: ir.Model,
    plan: QuantizationPlan,
    parameters: Mapping[str, Parameters],
    *,
    means: Means = _NO_MEANS,
    roundings: Roundings = _NO_ROUNDINGS,
    per_tensor: bool = False,
) -> Inserted:
    """Edit `model` in place.

    `means`: per-channel means of activations by name, from calibration; where given, biases are corrected by them.
    `roundings`, by the name of the node, round weights by what that does to the output; others go to the nearest.
    `per_tensor`: one scale per weight instead of one per output channel.
    """
    renew_names(model)  # a clone may hold the names of its original's later life
    return _Inserter(model, plan, parameters, means, roundings, per_tensor).run()


def _operand(node: ir.Node, index: int | None) -> Floats | None:
    """The array of a constant input that may be absent."""
    if index is None or len(node.inputs) <= index:
        return None
    array = constant(node.inputs[index])
    return None if array is None else np.asarray(array, np.float32)


class _Inserter:
    def __init__(
        self,
        model: ir.Model,
        plan: QuantizationPlan,
        parameters: Mapping[str, Parameters],
        means: Means,
        roundings: Roundings,
        per_tensor: bool,
    ) -> None:
        self.graph = model.graph
        self.first = model.graph[0]
        self.plan = plan
        self.parameters = parameters
        self.means = means
        self.roundings = roundings
        self.per_tensor = per_tensor
        self.nodes = {node.name or "": node for node in self.graph}
        self.done = Inserted()
        self.scales: dict[int, tuple[ir.Value, ir.Value]] = {}  # by identity of parameters: shared initializers
        self.labels = Labels()
        self.zeros: dict[tuple[np.dtype[np.integer], tuple[int, ...]], ir.Value] = {}
        self.rebuilt: dict[tuple[str, int | None, bool, bytes], ir.Value] = {}  # weights read by several nodes

    def run(self) -> Inserted:
        for name in self.plan.lowered:
            rule_for(self.nodes[name]).lower(self.nodes[name])
        for name in self.plan.shielded:
            self._shield(self.nodes[name])
        for weight in self.plan.weights:
            self._weight(weight)
        for operand in self.plan.constants:
            self._constant(operand)
        by_name = {value.name: value for value in self._values()}
        moves = {move.node: move for move in self.plan.moves}
        for name in self.plan.values:
            self._activation(by_name[name], moves)
        return self.done

    def _values(self) -> list[ir.Value]:
        return [*self.graph.inputs, *(value for node in self.graph for value in node.outputs)]

    # ---- activations

    def _activation(self, value: ir.Value, moves: Mapping[str, PlannedMove]) -> None:
        """value -> Q -> DQ -> its integer readers; a movement put on integers reads and writes between Q and DQ."""
        name = value.name or ""
        maker = value.producer()
        uses = [(use.node, use.idx) for use in value.uses()]
        scale, zero_point = self._shared(name)
        was_output = value.is_graph_output()
        move = None if maker is None else moves.get(maker.name or "")
        if maker is not None and move is not None:
            self._move(maker, move, value)
            integers = value
        else:
            source = self._guard(value) if name in self.plan.guarded else value
            source = self._bar(value) if name in self.plan.barred else source
            label = self.labels.short(name)
            integers = self._node("QuantizeLinear", [source, scale, zero_point], f"{label}_q")
        operands = [integers, scale, zero_point]
        label = name if integers is value else self.labels.short(name)
        real = self._node("DequantizeLinear", operands, f"{label}_dq")
        only = name in self.plan.only_integers
        for node, index in uses:
            if index == 0 and node.name in moves:
                node.replace_input_with(index, integers)
            elif only or (node.name or "", index) in self.plan.dequantized:
                node.replace_input_with(index, real)
        if was_output and only:
            self._rename_output(value, real, f"{name}_float")
        if integers is value:
            value.name = unique_name(self.graph, f"{name}_q")
            value.type = ir.TensorType(ir.DataType.UINT8)

    def _guard(self, value: ir.Value) -> ir.Value:
        """The value clipped to what its integers can say, which changes none of them."""
        name = value.name or ""
        own = self.parameters[name]
        ends = [(limit - int(own.zero_point)) * np.float32(own.scale) for limit in integer_limits(8, signed=False)]
        bounds = [
            add_initializer(self.graph, f"{name}_{end}", np.asarray(number, np.float32))
            for end, number in zip(("lowest", "highest"), ends, strict=True)
        ]
        return self._node("Clip", [value, *bounds], f"{name}_clipped")

    def _shield(self, node: ir.Node) -> None:
        """A Relu becomes a Max, and a Clip gets one more bound before it.

        Behind an integer kernel that writes float, onnxruntime takes a Relu or Clip for what a QuantizeLinear absorbs,
        finds none, and gives the fusion up.
        """
        role, source = rule_for(node).quantization(node), node.inputs[0]
        if not isinstance(role, Activation) or source is None:
            raise InternalError(f"{node.name} does not clip")
        bound, op_type = (role.high, "Min") if role.low is None else (role.low, "Max")
        limit = add_initializer(self.graph, f"{node.name}_bound", np.asarray(bound, np.float32))
        if role.low is not None and role.high is not None:
            node.replace_input_with(0, self._node(op_type, [source, limit], f"{node.name}_bounded"))
            return
        node.op_type = op_type
        node.attributes.clear()
        node.resize_inputs(2)
        node.replace_input_with(1, limit)

    def _bar(self, value: ir.Value) -> ir.Value:
        """The value through a Max with the least that its integers can say, which no fusion knows nor removes."""
        name = value.name or ""
        own = self.parameters[name]
        lowest = np.asarray((integer_limits(8, signed=False)[0] - int(own.zero_point)) * np.float32(own.scale))
        least = add_initializer(self.graph, f"{name}_lowest", lowest.astype(np.float32))
        return self._node("Max", [value, least], f"{name}_barred")

    def _move(self, node: ir.Node, move: PlannedMove, output: ir.Value) -> None:
        """A movement on integers fills with the integer that stands for zero."""
        if move.fill is None:
            return
        _, zero_point = self._shared(output.name or "")
        if len(node.inputs) <= move.fill:
            node.resize_inputs(move.fill + 1)
        node.replace_input_with(move.fill, zero_point)

    def _rename_output(self, value: ir.Value, real: ir.Value, name: str) -> None:
        """The dequantized value takes the place and the name of a graph output."""
        kept = value.name
        for place, output in enumerate(self.graph.outputs):
            if output is value:
                self.graph.outputs[place] = real
        value.name = unique_name(self.graph, name)
        real.name, real.shape, real.type = kept, value.shape, value.type

    def _shared(self, name: str) -> tuple[ir.Value, ir.Value]:
        """Scalar initializers; values that share parameters share these."""
        own = self.parameters[name]
        if id(own) not in self.scales:
            self.scales[id(own)] = (
                add_initializer(self.graph, f"{self.labels.short(name)}_s", np.asarray(own.scale, np.float32)),
                add_initializer(self.graph, f"{self.labels.short(name)}_zp", np.asarray(own.zero_point, np.uint8)),
            )
        return self.scales[id(own)]

    # ---- constants

    def _weight(self, planned: PlannedWeight) -> None:
        node = self.nodes[planned.node]
        value = node.inputs[planned.index]
        array = constant(value)
        if value is None or array is None:
            raise InternalError(f"the weight of {planned.node} is not constant")
        weight = np.asarray(array, np.float32)
        axis = None if self.per_tensor else planned.channel_axis
        x_scale = self.parameters[planned.input_value].scale
        bias = _operand(node, planned.bias_index)
        need = np.zeros((), np.float32) if bias is None else smallest_weight_scale(bias, x_scale)
        need = need.max(initial=0.0) if axis is None else need
        quantized = quantize_weight(weight, axis, summed=planned.summed, safe=planned.saturates, at_least=need)
        if planned.node in self.roundings:
            quantized = self._by_output(planned, weight, quantized, axis)
        self.done.scales_raised += int((quantized.scale <= need * 1.000001).sum()) if bias is not None else 0
        self.done.weights_made_safe += quantized.made_safe
        node.replace_input_with(planned.index, self._rebuilt(value, quantized, axis, planned))
        if planned.bias_index is not None:
            rounded = dequantize_linear(quantized.values, quantized.scale, axis=axis)
            corrected = self._corrected(planned, weight, rounded, bias)
            if corrected is not bias or not planned.float_bias:
                self._bias(node, planned, corrected, x_scale, quantized.scale)

    def _by_output(
        self, planned: PlannedWeight, weight: Floats, nearest: IntegerWeight, axis: int | None
    ) -> IntegerWeight:
        """The weight rounded by what that does to the output of the node."""
        spread = [-1 if place == axis and nearest.scale.ndim else 1 for place in range(weight.ndim)]
        rounding = self.roundings[planned.node]
        corrected = rounding.corrects or planned.input_value in self.means
        values = rounding.round(
            weight,
            nearest.scale.reshape(spread),
            nearest.values,
            centred=planned.bias_index is not None and corrected,
            summed=planned.summed if planned.saturates else (),
        )
        return replace(nearest, values=values)

    def _corrected(self, planned: PlannedWeight, weight: Floats, rounded: Floats, bias: Floats | None) -> Floats | None:
        """The bias with the mean error of the rounded weight taken back; as it was where the mean is not known."""
        mean, rounding = self.means.get(planned.input_value), self.roundings.get(planned.node)
        shift: Floats | None = None
        if planned.channel_axis is not None and rounding is not None and rounding.corrects:
            shift = rounding.shift(weight, rounded)
        elif planned.channel_axis is not None and mean is not None:
            shift = mean_shift(weight, rounded, mean, planned.channel_axis, planned.summed)
        if shift is None or not shift.any():
            return bias
        self.done.bias_corrected += 1
        return shift if bias is None else bias + shift

    def _bias(
        self, node: ir.Node, planned: PlannedWeight, bias: Floats | None, x_scale: np.float32, w_scale: Floats
    ) -> None:
        """A bias that the runtime rounds by itself stays as it is: integers would take scales beside them."""
        index = planned.bias_index
        if bias is None or index is None:
            return
        if len(node.inputs) <= index:
            node.resize_inputs(index + 1)
        old = node.inputs[index]
        alone = old is not None and len(old.uses()) == 1
        name = old.name if old is not None and old.name and alone else f"{node.name}_bias"
        if planned.float_bias:
            node.replace_input_with(
                index, self._float_bias(bias.astype(np.float32), f"{self.labels.short(name)}_b", planned)
            )
            return
        scale = np.asarray(x_scale * w_scale, np.float32)
        integers = quantize_bias(bias, x_scale, w_scale)
        node.replace_input_with(index, self._integers(integers, scale, 0 if scale.ndim else None, name))

    def _float_bias(self, bias: Floats, name: str, planned: PlannedWeight) -> ir.Value:
        """In half precision where the error of that is nothing beside a step of the output."""
        own = self.parameters.get(planned.output_value)
        small = own is not None and np.abs(bias).max(initial=0.0) * HALF_BIAS <= SMALL_STEP * float(own.scale)
        if bias.size < MANY_SCALES or not small or np.abs(bias).max() >= HALF_MAX:
            return add_initializer(self.graph, name, bias)
        return self._half(bias, name)

    def _half(self, array: Floats, name: str) -> ir.Value:
        """The array behind a Cast from half precision."""
        stored = add_initializer(self.graph, f"{name}_h", array.astype(np.float16))
        whole = self._node("Cast", [stored], name, ir.AttrInt64("to", ir.DataType.FLOAT))
        whole.type, whole.shape = ir.TensorType(ir.DataType.FLOAT), stored.shape
        return whole

    def _rebuilt(self, value: ir.Value, quantized: IntegerWeight, axis: int | None, planned: PlannedWeight) -> ir.Value:
        """The weight as DequantizeLinear of its integers; one for all nodes that need the same."""
        key = (value.name or "", axis, planned.zeros, quantized.scale.tobytes())
        if key not in self.rebuilt:
            name, (values, scale) = value.name or "weight", (quantized.values, quantized.scale)
            self.rebuilt[key] = self._integers(values, scale, axis, name, zeros=planned.zeros)
            maker = self.rebuilt[key].producer()
            integers, step = (None, None) if maker is None else maker.inputs[:2]
            if integers is not None and step is not None:
                self.done.copies[name] = IntegerCopy(integers, step, axis)
        return self.rebuilt[key]

    def _constant(self, planned: PlannedConstant) -> None:
        """A constant operand of an elementwise kernel: uint8 like the activations beside it, per tensor."""
        node = self.nodes[planned.node]
        value = node.inputs[planned.index]
        array = constant(value)
        if value is None or array is None:
            raise InternalError(f"an operand of {planned.node} is not constant")
        scale, zero_point = scale_and_zero_point(array)
        integers = quantize_linear(array, scale, zero_point)
        rebuilt = self._integers(integers, scale, None, value.name or "constant", zero_point)
        node.replace_input_with(planned.index, rebuilt)

    def _integers(
        self,
        integers: Integers,
        scale: Floats,
        axis: int | None,
        name: str,
        zero_point: Integers | None = None,
        *,
        zeros: bool = False,
    ) -> ir.Value:
        """Integers in the file and DequantizeLinear behind them, before every node that may read it.

        `zeros`: without a zero point it gets one all the same.
        """
        name = self.labels.short(name)
        integer = add_initializer(self.graph, f"{name}_q", integers)
        operands = [integer, add_initializer(self.graph, f"{name}_s", scale)]
        if zero_point is not None:
            operands.append(add_initializer(self.graph, f"{name}_zp", zero_point))
        elif zeros:
            operands.append(self._zeros(integers.dtype, scale.shape))
        attribute = None if axis is None else ir.AttrInt64("axis", axis)
        return self._node("DequantizeLinear", operands, f"{name}_dq", attribute)

    def _zeros(self, dtype: np.dtype[np.integer], shape: tuple[int, ...]) -> ir.Value:
        """The zero points of a symmetric weight or bias: the same initializer for all of one type and length."""
        key = (dtype, shape)
        if key not in self.zeros:
            name = "_".join(["zeros", dtype.name, *map(str, shape)])
            self.zeros[key] = add_initializer(self.graph, name, np.zeros(shape, dtype))
        return self.zeros[key]

    def _node(self, op_type: str, inputs: list[ir.Value], output: str, attribute: ir.Attr | None = None) -> ir.Value:
        """A new node right behind its source, named for its output, whose shape would only cost bytes."""
        node = ir.Node("", op_type, inputs, [] if attribute is None else [attribute])
        result = node.outputs[0]
        result.name = node.name = unique_name(self.graph, output)
        source = inputs[0].producer()
        if source is not None:
            self.graph.insert_after(source, node)
        else:
            self.graph.insert_before(self.first, node)
        return result
