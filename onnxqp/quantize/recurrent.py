"""Dynamic quantization of recurrent layers: int8 weights, and what the layer reads quantized at every inference.

LSTM -> com.microsoft.DynamicQuantizeLSTM, the one integer kernel that onnxruntime has for recurrences
(core/mlas and contrib_ops/cpu/quantization/dynamic_quantize_lstm.cc). Both its ends are float, so that whether it pays
depends on nothing else in the model: the clock is asked first of all, and the rest is placed around it.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.graph import add_initializer, constant, is_constant, iterate, op_name, renew_names
from onnxqp.normalize.cleanup import remove_dead
from onnxqp.ops import rule_for
from onnxqp.options import QuantizeOptions
from onnxqp.quantize.weights import quantize_weight
from onnxqp.specs import AtRun

_OPERANDS = 8  # inputs of a recurrent layer; what the integer one has beside them follows
_DOMAIN = "com.microsoft"


@dataclass(frozen=True)
class Recurrences:
    """The layers of a model that compute on integers, by name; `original` is the model with all of them in float.

    `speedup`: how many times as fast they make it; `float_ns`: what one inference of the original takes.
    """

    original: ir.Model
    names: tuple[str, ...]
    speedup: float
    float_ns: float

    @functools.cached_property
    def origins(self) -> Mapping[str, ir.Node]:
        """The layers as they are in the original, by name."""
        return {node.name or "": node for node in iterate(self.original) if node.name in self.names}

    def to_float(self, model: ir.Model, names: Collection[str]) -> None:
        """Give those of the layers that are named their float weights back, in place, in a model made of this one."""
        renew_names(model)
        for node in [node for node in iterate(model) if node.name in self.origins and node.name in names]:
            _restore(node, self.origins[node.name or ""])
        remove_dead(model)


def quantize_recurrences(model: ir.Model, names: Collection[str], *, per_tensor: bool, saturates: bool) -> None:
    """Rewrite the named layers in place, also in bodies. `saturates`: the CPU adds neighbouring products in 16 bits."""
    for node in [node for node in iterate(model) if node.name in names]:
        _rewrite(node, per_tensor, saturates)
    model.opset_imports.setdefault(_DOMAIN, 1)
    remove_dead(model)


def has_integer_kernel(node: ir.Node, options: QuantizeOptions) -> bool:
    """Whether a node is a recurrent layer that can compute on integers, and may."""
    role = rule_for(node).quantization(node)
    if not isinstance(role, AtRun) or role.becomes is None:
        return False
    data, *weights = (node.inputs[index] for index in (0, *role.weights))
    if any(value is None or value.dtype != ir.DataType.FLOAT for value in (data, *weights)):
        return False
    if is_constant(data) or not all(map(is_constant, weights)):
        return False
    return options.selection.reason_against(node.name or "", op_name(node)) is None


def _rewrite(node: ir.Node, per_tensor: bool, saturates: bool) -> None:
    """Each weight [directions, gates, columns] becomes integers [directions, columns, gates] with scales and zeros."""
    role, graph = rule_for(node).quantization(node), node.graph
    if not isinstance(role, AtRun) or role.becomes is None or graph is None:
        raise ValueError(f"{node.name} has no integer kernel")
    node.resize_inputs(_OPERANDS + 2 * len(role.weights))
    for place, index in enumerate(role.weights):
        value = node.inputs[index]
        array = constant(value)
        if value is None or array is None:
            raise ValueError(f"{node.name} has a computed weight")
        done = [
            quantize_weight(each.T, None if per_tensor else 1, summed=(0,), safe=saturates)
            for each in np.asarray(array, np.float32)
        ]
        scales = np.stack([each.scale for each in done])
        parts: dict[int, tuple[str, npt.NDArray[Any]]] = {
            index: ("quantized", np.stack([each.values for each in done])),
            _OPERANDS + 2 * place: ("scale", scales),
            _OPERANDS + 2 * place + 1: ("zero", np.zeros(scales.shape, np.int8)),
        }
        for at, (word, content) in parts.items():
            node.replace_input_with(at, add_initializer(graph, f"{value.name}_{word}", content))
    node.attributes.pop("layout", None)  # 0, or it would have no integer kernel
    node.op_type, node.domain = role.becomes, _DOMAIN


def _restore(node: ir.Node, origin: ir.Node) -> None:
    """The float operator with its weights again; what else it reads stays."""
    role, graph = rule_for(origin).quantization(origin), node.graph
    if not isinstance(role, AtRun) or graph is None:
        raise ValueError(f"{origin.name} is no recurrent layer")
    node.op_type, node.domain = origin.op_type, origin.domain
    node.resize_inputs(len(origin.inputs))
    for index in role.weights:
        value, array = origin.inputs[index], constant(origin.inputs[index])
        if value is None or array is None:
            raise ValueError(f"{origin.name} has a computed weight")
        node.replace_input_with(index, add_initializer(graph, value.name or "weight", array))
