"""What a decision asked the clock, in order, so that the same decision can be taken once more without one.

With the target `auto` what becomes of a model depends on times, and times differ from run to run. Every such number
goes through `Measurements.of`: taken here and kept, or given back from an earlier run (`--save-profile`, `--profile`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from onnxqp.errors import DataError


@dataclass(frozen=True)
class Measurement:
    """Some numbers that were measured together, and what they are."""

    name: str
    numbers: tuple[float, ...]


@dataclass
class Measurements:
    """Those of one run. `given`: of an earlier one, to be given back; `target`: what `auto` meant there."""

    given: Sequence[Measurement] | None = None
    target: str | None = None
    taken: list[Measurement] = field(default_factory=list)

    def of(self, name: str, take: Callable[[], Sequence[float]], count: int | None = None) -> tuple[float, ...]:
        """The next measurement, which is called `name`: `count` numbers, or as many as there are.

        Raises DataError when the earlier run asked for something else at this place.
        """
        if self.given is None:
            found = Measurement(name, tuple(float(number) for number in take()))
        elif len(self.taken) == len(self.given):
            raise _other_run(f"it ends before {name!r}")
        else:
            found = self.given[len(self.taken)]
            if found.name != name:
                raise _other_run(f"it has {found.name!r} where {name!r} is asked for")
            if count is not None and len(found.numbers) != count:
                raise _other_run(f"{name!r} has {len(found.numbers)} numbers, not {count}")
        self.taken.append(found)
        return found.numbers

    def resolved(self, target: str) -> str:
        """The name of a target, in which `auto` is what it was in the earlier run."""
        return self.target if target == "auto" and self.target is not None else target


def _other_run(how: str) -> DataError:
    return DataError(
        f"the profile does not fit this run: {how}",
        hint="use it with the options, data and command that it was saved with, or save one for these",
    )
