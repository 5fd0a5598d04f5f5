"""What is judged: anything that runs a feed. A `runtime.Session` is one; tests use fakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from onnxqp.errors import UsageError
from onnxqp.specs import Array, Feed, InputSpec


class Runnable(Protocol):
    """Runs one feed and returns its outputs by name, in the model's order."""

    def run(self, feed: Feed, names: Sequence[str] | None = None, /) -> dict[str, Array]: ...


@runtime_checkable
class Signed(Protocol):
    """Knows its inputs and outputs."""

    @property
    def inputs(self) -> tuple[InputSpec, ...]: ...

    @property
    def outputs(self) -> tuple[InputSpec, ...]: ...


def require_same_signature(baseline: Signed, candidate: Signed) -> None:
    """Refuse two models that cannot be compared: other names, element types, or dimensions that contradict.

    Raises `UsageError` with the first difference. A dimension that one of them leaves open contradicts nothing.
    """
    for side, ours, theirs in (
        ("input", baseline.inputs, candidate.inputs),
        ("output", baseline.outputs, candidate.outputs),
    ):
        known, found = {spec.name: spec for spec in ours}, {spec.name: spec for spec in theirs}
        if known.keys() != found.keys():
            raise _not_comparable(f"{side}s {_listed(found)} of the candidate, {_listed(known)} of the baseline")
        for name, spec in known.items():
            other = found[name]
            if spec.dtype != other.dtype:
                raise _not_comparable(
                    f"{side} {name!r} is {other.dtype} in the candidate, {spec.dtype} in the baseline"
                )
            if _contradict(spec.shape, other.shape):
                raise _not_comparable(
                    f"{side} {name!r} has shape {_shown(other.shape)} in the candidate, "
                    f"{_shown(spec.shape)} in the baseline"
                )


def samples_in(feed: Feed) -> int:
    """How many samples the feed holds: the leading dimension on which all inputs of rank 2 and more agree, else 1.

    Inputs that disagree (an image beside a recurrent state of shape (2, 1, 64)) are one sample.
    """
    leading = {array.shape[0] for array in feed.values() if array.ndim >= 2}
    return max(1, leading.pop()) if len(leading) == 1 else 1


def _not_comparable(difference: str) -> UsageError:
    return UsageError(
        f"the two models cannot be compared: {difference}",
        hint="give two versions of one model, with the same inputs and outputs",
    )


def _contradict(
    one: tuple[int | str | None, ...] | None,
    other: tuple[int | str | None, ...] | None,
) -> bool:
    if one is None or other is None:
        return False
    if len(one) != len(other):
        return True
    return any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(one, other, strict=True))


def _listed(specs: dict[str, InputSpec]) -> str:
    return ", ".join(specs) or "(none)"


def _shown(shape: tuple[int | str | None, ...] | None) -> str:
    return "unknown" if shape is None else "(" + ", ".join("?" if d is None else str(d) for d in shape) + ")"
