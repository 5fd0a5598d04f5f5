"""The layers of a pruned model that can be refitted: what they read, where their bias is, which sum they end in."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.axes import Cut
from onnxqp.graph import add_initializer, constant, is_constant, own_initializer, set_initializer, unique_name
from onnxqp.ops import rule_for
from onnxqp.ops.contraction import Contraction, Gates
from onnxqp.specs import Activation

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Layer:
    """A node with a constant weight. `adder`: the node behind it that adds its bias, where it has none of its own."""

    node: ir.Node
    contraction: Contraction
    adder: ir.Node | None

    @classmethod
    def of(cls, node: ir.Node, contraction: Contraction) -> Layer:
        """The layer that `node` is, with the node that adds its bias, if there is one already."""
        return cls(node, contraction, None if contraction.bias is not None else _adder(node))

    @property
    def data(self) -> ir.Value:
        value = self.node.inputs[self.contraction.data]
        assert value is not None
        return value

    @property
    def output(self) -> ir.Value:
        """What the layer's own bias is part of."""
        return self.node.outputs[0]

    def weight(self) -> npt.NDArray[np.generic]:
        array = constant(self.node.inputs[self.contraction.weight])
        assert array is not None
        return array

    def shape(self) -> tuple[int, int, int]:
        """Of the matrix: groups, inputs times taps, outputs."""
        return self.contraction.sizes(self.weight().shape)

    def matrix(self) -> FloatArray:
        return np.asarray(self.contraction.matrix(self.weight()), np.float64)

    def bias(self) -> FloatArray:
        """The layer's own bias, `[groups, outputs]`; zeros where it has none or the adder has it."""
        groups, _, outputs = self.contraction.sizes(self.weight().shape)
        index = self.contraction.bias
        array = None if index is None or index >= len(self.node.inputs) else constant(self.node.inputs[index])
        if array is None:
            return np.zeros((groups, outputs))
        plain = array.astype(np.float64).reshape(-1) * self.contraction.shift
        if isinstance(self.contraction, Gates):
            return plain.reshape(groups, 2, outputs)[:, 0]
        return np.broadcast_to(plain, (groups * outputs,)).reshape(groups, outputs)

    def set(self, matrix: FloatArray | None, bias: FloatArray) -> None:
        """Write a new weight (None: keep it), which becomes the layer's own, and bias, in the weight's own type."""
        weight = self.weight()
        if matrix is not None:
            fresh = self.contraction.weight_of(matrix, weight.shape)
            set_initializer(own_initializer(self.node, self.contraction.weight), fresh.astype(weight.dtype))
        if self.adder is not None:
            place = next(i for i, value in enumerate(self.adder.inputs) if is_constant(value))
            old = constant(self.adder.inputs[place])
            assert old is not None
            total = old.astype(np.float64).reshape(-1) + bias.reshape(-1)
            set_initializer(own_initializer(self.adder, place), total.astype(weight.dtype))
            return
        index = self.contraction.bias
        if index is None:
            return
        if isinstance(self.contraction, Gates):
            bias = self._with_states(bias)
        fresh = (bias.reshape(-1) / self.contraction.shift).astype(weight.dtype).reshape(self._bias_shape(bias))
        if len(self.node.inputs) > index and self.node.inputs[index] is not None:
            set_initializer(own_initializer(self.node, index), fresh)
            return
        if len(self.node.inputs) <= index:
            self.node.resize_inputs(index + 1)
        assert isinstance(self.node.graph, ir.Graph)
        self.node.replace_input_with(index, add_initializer(self.node.graph, f"{self.node.name}_bias", fresh))

    def _with_states(self, bias: FloatArray) -> FloatArray:
        """The bias of a recurrent layer with its other half, that of its states: `[directions, 2 * outputs]`."""
        value = self.node.inputs[3] if len(self.node.inputs) > 3 else None
        old = constant(value)
        states = np.zeros_like(bias) if old is None else old.astype(np.float64)[:, bias.shape[1] :]
        return np.concatenate([bias, states], axis=1)

    def _bias_shape(self, bias: FloatArray) -> tuple[int, ...]:
        return bias.shape if isinstance(self.contraction, Gates) else (-1,)

    def set_shared(self, matrix: FloatArray) -> None:
        """Write a new weight for all that read it."""
        value, weight = self.node.inputs[self.contraction.weight], self.weight()
        assert value is not None
        set_initializer(value, self.contraction.weight_of(matrix, weight.shape).astype(weight.dtype))


