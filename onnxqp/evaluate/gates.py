"""Gates: limits that a result must keep, named as the options that set them."""

from __future__ import annotations

from onnxqp.errors import UsageError
from onnxqp.options import Gates
from onnxqp.report.records import Accuracy, Fidelity, Gate, Latency, Size

ROUNDING = 1e-9  # points and percent are quotients of counts: a limit that is met exactly counts as met


def require(gates: Gates, *, labelled: bool, class_output: bool | None, measured: bool) -> None:
    """Refuses a gate that needs what is absent, before any work is done. Raises `UsageError`.

    `labelled`: the evaluation data have labels. `class_output`: the judged output holds class scores; None when that
    shows only once the model has run. `measured`: the final measurements run (no `--no-validate`).
    """
    for name, limit in (
        ("max-drop", gates.max_drop),
        ("min-agreement", gates.min_agreement),
        ("min-speedup", gates.min_speedup),
    ):
        if limit is not None and not measured:
            raise _cannot_judge(name, "nothing is measured", "leave out --no-validate, or the gate")
    if gates.max_drop is not None and not labelled:
        raise _unlabelled()
    if gates.min_agreement is not None and class_output is False:
        raise _classless()


def check(
    gates: Gates,
    *,
    accuracy: Accuracy | None,
    fidelity: Fidelity | None,
    latency: Latency | None,
    size: Size | None,
) -> list[Gate]:
    """Every gate that was asked for, passed or not, in the order of the options.

    `max-drop` in the metric's unit, `min-agreement` in percent, `max-size` in bytes, `min-size-ratio` and
    `min-speedup` as ratios. A speed-up fails only outside the measured noise: when speedup * (1 + noise) is below the
    limit. Raises `UsageError` for a gate whose measurement is absent.
    """
    found: list[Gate] = []
    if gates.max_drop is not None:
        if accuracy is None:
            raise _unlabelled()
        found.append(Gate("max-drop", gates.max_drop, accuracy.drop, accuracy.drop <= gates.max_drop + ROUNDING))
    if gates.min_agreement is not None:
        if fidelity is None or fidelity.top1_agreement is None:
            raise _classless()
        agreement = fidelity.top1_agreement
        found.append(Gate("min-agreement", gates.min_agreement, agreement, agreement >= gates.min_agreement - ROUNDING))
    if gates.min_speedup is not None:
        if latency is None:
            raise _cannot_judge("min-speedup", "no latency was measured", "leave out --no-validate, or the gate")
        possible = latency.speedup * (1 + latency.noise)
        found.append(Gate("min-speedup", gates.min_speedup, latency.speedup, possible >= gates.min_speedup))
    if gates.max_size is not None:
        known = _sized("max-size", size)
        found.append(Gate("max-size", gates.max_size, known.candidate_bytes, known.candidate_bytes <= gates.max_size))
    if gates.min_size_ratio is not None:
        known = _sized("min-size-ratio", size)
        found.append(Gate("min-size-ratio", gates.min_size_ratio, known.ratio, known.ratio >= gates.min_size_ratio))
    return found


def _sized(name: str, size: Size | None) -> Size:
    if size is None:
        raise _cannot_judge(name, "no candidate was made", "leave out --dry-run, or the gate")
    return size


def _unlabelled() -> UsageError:
    return _cannot_judge("max-drop", "there are no labels", "give labelled data with --eval, or use --min-agreement")


def _classless() -> UsageError:
    return _cannot_judge(
        "min-agreement",
        "the judged output does not hold class scores",
        "name the output that does with --output-name, or leave out the gate",
    )


def _cannot_judge(name: str, reason: str, hint: str) -> UsageError:
    return UsageError(f"--{name} cannot be judged: {reason}", where=name, hint=hint)
