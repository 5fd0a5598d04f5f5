"""Quantization within a budget of accuracy: which candidates were judged on the way, and which one was taken."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from onnxqp.evaluate.assessment import Assessment
from onnxqp.evaluate.fidelity import ignore
from onnxqp.gather import Inputs
from onnxqp.judge import assessed, keeps_budget
from onnxqp.options import DataOptions, Gates, MeasureOptions
from onnxqp.quantize import QuantizeResult
from onnxqp.report.records import FrontierPoint
from onnxqp.runtime import Session
from onnxqp.steps import Run

MOST = 7  # candidates: the first, and a bisection of some thirty blocks


def within_budget(
    run: Run,
    first: QuantizeResult,
    baseline: Session,
    inputs: Inputs,
    *,
    gates: Gates,
    measure: MeasureOptions,
    data: DataOptions,
) -> tuple[QuantizeResult, list[FrontierPoint] | None]:
    """The first result where it keeps `--max-drop` and `--min-agreement`, else one with blocks returned to float.

    With it, the candidates that were judged; None when there was nothing to search.
    """
    if not measure.validate or (gates.max_drop is None and gates.min_agreement is None):
        return first, None
    judged: list[Assessment] = []
    advance = run.advance("search")

    def keeps(model: ir.Model) -> bool:
        advance(len(judged), MOST)
        session = Session(model, threads=measure.threads)
        found = assessed(
            baseline, session, inputs, measure=measure, batch_size=data.batch_size, seed=data.seed, warn=ignore
        )
        judged.append(found)
        return keeps_budget(gates, found)

    with run.stage("search"):
        if keeps(first.model):
            return first, None
        result = first.within(keeps)
    integers = [first.candidate.layers, *(each.integers for each in result.tried)]
    speedups = [first.trial.placement.speedup * _by_recurrences(first), *(each.speedup for each in result.tried)]
    kept = [False, *(each.kept for each in result.tried)]
    taken = max((place for place, good in enumerate(kept) if good), default=0, key=lambda place: integers[place])
    points = [
        _point(assessment, speedup, number)
        for assessment, speedup, number in zip(judged, speedups, integers, strict=True)
    ]
    points[taken] = replace(points[taken], chosen=True)
    run.warn(_summary(len(points), any(kept), integers[0] - integers[taken], integers[0]))
    return result, points


def _by_recurrences(first: QuantizeResult) -> float:
    """What its recurrent layers on integers multiply the speed by."""
    recurrences = first.trial.material.recurrences
    return 1.0 if recurrences is None else recurrences.speedup


def _point(assessment: Assessment, speedup: float, integers: int) -> FrontierPoint:
    accuracy = assessment.accuracy
    return FrontierPoint(
        speedup=speedup,
        settings={"nodes_on_integers": integers},
        chosen=False,
        accuracy=None if accuracy is None else accuracy.candidate,
        agreement=assessment.fidelity.top1_agreement,
    )


def _summary(candidates: int, kept: bool, returned: int, nodes: int) -> str:
    if not kept:
        return f"none of {candidates} candidates keeps the budget, not even with all nodes in float"
    return (
        f"{returned} of {nodes} integer nodes went back to float to keep the budget; {candidates} candidates were "
        "judged on the evaluation data: judge the result once more on data of its own"
    )