def find_layers(pruned: ir.Model, cuts: Sequence[Cut], changed: Collection[str] = ()) -> list[Layer]:
    """The layers whose input lost channels or follows from something that did, in the order of the graph.

    `changed`: values that are not what they were for another reason, or are read where another was.

    Products without a bias get one, zero so far; `drop_idle` takes it out again where nothing came of it.
    """
    named = {value.name: value for node in pruned.graph for value in (*node.inputs, *node.outputs) if value is not None}
    touched: set[ir.Value] = {named[name] for name in changed if name in named}
    found = []
    for node in list(pruned.graph):
        entering = [value for value in node.inputs if value is not None and not value.is_initializer()]
        read = any(value in touched for value in entering)
        rule = rule_for(node)
        contraction = (rule.contraction(node) or rule.entering(node)) if read else None
        if contraction is not None and node.inputs[contraction.data] in touched:
            adder = None if contraction.bias is not None else _adder(node) or _add_adder(node)
            found.append(Layer(node, contraction, adder))
        lost = any(cut.masks(value) for cut in cuts for value in node.outputs)
        if read or lost:
            touched.update(node.outputs)
            for layer in found[-1:]:
                if layer.node is node and layer.adder is not None:
                    touched.update(layer.adder.outputs)
    return found


def _adder(node: ir.Node) -> ir.Node | None:
    """The node that alone reads the output and adds one constant per channel."""
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output():
        return None
    user, index = uses[0]
    affine = rule_for(user).affine(user)
    wide = output.shape is not None and affine is not None and affine.axis == len(output.shape) - 1
    if affine is None or affine.data != index or not (affine.scale == 1).all() or not wide:
        return None
    return user


def _add_adder(node: ir.Node) -> ir.Node:
    """Put an Add of zeros behind a product; where the product is an output of the graph, the Add takes its name."""
    graph, output = node.graph, node.outputs[0]
    assert isinstance(graph, ir.Graph)
    weight = constant(node.inputs[1])
    assert weight is not None
    zeros = add_initializer(graph, f"{node.name}_bias", np.zeros(weight.shape[-1], weight.dtype))
    uses = list(output.uses())
    made = ir.Node("", "Add", [output, zeros], name=unique_name(graph, f"{node.name}_Add"))
    sum_ = made.outputs[0]
    sum_.type, sum_.shape = output.type, output.shape
    sum_.name, output_name = unique_name(graph, f"{output.name}_biased"), output.name
    graph.insert_after(node, made)
    for user, index in uses:
        user.replace_input_with(index, sum_)
    for place, value in enumerate(graph.outputs):
        if value is output:
            output.name, sum_.name = sum_.name, output_name
            graph.outputs[place] = sum_
    return made


def drop_idle(layers: Sequence[Layer]) -> None:
    """Remove the Adds whose bias stayed zero."""
    for layer in layers:
        adder, node = layer.adder, layer.node
        added = None if adder is None else constant(adder.inputs[1])
        if adder is None or added is None or added.any() or adder.inputs[0] is not node.outputs[0]:
            continue
        graph, sum_, output = adder.graph, adder.outputs[0], node.outputs[0]
        assert isinstance(graph, ir.Graph)
        for user, index in list(sum_.uses()):
            user.replace_input_with(index, output)
        for place, value in enumerate(graph.outputs):
            if value is sum_:
                graph.outputs[place] = output
                output.name, sum_.name = sum_.name, output.name
        graph.remove(adder, safe=True)


def shortcuts(layer: Layer) -> list[ir.Value]:
    """The other operands of the sum that the layer's output goes into, when it goes nowhere else; [] without one."""
    return _landing(layer)[1]


@dataclass(frozen=True)
class Clipping:
    """What a layer's output becomes: `shift` is added (and the other operands of the sum), then it is kept between
    `bounds`, and nothing else reads it."""

    shift: FloatArray  # [channels] or [1]
    bounds: tuple[float, float]


def clipping(layer: Layer) -> Clipping | None:
    """The clipping activation behind a layer and its sum; None where there is none, or more reads the sum."""
    value, _, shift = _landing(layer)
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    user, _ = uses[0]
    role = rule_for(user).quantization(user)
    if not isinstance(role, Activation):
        return None
    return Clipping(shift, (-np.inf if role.low is None else role.low, np.inf if role.high is None else role.high))


def _landing(layer: Layer) -> tuple[ir.Value, list[ir.Value], FloatArray]:
    """The sum that the layer's output goes into, behind its bias, the other operands, and the constants added on the
    way; without a sum, the output itself."""
    value, shift = layer.output, np.zeros(1)
    while True:
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output():
            return value, [], shift
        user, index = uses[0]
        rule = rule_for(user)
        affine = rule.affine(user)
        if affine is not None and affine.data == index and (affine.scale == 1).all():
            value, shift = user.outputs[0], shift + affine.shift
            continue
        places = rule.summands(user)
        others = [user.inputs[place] for place in places if place != index] if index in places else []
        found = [other for other in others if other is not None]
        return (user.outputs[0] if found else value), found, shift
