"""From a decision to a model: everything that calibration found is kept, so that several decisions can be tried."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import onnx_ir as ir

from onnxqp.calibrate.observers import Histogram
from onnxqp.calibrate.ranges import METHODS, Range, auto, minmax
from onnxqp.graph import iterate, op_name
from onnxqp.model import clone
from onnxqp.normalize.cleanup import remove_dead
from onnxqp.normalize.precision import store_halves
from onnxqp.options import QuantizeOptions
from onnxqp.plan import QuantizationPlan
from onnxqp.quantize.annotate import Annotation
from onnxqp.quantize.at_rest import Stored, store_at_rest
from onnxqp.quantize.bias import Means
from onnxqp.quantize.decide import Decision
from onnxqp.quantize.dynamic import FUSED, make_dynamic, reason_against_dynamic
from onnxqp.quantize.insert import Inserted, insert
from onnxqp.quantize.parameters import activation_parameters
from onnxqp.quantize.planning import make_plan
from onnxqp.quantize.recurrent import Recurrences
from onnxqp.quantize.responses import Responses
from onnxqp.quantize.rounding import Roundings
from onnxqp.quantize.share import share_equal
from onnxqp.quantize.tied import find_tied, readers, share_integers
from onnxqp.quantize.verify import unfused_nodes
from onnxqp.report.records import Quantization
from onnxqp.runtime import RunningNode
from onnxqp.specs import Shared
from onnxqp.targets import Kernel, Target

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Material:
    """What every candidate is made from: a prepared model and what is known of its values, all by name.

    `original` is the model before the rewrites that only integer kernels want.
    """

    original: ir.Model
    model: ir.Model
    annotation: Annotation
    target: Target
    options: QuantizeOptions
    histograms: Mapping[str, Histogram]
    means: Means
    roundings: Roundings = field(default_factory=dict)
    recurrences: Recurrences | None = None
    _ranges: dict[tuple[str, bool, Range, int], Range] = field(default_factory=dict, init=False)

    def build(self, decision: Decision, *, at_rest: bool = True) -> Candidate:
        """A quantized copy of the model; the model itself stays as it is. `at_rest`: float weights shrink too."""
        plan = self.plan(decision)
        shared = {spec.with_value for spec in plan.values.values() if isinstance(spec, Shared)}
        parameters = activation_parameters(
            plan.values, self.histograms, lambda name, histogram: self._range(name, histogram, alone=name not in shared)
        )
        work = clone(self.model if decision.integer else self.original)
        recurrent = self._recurrent(work, decision.reasons)
        integer, excluded = {node.node for node in plan.integer_nodes}, self._excluded()
        tied = find_tied(work, integer, excluded) if at_rest else []
        untouched = excluded | integer | readers(tied)
        stored = store_at_rest(work, untouched, self.means, self.roundings) if at_rest else Stored()
        inserted = insert(
            work,
            plan,
            parameters,
            means=self.means,
            roundings=self.roundings,
            per_tensor=self.options.per_tensor,
        )
        share_integers(work, tied, inserted.copies)
        if at_rest:  # what only runs need not be small
            store_halves(work)
            share_equal(work)
        remove_dead(work)
        ranges = {name: own.range for name, own in parameters.items()}
        return Candidate(work, decision, plan, ranges, inserted, stored, recurrent=recurrent)

    def build_dynamic(self, returned: Mapping[str, str] = _NOTHING) -> Candidate | None:
        """A copy whose products with a constant matrix quantize what they read at every inference; None without any.

        `returned`: nodes that stay in float, and why.

        On transformers that is often faster than the static form, which pays for Q and DQ around every
        LayerNormalization, Softmax and GELU.
        """
        chosen = [unit for unit in self.annotation.units if reason_against_dynamic(unit.node) is None]
        names = {unit.node.name or "" for unit in chosen} - set(returned)
        if not names:
            return None
        saturates = any(isinstance(unit.kernel, Kernel) and unit.kernel.saturates for unit in chosen)
        work = clone(self.original)
        recurrent = self._recurrent(work, returned)
        excluded = self._excluded()
        tied = find_tied(work, names, excluded)
        stored = store_at_rest(work, excluded | names | readers(tied), self.means, self.roundings)
        made = make_dynamic(work, names, per_tensor=self.options.per_tensor, saturates=saturates)
        share_integers(work, tied, made.copies)
        store_halves(work)
        share_equal(work)
        remove_dead(work)
        others = (unit.node.name or "" for unit in self.annotation.units)
        reasons = dict.fromkeys(others, "only products pay here, quantized at every inference") | dict(returned)
        decision = Decision((), reasons)
        plan = self.plan(decision)
        nodes = (
            replace(node, integer=True, reason=None, fused=FUSED) if node.node in names else node for node in plan.nodes
        )
        plan = replace(plan, nodes=tuple(nodes))
        return Candidate(work, decision, plan, stored=stored, dynamic=frozenset(names), recurrent=recurrent)

    def _recurrent(self, work: ir.Model, returned: Mapping[str, str]) -> frozenset[str]:
        """The recurrent layers left on integers, once those that are `returned` have their float weights again."""
        names = frozenset() if self.recurrences is None else frozenset(self.recurrences.names)
        if self.recurrences is not None and names & set(returned):
            self.recurrences.to_float(work, names & set(returned))
        return names - set(returned)

    def plan(self, decision: Decision) -> QuantizationPlan:
        """What would be inserted."""
        plan = make_plan(self.annotation, decision, self.target, lambda value: self._span(value.name or ""))
        origins = {} if self.recurrences is None else self.recurrences.origins
        returned = {name: op_name(origins[name]) for name in origins.keys() & set(decision.reasons)}
        nodes = (replace(node, op_type=returned.get(node.node, node.op_type)) for node in plan.nodes)
        return replace(plan, nodes=tuple(nodes)) if returned else plan

    def _range(self, name: str, histogram: Histogram, *, alone: bool) -> Range:
        """By the method asked for; `auto` looks at what becomes of a value that shares its range with no other. Kept:
        candidates differ in few values, or in which of them share a range."""
        key = name, alone, histogram.range, hash((histogram.mean_range, histogram.zeros, histogram.counts.tobytes()))
        if key not in self._ranges:
            if self.options.method == "auto" and alone:
                self._ranges[key] = auto(histogram, self.responses.at_edges(name, histogram))
            else:
                self._ranges[key] = METHODS[self.options.method](histogram)
        return self._ranges[key]

    @functools.cached_property
    def responses(self) -> Responses:
        """Of the values of the model."""
        return Responses.of(self.model)

    def _span(self, name: str) -> float | None:
        histogram = self.histograms.get(name)
        if histogram is None:
            return None
        low, high = minmax(histogram)
        return high - low

    def _excluded(self) -> set[str]:
        names = ((node.name or "", op_name(node)) for node in iterate(self.model))
        return {name for name, op_type in names if self.options.selection.reason_against(name, op_type) is not None}


@dataclass(frozen=True)
class Candidate:
    """A quantized model and how it came about. `ranges` are those of its activations, by name."""

    model: ir.Model
    decision: Decision
    plan: QuantizationPlan
    ranges: Mapping[str, Range] = field(default_factory=dict)
    inserted: Inserted = field(default_factory=Inserted)
    stored: Stored = field(default_factory=Stored)
    dynamic: frozenset[str] = frozenset()  # products that quantize their input at run
    recurrent: frozenset[str] = frozenset()  # recurrent layers that do
    packed: int = 0  # weights in four bits (`packing`)

    @property
    def integers(self) -> int:
        """How many nodes compute on integers."""
        return len(self.decision.integer) + len(self.dynamic)

    @property
    def layers(self) -> int:
        """The same, with the recurrent layers that do."""
        return self.integers + len(self.recurrent)

    @property
    def changed(self) -> bool:
        """Whether anything in it is quantized at all."""
        return bool(self.stored.weights) or any(self.plan.integer_nodes)

    def record(self, running: Sequence[RunningNode] | None = None) -> Quantization:
        """The section of the report. What the runtime makes of the model is seen in the nodes that are `running`;
        without them the model is opened where that matters."""
        unfused = unfused_nodes(self.model, self.plan, running) if any(self.plan.integer_nodes) else []
        return replace(
            self.plan.record(),
            nodes_fused=sum(1 for _ in self.plan.integer_nodes) - len(unfused),
            weights_at_rest=self.stored.weights,
            weights_packed=self.packed or None,
            unfused=unfused,
            weights_made_safe=self.inserted.weights_made_safe,
            bias_corrected=self.inserted.bias_corrected + self.stored.bias_corrected,
        )
