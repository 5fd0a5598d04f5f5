"""A model brought into the forms that integer kernels take, and what could be quantized in it: before any decision."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxqp.calibrate.collect import collect
from onnxqp.calibrate.observers import MinMax
from onnxqp.calibrate.statistics import Statistics
from onnxqp.errors import ModelError, UnsupportedError
from onnxqp.graph import constant, dims, iterate, op_name
from onnxqp.model import clone
from onnxqp.normalize.precision import float32_form
from onnxqp.ops import rule_for
from onnxqp.options import QuantizeOptions
from onnxqp.quantize.annotate import Annotation, Unit, annotate
from onnxqp.quantize.costs import Costs
from onnxqp.specs import Compute, Feed
from onnxqp.targets import TARGETS, Target


@dataclass(frozen=True)
class Draft:
    """`original` is the model before the rewrites that only integer kernels want; `costs` are those of the table."""

    original: ir.Model
    model: ir.Model
    annotation: Annotation
    costs: Costs

    @classmethod
    def of(
        cls,
        model: ir.Model,
        table: Target,
        options: QuantizeOptions,
        samples: Iterable[Feed],
        statistics: Statistics | None = None,
    ) -> Draft:
        """One of the samples is run, or the statistics asked, where shapes do not say how many elements there are."""
        work = rewritten(model, options)
        annotation = annotate(work, table, options.selection)
        return cls(model, work, annotation, Costs(table, _elements(work, annotation, samples, statistics)))


def checked(model: ir.Model) -> ir.Model:
    """The model in float32. Raises UnsupportedError where it is quantized already, ModelError where a weight is NaN."""
    for node in iterate(model):
        if rule_for(node).quantized:
            raise UnsupportedError(
                f"already quantized: it holds {op_name(node)} nodes",
                where=f"node {node.name}",
                hint="quantize the float model that this one was made from",
            )
    for graph in model.graphs():
        for value in graph.initializers.values():
            array = constant(value)
            if array is None or array.dtype.kind != "f" or array.ndim < 1 or not array.size:
                continue
            with np.errstate(all="ignore"):
                whole = np.isfinite(array.sum())
            if not whole and np.isnan(array).any():
                raise ModelError(
                    "a weight holds NaN",
                    where=f"initializer {value.name}",
                    hint="the model was saved broken: export it again",
                )
    return float32_form(model)[0]


def rewritten(model: ir.Model, options: QuantizeOptions) -> ir.Model:
    """A copy with its chosen nodes in the forms that integer kernels take, by rewrites that change no result."""
    work = clone(model)
    for node in list(work.graph):
        chosen = options.selection.reason_against(node.name or "", op_name(node)) is None
        if chosen and node.graph is work.graph:
            rule_for(node).plain(node)
    return work


# ---- what there is to look at --------------------------------------------------------------------------------------


def observed(annotation: Annotation, units: Collection[Unit] | None = None) -> list[str]:
    """The values to look at, of all units or of some: what a movement makes holds the elements of what it reads."""
    moved = {value.name for unit in annotation.units if unit.moves for value in unit.outputs}
    chosen = annotation.units if units is None else units
    touched = dict.fromkeys(value for unit in chosen for value in (*(v for _, v in unit.inputs), *unit.outputs))
    sources = {value: _source(value, annotation) for value in touched}
    return list(dict.fromkeys(name for value in sources.values() if (name := value.name or "") not in moved))


def _source(value: ir.Value, annotation: Annotation) -> ir.Value:
    """Where the elements of a moved value come from."""
    while (unit := annotation.made_by.get(value)) is not None and unit.moves:
        value = unit.inputs[0][1]
    return value


def channels(annotation: Annotation) -> dict[str, int]:
    """The activations that meet a weight, and their axes of channels: their means correct the biases."""
    pairs = ((unit, unit.role) for unit in annotation.units if isinstance(unit.role, Compute))
    return {unit.inputs[0][1].name or "": role.channels for unit, role in pairs if role.weight is not None}


def unrounded(annotation: Annotation, rounded: Container[str]) -> dict[str, int]:
    """The activations, by name, and their axes of channels, that meet a weight which no moments say how to round."""
    names = {
        unit.inputs[0][1].name or ""
        for unit in annotation.units
        if isinstance(unit.role, Compute) and unit.role.weight is not None and unit.node.name not in rounded
    }
    return {name: axis for name, axis in channels(annotation).items() if name in names}


def observable(model: ir.Model, options: QuantizeOptions) -> tuple[list[str], dict[str, int]]:
    """Every value that some target may quantize, and the axis along which the weights behind it have channels."""
    values: dict[str, None] = {}
    axes: dict[str, int] = {}
    for target in TARGETS.values():
        annotation = annotate(model, target, options.selection)
        values |= dict.fromkeys(value.name or "" for value in annotation.values())
        axes |= channels(annotation)
    return list(values), axes


def _elements(
    model: ir.Model, annotation: Annotation, samples: Iterable[Feed], statistics: Statistics | None
) -> dict[str, int]:
    """Element counts of one sample, observed where shapes leave them open beyond the first axis; else empty."""
    if all(None not in (dims(value) or (None, None))[1:] for value in annotation.values()):
        return {}
    if statistics is not None:
        return {name: each.count // max(statistics.samples, 1) for name, each in statistics.histograms.items()}
    observers = {value.name or "": MinMax() for value in annotation.values()}
    collect(model, itertools.islice(samples, 1), observers)
    return {name: observer.count for name, observer in observers.items()}
