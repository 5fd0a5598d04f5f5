"""Arrays against the model's inputs: names, shapes, element types, finite values. Whatever fails is a DataError.

Safe casts happen by themselves: between floating-point types, and between integer types where no value changes.
`uint8` for a floating-point input is pixels of unknown scale: an error, unless a preprocessing says what to make of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeAlias

import numpy as np

from onnxqp.data.pixels import PixelInput
from onnxqp.errors import DataError, UnsupportedError
from onnxqp.specs import Array, Feed, InputSpec

Shape: TypeAlias = tuple[int | str | None, ...]


def is_float(dtype: np.dtype[np.generic]) -> bool:
    """Also bfloat16 and the 8-bit floats of ml_dtypes, which numpy does not count among its own."""
    return dtype.kind == "f" or dtype.name.startswith(("bfloat", "float"))


def is_string(dtype: np.dtype[np.generic]) -> bool:
    return dtype.kind in "OSUT"


def fits(shape: Sequence[int], declared: Shape | None) -> bool:
    """Whether an array of this shape may be fed: fixed dimensions equal, open ones anything."""
    if declared is None:
        return True
    return len(shape) == len(declared) and all(
        not isinstance(want, int) or want == got for got, want in zip(shape, declared, strict=True)
    )


def show_shape(shape: Shape | None) -> str:
    """`[N, 3, 224, 224]`, with `?` where nothing is known."""
    if shape is None:
        return "any shape"
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in shape) + "]"


@dataclass(frozen=True)
class Signature:
    """A model's inputs, and (when a preprocessing was asked for) the one that takes pixels."""

    inputs: tuple[InputSpec, ...]
    pixels: PixelInput | None = None

    def takes_pixels(self, name: str, dtype: np.dtype[np.generic]) -> bool:
        """Whether an array of this type for this input goes through the preprocessing first."""
        return self.pixels is not None and self.pixels.name == name and dtype == np.uint8

    def feed(self, values: Mapping[str, object], origin: str) -> Feed:
        """The feed made of these arrays, whole inputs each, in the model's order. DataError names `origin`."""
        check_names(values.keys(), self.inputs, origin, strict=True)
        feed: Feed = {}
        for spec in self.inputs:
            try:
                array = np.asarray(values[spec.name])
            except Exception as error:  # arrays of other libraries raise what they like in __array__
                raise DataError(
                    f"input {spec.name!r} is no array: {error}", where=origin, hint="yield numpy arrays"
                ) from error
            if self.pixels is not None and self.takes_pixels(spec.name, array.dtype):
                array = self.pixels.from_array(_without_batch(array), origin)
            feed[spec.name] = conform(array, spec, origin)
        return feed


def _without_batch(array: Array) -> Array:
    return array[0] if array.ndim == 4 and array.shape[0] == 1 else array


def check_names(names: object, inputs: Sequence[InputSpec], origin: str, *, strict: bool) -> list[str]:
    """Every input must have its array. Names that are no inputs: an error if `strict`, else returned."""
    found = [str(name) for name in names]  # type: ignore[attr-defined]
    wanted = [spec.name for spec in inputs]
    missing = [name for name in wanted if name not in found]
    extra = [name for name in found if name not in wanted]
    if missing:
        raise DataError(
            f"no array for input {missing[0]!r}: found {_names(found)}, expected {_names(wanted)}",
            where=origin,
            hint=_rename_hint(missing[0], extra),
        )
    if extra and strict:
        close = get_close_matches(extra[0], wanted, n=1)
        raise DataError(
            f"{extra[0]!r} is no input of the model: expected {_names(wanted)}",
            where=origin,
            hint=f"did you mean {close[0]!r}?"
            if close
            else "leave it out; a label goes beside the dict: (dict, label)",
        )
    return extra


def _names(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names) or "nothing"


