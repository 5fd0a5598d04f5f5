"""What `inspect` and `ops` list: the layers of a model, and the operators that onnxqp knows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxqp import ops
from onnxqp.errors import UsageError
from onnxqp.graph import iterate, op_name
from onnxqp.model import parameters
from onnxqp.report.records import Layer, ModelSummary
from onnxqp.steps import Subject, count_macs


def detailed(subject: Subject, normal: ir.Model) -> ModelSummary:
    """The summary of a model with its operators counted and its layers listed; layers are those after clean-up."""
    summary = subject.summary(count_macs(normal))
    if summary is None:
        summary = ModelSummary(
            path=subject.name,
            sha256="",
            bytes=subject.bytes(),
            parameters=parameters(subject.model),
            macs=count_macs(normal),
            nodes=sum(len(graph) for graph in subject.model.graphs()),
            opset=subject.model.opset_imports.get("", 0),
            ir_version=subject.model.ir_version,
        )
    counts = Counter(op_name(node) for node in iterate(subject.model))
    return replace(summary, operators=dict(counts.most_common()), layers=[_layer(node) for node in normal.graph])


def _layer(node: ir.Node) -> Layer:
    shape = node.outputs[0].shape if node.outputs else None
    weights = [value for value in node.inputs if value is not None and value.const_value is not None]
    return Layer(
        name=node.name or "",
        op_type=op_name(node),
        shape=None if shape is None else [size if isinstance(size, int) else size.value for size in shape],
        parameters=sum(value.const_value.size for value in weights if value.const_value is not None),
        macs=ops.rule_for(node).macs(node) or None,
    )


@dataclass(frozen=True)
class OperatorFacts:
    """One operator, for `onnxqp ops`."""

    operator: str
    pruning: str
    quantization: dict[str, str]  # target: the kernel, or why it stays in float


def operator_facts(name: str | None = None) -> list[OperatorFacts]:
    """Every record by name, or the one asked for; raises UsageError for an unknown name, with a suggestion."""
    from difflib import get_close_matches

    from onnxqp.targets import TARGETS, describe

    known = sorted(ops.RULES)
    if name is not None:
        match = next((op for op in known if op.lower() == name.lower()), None)
        if match is None:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else "`onnxqp ops` lists those that have a rule"
            raise UsageError(f"no rule for operator {name!r}: it is pinned and stays in float", hint=hint)
        known = [match]
    return [
        OperatorFacts(
            operator=op,
            pruning=" ".join((ops.RULES[op].__doc__ or "").split()),
            quantization={target: describe(op, target) for target in TARGETS},
        )
        for op in known
    ]
