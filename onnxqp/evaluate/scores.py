"""Reading class scores out of a model's outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from onnxqp.errors import UsageError
from onnxqp.specs import Array, InputSpec

Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
UNDEFINED = -1  # the prediction of a sample whose scores hold a NaN


def class_output(outputs: Mapping[str, Array], output_name: str | None) -> str:
    """The name of the output that holds class scores: the one asked for, else the first.

    Raises `UsageError` when the model has no output of that name.
    """
    if output_name is None:
        return next(iter(outputs))
    if output_name not in outputs:
        raise UsageError(
            f"the model has no output {output_name!r}",
            hint=f"--output-name takes one of: {', '.join(outputs)}",
        )
    return output_name


def class_scores(output: object, samples: int, *, certain: bool) -> Doubles | None:
    """The output as float64 scores of shape (samples, classes), or None when it does not look like class scores.

    Scores may come as (N, C), as (C,) for one sample, or with axes of size 1: (N, C, 1, 1), (N, 1, 1, C). `certain`
    says that the user named this output or gave labels for it; without that, only floats count, and no array of rank 3,
    which may as well be one step of a sequence, or one number for each of many boxes.
    """
    array = output
    if not isinstance(array, np.ndarray) or not (certain or is_float(array.dtype)):
        return None  # a sequence or a map is no array
    if array.ndim == 1:
        return array[None].astype(np.float64) if _are_classes(array.shape[0], samples) else None
    if array.ndim < 2 or array.shape[0] != samples:
        return None
    wide = [axis for axis in range(1, array.ndim) if array.shape[axis] != 1]
    if len(wide) != 1 or array.size == 0:
        return None
    if not certain and array.ndim == 3:
        return None
    return array.reshape(samples, -1).astype(np.float64)


def are_directions(scores: Doubles) -> bool:
    """Whether rows are embeddings scaled to length 1, whose largest number is no class."""
    return bool((scores < 0).any() and np.allclose(np.linalg.norm(scores, axis=1), 1, atol=1e-3))


def may_hold_classes(outputs: Sequence[InputSpec], output_name: str | None) -> bool | None:
    """The same question asked of the declared outputs, before anything runs. None: the shape does not say."""
    by_name = {spec.name: spec for spec in outputs}
    if not by_name:
        return False
    spec = by_name.get(output_name) if output_name is not None else outputs[0]
    if spec is None or spec.shape is None or spec.dtype is None:
        return False if spec is None else None
    if output_name is None and not is_float(spec.dtype):
        return False
    if len(spec.shape) < 2:
        return None if spec.shape else False
    rest = spec.shape[1:]
    if any(not isinstance(size, int) for size in rest):
        return None
    wide = [axis for axis, size in enumerate(rest, start=1) if size != 1]
    return len(wide) == 1 and not (output_name is None and len(spec.shape) == 3)


def predictions(scores: Doubles) -> Indices:
    """Index of the highest score per row, the first among equals; `UNDEFINED` where a score is NaN."""
    best: Indices = np.where(np.isnan(scores).any(axis=1), UNDEFINED, scores.argmax(axis=1))
    return best


def ranks(scores: Doubles, labels: Indices) -> Indices:
    """How many classes stand before the labelled one, per row: 0 is a top-1 hit.

    Among equal scores the lower index stands first, as `argmax` has it, so that a model which scores all classes
    alike earns nothing by it. A row with a NaN ranks its label last.
    """
    own = scores[np.arange(len(scores)), labels][:, None]
    earlier = np.arange(scores.shape[1])[None, :] < labels[:, None]
    before = (scores > own) | ((scores == own) & earlier)
    places: Indices = np.where(np.isnan(scores).any(axis=1), scores.shape[1], before.sum(axis=1))
    return places


def is_float(dtype: np.dtype[np.generic]) -> bool:
    """Whether the element type is a float, those that numpy itself does not know (bfloat16, float8) included."""
    return dtype.kind == "f" or "float" in dtype.name


def _are_classes(length: int, samples: int) -> bool:
    """A vector of as many numbers as samples is one number per sample, not the scores of one sample."""
    return length >= 2 and (samples == 1 or length != samples)