def _rename_hint(missing: str, extra: Sequence[str]) -> str:
    if len(extra) == 1:
        return f"if {extra[0]!r} holds it, rename it to {missing!r}"
    return "arrays are matched by name; `onnxqp inspect` lists the model's inputs"


def conform(array: Array, spec: InputSpec, origin: str) -> Array:
    """One whole input in the element type that the model takes. DataError where shape, type or values do not fit."""
    if not fits(array.shape, spec.shape):
        if spec.shape == () and array.size == 1:  # a scalar that was kept as an array of one element
            array = array.reshape(())
        else:
            raise DataError(
                f"input {spec.name!r}: found shape {show_shape(array.shape)}, expected {show_shape(spec.shape)}",
                where=origin,
                hint=shape_hint(array.shape, spec.shape),
            )
    array = cast_array(array, spec, origin)
    check_finite(array, spec.name, origin)
    return array


def shape_hint(found: Sequence[int], declared: Shape | None) -> str:
    """What is likely the matter with a shape that does not fit."""
    declared = declared or ()
    if len(found) == len(declared) == 4:
        if fits((found[0], found[3], found[1], found[2]), declared):
            return "the array looks like NHWC, the model takes NCHW: transpose it with (0, 3, 1, 2)"
        if fits((found[0], found[2], found[3], found[1]), declared):
            return "the array looks like NCHW, the model takes NHWC: transpose it with (0, 2, 3, 1)"
    if fits((1, *found), declared):
        return "the batch axis is missing: add a leading axis of 1 (array[None])"
    batch = declared[0] if declared else None
    if isinstance(batch, int) and len(found) == len(declared) and fits(found[1:], declared[1:]):
        return f"the model's batch is fixed at {batch}: give {batch} rows per sample"
    return "numbers must match; names and ? stand for any size"


def no_array(spec: InputSpec) -> UnsupportedError:
    """What is said of an input that no array can feed."""
    return UnsupportedError(
        f"input {spec.name!r} is nothing that numpy holds (as a sequence or bfloat16), so nothing can feed it",
        hint="models with such inputs can be inspected, not measured; bfloat16 can stand behind a Cast from float32",
    )


def cast_array(array: Array, spec: InputSpec, origin: str) -> Array:
    """The array in the input's element type, where no information is lost that matters."""
    want, have = spec.dtype, array.dtype
    if want is None:
        raise no_array(spec)
    if have == want:
        return array
    if is_string(want) and is_string(have):
        return array.astype(want)
    if is_float(want) and is_float(have):
        with np.errstate(over="ignore"):  # an overflow becomes infinite, which check_finite tells
            return array.astype(want)
    if want.kind in "iu" and have.kind in "iu":
        cast = array.astype(want)
        if np.can_cast(have, want) or np.array_equal(cast, array):
            return cast
        raise DataError(
            f"input {spec.name!r}: values {array.min()}..{array.max()} do not fit {want.name}",
            where=origin,
            hint=f"the model takes {want.name}",
        )
    raise DataError(
        f"input {spec.name!r}: found {have.name}, expected {want.name}", where=origin, hint=_dtype_hint(have, want)
    )


def _dtype_hint(have: np.dtype[np.generic], want: np.dtype[np.generic]) -> str:
    if have == np.uint8 and is_float(want):
        return "pixels need a scale: give --preprocess (imagenet, unit, raw, …), or save the array as prepared floats"
    return f"convert it yourself (array.astype({want.name!r})) if that is what the model expects"


def check_finite(array: Array, name: str, origin: str) -> None:
    """NaN and infinities are refused; only a mask may hold minus infinity, as additive attention masks do."""
    if not is_float(array.dtype):
        return
    finite = np.isfinite(array)
    if finite.all():
        return
    if "mask" in name.lower():
        finite |= array == -np.inf
    bad = int(finite.size - np.count_nonzero(finite))
    if bad:
        raise DataError(
            f"input {name!r}: {bad} of {array.size} values are NaN or infinite",
            where=origin,
            hint="remove the sample, or repair how it is prepared",
        )
