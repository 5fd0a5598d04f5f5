"""Why one candidate of a search was taken, in one sentence for the report."""

from __future__ import annotations

from collections.abc import Sequence

from onnxqp.compress.goal import CUT_DB, Goal, Measured


def explained(goal: Goal, points: Sequence[Measured], samples: int) -> str:
    """By what `choose` took one of the `points`, which were judged on so many samples."""
    accuracy = _accuracy(goal, classes=any(each.closeness.agreement is not None for each in points))
    rest = _time_and_bytes(goal)
    judged = f"judged on {samples} samples"
    if not any(goal.keeps(each) for each in points):
        near = accuracy and any(goal.accurate(each.closeness) for each in points)
        what = f"the fastest with {' and '.join(accuracy)}" if near else "the fastest"
        wanted = f"no candidate keeps every budget ({', '.join([*accuracy, *rest])})"
        return f"{wanted}: taken is {what}, {judged}"
    if not goal.bounds_accuracy:
        return f"taken is the one closest to the original of those that are {' and '.join(rest)}, {judged}"
    within = f", of those that are {' and '.join(rest)}" if rest else ""
    return f"taken is the fastest with {' and '.join(accuracy)}{within}, {judged}; of equal speed the smaller"


def _accuracy(goal: Goal, *, classes: bool) -> list[str]:
    """What is asked of accuracy: what keeps it by less than one standard error counts as missing it."""
    found = []
    if goal.max_drop is not None:
        found.append(f"at most {goal.max_drop:g} points lost by its own confidence, a standard error to spare")
    if goal.min_agreement is not None:
        found.append(f"at least {goal.min_agreement:.1f} % agreement, a standard error to spare")
    if goal.min_sqnr_db is not None:
        pruned = f" ({CUT_DB:.0f} dB if pruned)" if goal.min_sqnr_db < CUT_DB and not classes else ""
        found.append(f"at least {goal.min_sqnr_db:.1f} dB{pruned}")
    return found


def _time_and_bytes(goal: Goal) -> list[str]:
    found = []
    if goal.min_speedup is not None:
        found.append(f"{goal.min_speedup:.4g}x as fast")
    if goal.min_size_ratio is not None:
        found.append(f"{goal.min_size_ratio:.4g}x smaller")
    if goal.max_size is not None:
        found.append(f"at most {goal.max_size / 1000:,.0f} kB")
    return found
