"""Weights of a quantized model in four bits each: sixteen of their 256 integers, which the runtime looks up once.

A byte holds two codes. `Cast -> Gather` looks up the pair of integers that it stands for, in a table that one more
Gather makes of the sixteen, and `Reshape` gives the weight its shape: operators that every opset has. onnxruntime folds
them when it opens the model, from its basic optimisation level on: kernels, their speed and the fusions around are
those of the integers themselves. Where integers saturate no 16-bit sum, those that take their place do not either.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.graph import add_initializer, constant, renew_names, set_initializer, unique_name
from onnxqp.model import clone
from onnxqp.normalize.cleanup import remove_dead
from onnxqp.ops import rebuilt, rule_for
from onnxqp.quantize.arithmetic import Floats
from onnxqp.quantize.layer_inputs import layer_roundings
from onnxqp.quantize.levels import LEVELS, choose_levels, nearest_levels
from onnxqp.quantize.rounding import LayerRounding, partners, round_by_hessian
from onnxqp.quantize.weights import PAIR_LIMIT, worst_pair
from onnxqp.specs import Compute, Feed

NODES = 260  # bytes that nodes, their names and the levels of a weight take


@dataclass(frozen=True)
class StoredWeight:
    """An int8 initializer and by what the graph multiplies it: `scale`, of its shape.

    `layer` is the only node that reads it so multiplied, None where there are more.
    """

    name: str
    values: npt.NDArray[np.int8]
    scale: Floats
    layer: str | None

    @property
    def saved(self) -> int:
        """Bytes that packing saves."""
        return self.values.size // 2 - NODES


@dataclass(frozen=True)
class PackedWeight:
    """The integers that are left of a weight, the `levels` that they take, and what its layer's bias must add.

    `bias`: which input that is.
    """

    stored: StoredWeight
    values: npt.NDArray[np.int8]
    levels: npt.NDArray[np.int8]
    shift: Floats | None = None
    bias: int | None = None


class Packing:
    """The weights of one quantized model that can be packed, rounded by what that does to the outputs of layers.

    `feeds`: samples that show what these read.
    """

    def __init__(self, model: ir.Model, feeds: Iterable[Feed]) -> None:
        self._model = model
        self._feeds = feeds
        self.weights = {weight.name: weight for weight in _stored(model) if weight.saved > 0}
        self._packed: dict[str, PackedWeight | None] = {}

    def packed(self, name: str) -> PackedWeight | None:
        """One of the `weights`; None where sixteen integers cannot stand for it."""
        if name not in self._packed:
            self._packed[name] = self._pack(self.weights[name])
        return self._packed[name]

    def build(self, names: Iterable[str]) -> ir.Model:
        """A copy of the model with these weights packed."""
        work = clone(self._model)
        renew_names(work)
        nodes = {node.name: node for node in work.graph}
        unpacking = _Unpacking(work.graph)
        for name in names:
            packed = self.packed(name)
            if packed is None:
                continue
            unpacking.add(packed)
            layer = nodes.get(packed.stored.layer or "")
            if packed.shift is not None and packed.bias is not None and layer is not None:
                _shift_bias(layer, packed.bias, packed.shift)
        remove_dead(work)
        return work

    @functools.cached_property
    def _plain(self) -> ir.Model:
        """The model with constants in the place of all that is computed from constants alone."""
        work = clone(self._model)
        for value in _made(work):
            array = rebuilt(value)
            if array is not None and any(not rule_for(node).rebuilds for node in value.consumers()):
                float_ = add_initializer(work.graph, f"{value.name}_plain", array)
                ir.convenience.replace_all_uses_with(value, float_)
        return work

    @functools.cached_property
    def _roundings(self) -> Mapping[str, LayerRounding]:
        return layer_roundings(self._plain, self._feeds)

    @functools.cached_property
    def _roles(self) -> dict[str, Compute]:
        """Of the layers, by name."""
        roles = ((node.name or "", rule_for(node).quantization(node)) for node in self._plain.graph)
        return {name: role for name, role in roles if isinstance(role, Compute)}

    def _pack(self, weight: StoredWeight) -> PackedWeight | None:
        role = self._roles.get(weight.layer or "")
        rounding = self._roundings.get(weight.layer or "")
        scale = np.broadcast_to(weight.scale, weight.values.shape).astype(np.float64)
        levels = choose_levels(weight.values, scale**2)
        sums = _safe_sums(weight.values, role)
        if rounding is None or role is None:
            values = nearest_levels(weight.values, levels)
            safe = all(worst_pair(values, summed) <= PAIR_LIMIT for summed in sums)
            return PackedWeight(weight, values, levels) if safe else None
        matrix, steps = (rounding.contraction.matrix(each) for each in (weight.values * scale, scale))
        corrected = role.bias is not None
        _, factor, order = rounding.factor(corrected)
        partner = partners(rounding.contraction, scale.shape, sums[0]) if sums else None
        found = round_by_hessian(matrix, steps, factor, order, partner, levels.astype(np.float64)) * steps
        values = np.rint(rounding.contraction.weight_of(found, scale.shape) / scale).astype(np.int8)
        shift = rounding.shift(weight.values * weight.scale, values * weight.scale) if corrected else None
        return PackedWeight(weight, values, levels, shift, role.bias)


def _safe_sums(values: npt.NDArray[np.int8], role: Compute | None) -> list[tuple[int, ...]]:
    """The axes that a kernel sums over, where no sum of neighbours saturates in 16 bits: none shall. Of a kernel that
    is not known any axis may be the one."""
    unknown = [(axis,) for axis in range(values.ndim)]
    sums = [role.weight.summed] if role is not None and role.weight is not None else unknown
    return [summed for summed in sums if summed and worst_pair(values, summed) <= PAIR_LIMIT]


# ---- what is there


def _made(model: ir.Model) -> list[ir.Value]:
    """What nodes rebuild, in order."""
    return [node.outputs[0] for node in model.graph if rule_for(node).rebuilds]


def _stored(model: ir.Model) -> Iterator[StoredWeight]:
    """The int8 weights of the graph that are read as they are or as multiples of themselves."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if value.dtype != ir.DataType.INT8 or tensor is None or tensor.size % 2 or value.is_graph_output():
            continue
        if tensor.size <= 2 * NODES or sum(size != 1 for size in tensor.shape) < 2 or len(value.uses()) != 1:
            continue
        array, path = np.asarray(constant(value), np.int8), _path(value)
        scale = _scale(array.shape, path)
        if scale is None:
            continue
        product = path[-1][0].outputs[0] if path else value
        readers = {use.node for use in product.uses()}
        layer = next(iter(readers)).name if len(readers) == 1 and not product.is_graph_output() else None
        yield StoredWeight(value.name or "", array, scale, layer)


