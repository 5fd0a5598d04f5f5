"""The masked original: every shape as it was, and at every consumer the removed channels contribute nothing.

It is what the pruned model must compute, built another way: producers are left alone, and where an axis is used up the
removed labels are kept out. A weight loses its slices to zeros in a copy of the consumer's own; between two activations
one operand is multiplied by 0 and 1, or its removed elements are replaced by what cannot win (a maximum); a mean is
scaled to count the kept ones only. A node that takes statistics runs on the kept positions alone, and its results are
put back in place. Never are producers zeroed: a bias, a normalisation or an activation would bring their channels back.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxqp.axes import AxisLabels, Consumption, Cut, Reduction, spread
from onnxqp.graph import constant, iterate, own_initializer, rank, set_initializer
from onnxqp.model import clone
from onnxqp.ops import rule_for
from onnxqp.ops.rewrite import Insertion
from onnxqp.prune.apply import set_shape
from onnxqp.prune.spool import is_large, spooled
from onnxqp.prune.states import mask_states

Mask = tuple[tuple[int, ...], npt.NDArray[np.bool_]]

_NEUTRAL = {Reduction.MAX: -math.inf, Reduction.MIN: math.inf, Reduction.PRODUCT: 1.0}


def mask_model(model: ir.Model, labels: AxisLabels, cut: Cut) -> ir.Model:
    """A copy of `model` in which removed labels contribute nothing at their consumers."""
    masked, large = clone(model), is_large(model)
    wanted: dict[str, list[Consumption]] = {}
    for consumption in labels.consumptions.values():
        wanted.setdefault(consumption.node, []).append(consumption)
    for original, node in zip(
        list(iterate(model)), list(iterate(masked)), strict=True
    ):  # labels go by the names of the original
        here = wanted.get(node.name or "", [])
        if any(use.reduction is Reduction.STATISTIC for use in here):
            _run_on_kept(node, original, cut)
            continue
        for use in here:
            mask = cut.mask(original.inputs[use.index], use.axis)
            if mask is not None:
                _keep_out(node, use, mask, large=large)
    mask_states(masked.graph, cut)
    return masked


def _keep_out(node: ir.Node, use: Consumption, mask: Mask, *, large: bool) -> None:
    """Make the removed elements of one input neutral, for this node only."""
    value = node.inputs[use.index]
    if value is None or value.dtype is None:
        raise ValueError(f"input {use.index} of {node.name} has no type")
    axes, kept = mask
    shown = spread(kept, axes, rank(value) or 0)
    array, dtype = constant(value), value.dtype.numpy()
    zero = None if use.zero is None else node.inputs[use.zero.index]
    blank = np.zeros((), dtype) if zero is None else constant(zero)
    if blank is not None and use.zero is not None:
        along = use.zero.axis
        blank = blank.reshape(()) if along is None else spread(blank.reshape(-1), (along,), rank(value) or 0)
    if array is not None and blank is not None and use.reduction is Reduction.SUM:
        zeroed = spooled(np.where(shown, array, blank), large=large)
        set_initializer(own_initializer(node, use.index), zeroed)
        return
    if use.reduction is Reduction.SUM and _blank_integers(node, use.index, shown):
        return
    insertion = Insertion(node)
    if zero is not None:
        nothing = zero if blank is None else insertion.constant(blank, dtype)
        masked = insertion.add("Where", [insertion.constant(shown, np.bool_), value, nothing], like=value)
    elif use.reduction in _NEUTRAL:
        operands = [insertion.constant(shown, np.bool_), value, insertion.constant(_NEUTRAL[use.reduction], dtype)]
        masked = insertion.add("Where", operands, like=value)
    else:
        factor = kept.shape[-1] / _count(kept) if use.reduction is Reduction.MEAN else 1.0
        masked = insertion.add("Mul", [value, insertion.constant(shown * factor, dtype)], like=value)
    node.replace_input_with(use.index, masked)


def _blank_integers(node: ir.Node, index: int, shown: npt.NDArray[np.bool_]) -> bool:
    """Zero a weight that a node rebuilds where it is stored, for this reader only: integer kernels stay as they are."""
    value = node.inputs[index]
    producer = None if value is None else value.producer()
    if value is None or producer is None:
        return False
    stored, blank = constant(producer.inputs[0]), rule_for(producer).blank(producer)
    if stored is None or blank is None:
        return False
    insertion = Insertion(node)
    operands = [insertion.constant(np.where(shown, stored, blank), stored.dtype), *producer.inputs[1:]]
    attributes = list(producer.attributes.values())
    again = insertion.add(producer.op_type, operands, like=value, attributes=attributes, domain=producer.domain)
    node.replace_input_with(index, again)
    return True


def _run_on_kept(node: ir.Node, original: ir.Node, cut: Cut) -> None:
    """Run a node on the kept positions of all its operands and put its results back where they stood."""
    rule_for(node).resize(node, cut)
    for index, value in enumerate(original.inputs):
        array, masks = constant(value), cut.masks(value)
        if masks and array is not None:
            set_initializer(own_initializer(node, index), cut.compact(value, array))
            continue
        for axes, kept in masks:
            places = np.nonzero(kept)[-1].reshape(*kept.shape[:-1], _count(kept))
            before = node.inputs[index]
            assert before is not None
            node.replace_input_with(index, _take(Insertion(node), before, axes, places))
    for output, value in zip(node.outputs, original.outputs, strict=True):
        set_shape(output, cut.sizes(value))
        for axes, kept in cut.masks(value):
            places = np.maximum(np.cumsum(kept, axis=-1) - 1, 0)  # removed ones repeat a neighbour: nobody reads them
            uses = list(output.uses())
            restored = _take(Insertion(node, behind=True), output, axes, places)
            for user, index in uses:
                user.replace_input_with(index, restored)


def _take(insertion: Insertion, value: ir.Value, axes: tuple[int, ...], places: npt.NDArray[np.int64]) -> ir.Value:
    """`value` with `places` taken along the last of `axes`: the same ones everywhere, or others in every block."""
    attributes = [ir.AttrInt64("axis", axes[-1])]
    if len(axes) == 1:
        operands = [value, insertion.constant(places, np.int64)]
        return insertion.add("Gather", operands, like=value, resized=True, attributes=attributes)
    sizes = insertion.with_elements(insertion.sizes_of(value), {axes[-1]: places.shape[-1]})
    narrow = insertion.constant(spread(places, axes, rank(value) or 0), np.int64)
    wide = insertion.add("Expand", [narrow, sizes], like=narrow, resized=True)
    return insertion.add("GatherElements", [value, wide], like=value, resized=True, attributes=attributes)


def _count(kept: npt.NDArray[np.bool_]) -> int:
    """How many positions a block keeps."""
    return int(kept.reshape(-1, kept.shape[-1])[0].sum())
