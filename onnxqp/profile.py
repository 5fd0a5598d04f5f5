"""Files of measured decisions: what `--save-profile` writes and `--profile` reads, so that `auto` decides the same.

A file is JSON: the model by its SHA-256, the versions and the target that it holds for, and the measurements in order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnxqp import outputs
from onnxqp.calibrate.store import model_hash
from onnxqp.errors import DataError, UsageError
from onnxqp.measurements import Measurement, Measurements
from onnxqp.options import MeasureOptions
from onnxqp.runtime import versions
from onnxqp.steps import Subject
from onnxqp.targets import TARGETS, resolve

FORMAT = "onnxqp profile"
VERSION = 1
_LARGEST = 64 * 10**6  # bytes: a million numbers take a third of it
_MOST = 1e15  # nanoseconds: eleven days
_DECIDE = ("onnxqp", "onnxruntime")  # the versions that measurements depend on


def check(measure: MeasureOptions, force: bool, inputs: Sequence[str | Path | None]) -> None:
    """Refuse, before any work, a `--save-profile` that cannot be written."""
    if measure.save_profile is None:
        return
    if measure.profile is not None:
        raise UsageError("--profile and --save-profile together would only copy a file", hint="give one of them")
    outputs.check(Path(measure.save_profile), force=force, inputs=inputs, option="--save-profile")


def measurements(measure: MeasureOptions, subject: Subject) -> Measurements:
    """Those of the file that `--profile` names, which must be of this model and these versions; else none yet."""
    if measure.profile is None:
        return Measurements()
    path = Path(measure.profile)
    content = _read(path)
    own = model_hash(subject.model, subject.path)
    if content["model"] != own:
        raise DataError(
            f"the profile is of another model (SHA-256 {content['model'][:12]}…, not {own[:12]}…)",
            where=str(path),
            hint="save one of this model with --save-profile",
        )
    now = versions()
    for name in _DECIDE:
        if content["versions"].get(name) != now[name]:
            raise DataError(
                f"the profile was saved with {name} {content['versions'].get(name)}, this is {now[name]}",
                where=str(path),
                hint=f"install that version of {name}, or save a new profile with --save-profile",
            )
    given = [
        Measurement(name, tuple(math.inf if number is None else number for number in numbers))
        for name, numbers in content["measurements"]
    ]
    return Measurements(given, content["target"])


def save(found: Measurements, measure: MeasureOptions, subject: Subject) -> None:
    """Write what was measured, whole or not at all, where `--save-profile` asks for it; raises OutputError."""
    if measure.save_profile is None:
        return
    path = Path(measure.save_profile)
    now = versions()
    content = {
        "format": FORMAT,
        "version": VERSION,
        "model": model_hash(subject.model, subject.path),
        "versions": {name: now[name] for name in _DECIDE},
        "target": resolve("auto").name,
        "measurements": [
            [each.name, [number if math.isfinite(number) else None for number in each.numbers]] for each in found.taken
        ],
    }
    outputs.write(path, lambda file: file.write(json.dumps(content, indent=1).encode()))


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("too large")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise DataError(
            f"cannot be read: {err.strerror or err}", where=str(path), hint="write one with --save-profile"
        ) from err
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(
            "is not a profile of onnxqp, or is damaged", where=str(path), hint="write one with --save-profile"
        )
    if content.get("version") != VERSION or not _well_formed(content):
        raise DataError(
            "the profile is damaged, or of another version of onnxqp",
            where=str(path),
            hint="write a new one with --save-profile",
        )
    return content


def _well_formed(content: dict[str, Any]) -> bool:
    found = content.get("measurements")
    return (
        isinstance(content.get("model"), str)
        and isinstance(content.get("versions"), dict)
        and content.get("target") in TARGETS
        and isinstance(found, list)
        and all(_is_measurement(each) for each in found)
    )


def _is_measurement(found: object) -> bool:
    """Whether it is a name and numbers that a run may have measured; None stands for infinite noise."""
    if not (isinstance(found, list) and len(found) == 2 and isinstance(found[0], str) and isinstance(found[1], list)):
        return False
    return all(
        found[0] == "noise" if number is None else isinstance(number, float | int) and 0 <= number < _MOST
        for number in found[1]
    )