def _path(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """The nodes that make one weight of an initializer and other constants, and which input leads on."""
    path: list[tuple[ir.Node, int]] = []
    while len(value.uses()) == 1 and not value.is_graph_output():
        (use,) = value.uses()
        others = (operand for place, operand in enumerate(use.node.inputs) if place != use.idx and operand is not None)
        if not rule_for(use.node).rebuilds or any(rebuilt(each) is None for each in others):
            break
        path.append((use.node, use.idx))
        value = use.node.outputs[0]
    return path


def _scale(shape: tuple[int, ...], path: list[tuple[ir.Node, int]]) -> Floats | None:
    """By what the nodes multiply integers of this shape; None where they do something else to them."""
    zero: npt.NDArray[np.generic] = np.zeros(shape, np.int8)
    one: npt.NDArray[np.generic] = np.ones(shape, np.int8)
    for node, place in path:
        operands = [None if place == i else rebuilt(each) for i, each in enumerate(node.inputs)]
        zero, one = (
            rule_for(node).rebuild(node, [array if i == place else each for i, each in enumerate(operands)])
            for array in (zero, one)
        )
    scale = np.asarray(one, np.float32)
    return None if zero.shape != shape or zero.any() or not (scale > 0).all() else scale


# ---- what is made of it


class _Unpacking:
    """Puts codes in the place of int8 initializers, and nodes before all others that look the integers up.

    Names of what is between are numbers: longer ones would cost what small integers save.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.before = graph[0]
        self.count = 0
        self.shapes: dict[tuple[int, ...], ir.Value] = {}
        self.pairs: ir.Value | None = None  # of codes, by the byte that holds them

    def add(self, packed: PackedWeight) -> None:
        value, shape = self.graph.initializers[packed.stored.name], packed.values.shape
        uses = [(use.node, use.idx) for use in value.uses()]
        self.count += 1
        codes = np.searchsorted(packed.levels, packed.values).astype(np.uint8).reshape(-1, 2)
        set_initializer(value, codes[:, 0] * np.uint8(LEVELS) + codes[:, 1])
        if self.pairs is None:
            pairs = np.stack(np.divmod(np.arange(256, dtype=np.uint8), np.uint8(LEVELS)), axis=1)
            self.pairs = self._node("Cast", add_initializer(self.graph, "packed_pairs", pairs))
        if shape not in self.shapes:
            name = "_".join(["packed", *map(str, shape)])
            self.shapes[shape] = add_initializer(self.graph, name, np.array(shape, np.int64))
        table = self._node("Gather", add_initializer(self.graph, f"_l{self.count}", packed.levels), self.pairs)
        integers = self._node("Reshape", self._node("Gather", table, self._node("Cast", value)), self.shapes[shape])
        for reader, index in uses:
            reader.replace_input_with(index, integers)

    def _node(self, op_type: str, *inputs: ir.Value) -> ir.Value:
        to = [ir.AttrInt64("to", ir.DataType.INT32)] if op_type == "Cast" else []
        node = ir.Node("", op_type, inputs, to)
        output = node.outputs[0]
        output.name = node.name = unique_name(self.graph, f"_p{op_type[0].lower()}{self.count}")
        self.graph.insert_before(self.before, node)
        return output


def _shift_bias(layer: ir.Node, index: int, shift: Floats) -> None:
    """Add to the bias of a layer, in the integers that it is stored in; one that has none goes without."""
    bias, graph = layer.inputs[index] if len(layer.inputs) > index else None, layer.graph
    array, maker = constant(bias), None if bias is None else bias.producer()
    if bias is None or not isinstance(graph, ir.Graph):
        return
    if array is not None and array.dtype == np.float32 and array.shape == shift.shape:
        layer.replace_input_with(index, add_initializer(graph, f"{bias.name}_p", array + shift))
    elif maker is not None and rule_for(maker).rebuilds and len(bias.uses()) == 1:
        stored = maker.inputs[0]
        integers = constant(stored)
        if stored is None or integers is None or integers.dtype != np.int32:
            return
        scale = _scale(integers.shape, [(maker, 0)])
        if scale is not None and scale.shape == shift.shape:
            limits = np.iinfo(np.int32)
            moved = np.clip(np.rint(integers + shift / scale.astype(np.float64)), limits.min, limits.max)
            maker.replace_input_with(0, add_initializer(graph, f"{stored.name}_p", moved.astype(np.int32)))
