"""Commands that tell what there is: in a model, in onnxqp, on this machine."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxqp import inventory, ops
from onnxqp.errors import ModelError, OnnxqpError
from onnxqp.job import Result, arguments, normalised, size_of
from onnxqp.options import (
    PruneOptions,
    QuantizeOptions,
    TargetName,
)
from onnxqp.prune import plan as plan_pruning
from onnxqp.quantize import plan_quantization
from onnxqp.runtime import Session, ceilings, cpu, versions
from onnxqp.steps import (
    ModelLike,
    Run,
    Subject,
    open_subject,
)
from onnxqp.targets import resolve


def inspect(
    model: ModelLike, other: ModelLike | None = None, *, groups: bool = False, target: TargetName = "auto"
) -> Result:
    """What a model is made of, which nodes can be quantized or why not, and with `groups` which channels can be cut.

    With `other`, that model's summary stands as the report's output, for comparison.
    """
    run = Run("inspect", arguments(model=model, other=other, groups=groups), target=target)
    with run.memory:
        subject = open_subject(model)
        normal = _inspectable(run, subject)
        with run.stage("plan"), subject.blamed():
            sections: dict[str, Any] = {"input": inventory.detailed(subject, normal)}
            sections["quantization"] = plan_quantization(normal, QuantizeOptions(target=target)).record()
            if groups:
                sections["pruning"] = plan_pruning(normal, PruneOptions(ratio=0.0), step=1).record
        if other is not None:
            second = open_subject(other)
            with second.blamed():
                sections["output"] = inventory.detailed(second, _inspectable(run, second))
            sections["size"] = size_of(subject.bytes(), second.bytes())
    return Result(None, run.report(**sections))


def operators(name: str | None = None) -> list[inventory.OperatorFacts]:
    """What is known of every operator, or of the one named: pruning rule, quantization rule, per target."""
    return inventory.operator_facts(name)


def doctor() -> dict[str, Any]:
    """Versions, what the installed onnxruntime reads, and this machine: what a bug report needs."""
    limit, processor = ceilings(), cpu()
    return {
        "versions": versions(),
        "onnxruntime_reads": {"ir_version": limit.ir_version, "opset": limit.opset},
        "machine": {
            "cpu": processor.name,
            "architecture": processor.machine,
            "features": sorted(processor.features),
            "cores": processor.cores,
            "target": resolve("auto").name,
        },
        "operators_known": len(ops.RULES),
    }


def _inspectable(run: Run, subject: Subject) -> ir.Model:
    """The normalised model. One that onnxruntime cannot run can still be looked at; one that is invalid cannot."""
    normal = normalised(run, subject)
    if subject.refusal is not None:
        try:
            with subject.blamed():
                Session(normal)
        except ModelError:
            raise subject.refusal from None
        except OnnxqpError as err:
            run.warn(err.message)
        else:
            run.warn(f"needs the clean-up that quantize and prune do: {subject.refusal.message}")
    return normal
