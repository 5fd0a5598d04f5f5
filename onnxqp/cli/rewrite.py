"""What the commands that write a model do alike: find the model, check the paths, work, show the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from onnxqp.cli import paths
from onnxqp.cli.screen import Screen
from onnxqp.cli.settings import the_model
from onnxqp.options import DataOptions, Gates, MeasureOptions, WriteOptions

if TYPE_CHECKING:
    from onnxqp.job import Result


def rewrite(
    work: Callable[..., Result],
    model: str | None,
    data: DataOptions,
    measure: MeasureOptions,
    gates: Gates,
    write: WriteOptions,
    screen: Screen,
    *,
    read: Sequence[str | None] = (),
    saved: str | None = None,
) -> int:
    """The exit code of `work`, a function of onnxqp.api with its options given.

    `read` and `saved` are files that it reads and writes besides. A dry run shows its plan to the last line.
    """
    source = the_model(model)
    measure = dataclasses.replace(measure, trace=bool(screen.reports) or screen.as_json)
    paths.check(
        models=[source],
        data=[data.data, data.eval, measure.profile, *read],
        output=write.output,
        saved=saved,
        profile=measure.save_profile,
        reports=screen.reports,
    )
    with screen.progress() as progress:
        result = work(source, data=data, measure=measure, gates=gates, write=write, progress=progress)
    return screen.show(result.report, every=write.dry_run, groups=write.dry_run)
