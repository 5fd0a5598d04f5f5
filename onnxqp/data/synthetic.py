"""Inputs made from the model's signature alone, for use without data.

Pictures imitate two things that convolutions respond to in photographs: textures whose amplitude spectrum falls as 1/f
(Field 1987, "Relations between the statistics of natural images and the response properties of cortical cells"), and
things that hide each other, drawn as ellipses of all sizes (the dead leaves model; Lee, Mumford and Huang 2001,
"Occlusion models for natural images"). Colour channels are correlated.

How far the output ranges of convolutions then lie from those on photographs, as the mean of |log2 ratio| over a network
(in brackets: without the ellipses): SqueezeNet 1.1 0.30 (0.57), a segmentation network 0.25 (0.38), MobileNetV1 0.13
(0.18), ResNet-20 0.28 (0.28), a 96-pixel person detector 0.57 (0.47). Most are too small: real data is better.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from onnxqp.data.check import is_float, is_string, no_array, show_shape
from onnxqp.data.pixels import Layout, image_layout
from onnxqp.data.samples import SampleSet
from onnxqp.errors import ResourceError, UnsupportedError, UsageError
from onnxqp.specs import Array, Feed, InputSpec

Doubles: TypeAlias = npt.NDArray[np.float64]

_IMAGE_SIDE = 224
_SEQUENCE_LENGTH = 16
_MOST_ELEMENTS = 1 << 28  # of one input: made in double precision, that is 2 GB
_SMALL_LIMIT = 8  # integers of which nothing is known
_SAMPLE_RATES = {"sr", "sample_rate", "sampling_rate"}
_LENGTH_WORDS = re.compile(r"seq|len|time|step|frame|token|word|past|sample|width|height")
_RANGE = 2.5  # standardised pictures lie within +-2.5, as pixels of 0..255 do after the usual normalisation
_COLOUR_CORRELATION = 0.8
_LEAVES, _SMALLEST_LEAF, _LARGEST_LEAF = 100, 0.03, 0.5  # how many; radii as shares of the shorter side


@dataclass(frozen=True)
class SyntheticSource:
    """Samples made when they are read; number i is the same on every pass."""

    inputs: tuple[InputSpec, ...]
    shapes: Mapping[str, tuple[int, ...]]
    count: int
    seed: int
    limits: Mapping[str, int]
    ranges: Mapping[str, tuple[float, float]]
    labels: None = None
    files: None = None

    def __len__(self) -> int:
        return self.count

    def read(self, indices: Sequence[int]) -> Iterator[tuple[Feed, str]]:
        for index in indices:
            feed: Feed = {}
            for place, spec in enumerate(self.inputs):
                random = np.random.default_rng([self.seed, index, place])
                feed[spec.name] = self._make(spec, random)
            yield feed, f"synthetic[{index}]"

    def _make(self, spec: InputSpec, random: np.random.Generator) -> Array:
        shape, dtype, name = self.shapes[spec.name], spec.dtype, spec.name.lower()
        assert dtype is not None
        if is_string(dtype):
            return np.full(shape, "text", dtype=dtype if dtype.kind == "O" else object).astype(dtype)
        if "mask" in name:
            return np.ones(shape, dtype=dtype)
        picture = _is_picture(spec, shape)
        if is_float(dtype):
            values = _pictures(shape, spec, random) if picture else random.standard_normal(shape)
            return _to_range(values, self.ranges.get(spec.name)).astype(dtype)
        if dtype.kind == "c":
            return (random.standard_normal(shape) + 1j * random.standard_normal(shape)).astype(dtype)
        if dtype.kind == "b":
            return random.integers(0, 2, shape).astype(dtype)
        if picture and dtype == np.uint8 and spec.name not in self.limits:
            return np.rint(_to_range(_pictures(shape, spec, random), (0.0, 255.0))).astype(dtype)
        return _integers(shape, dtype, name, self.limits.get(spec.name), random)


def _integers(
    shape: tuple[int, ...], dtype: np.dtype[np.generic], name: str, limit: int | None, random: np.random.Generator
) -> Array:
    """In [0, limit); without one: the whole of an 8-bit type, 1 for single numbers (lengths, flags), else small."""
    if name in _SAMPLE_RATES:
        return np.full(shape, 16000, dtype=dtype)
    if "position" in name and shape:
        return np.broadcast_to(np.arange(shape[-1]) % (limit or shape[-1]), shape).astype(dtype)
    if limit is not None:
        return random.integers(0, max(1, limit), shape).astype(dtype)
    if dtype.itemsize == 1:
        info = np.iinfo(np.int8 if dtype.kind == "i" else np.uint8)
        return random.integers(info.min, info.max, shape, endpoint=True).astype(dtype)
    if int(np.prod(shape)) == 1:
        return np.ones(shape, dtype=dtype)
    return random.integers(0, _SMALL_LIMIT, shape).astype(dtype)


# ---- pictures ----------------------------------------------------------------------------------------------


def _is_picture(spec: InputSpec, shape: tuple[int, ...]) -> bool:
    """[N, C, H, W] or [N, H, W, C] with one or three channels and sides that a picture may have."""
    layout = _layout(spec)
    return layout is not None and min(shape[2:] if layout.channel_axis == 0 else shape[1:3]) >= 8


def _layout(spec: InputSpec) -> Layout | None:
    """How a batch of pictures lies in this input, whatever its leading axis."""
    if spec.shape is None or len(spec.shape) != 4:
        return None
    return image_layout(replace(spec, shape=(1, *spec.shape[1:])))


def _pictures(shape: tuple[int, ...], spec: InputSpec, random: np.random.Generator) -> Doubles:
    layout = _layout(spec)
    assert layout is not None
    first = layout.channel_axis == 0
    channels, height, width = (shape[1], shape[2], shape[3]) if first else (shape[3], shape[1], shape[2])
    pictures = np.stack([_picture(channels, height, width, random) for _ in range(shape[0])])
    return pictures if first else np.moveaxis(pictures, 1, -1)


def _picture(channels: int, height: int, width: int, random: np.random.Generator) -> Doubles:
    """One picture [C, H, W], standardised over many: mean about 0, variance about 1, within +-2.5."""
    texture = _colours(random, channels, lambda: _noise(height, width, random))
    picture = texture.copy()
    side = min(height, width)
    share = random.uniform(size=_LEAVES)
    radii = side / np.sqrt((1 - share) / _SMALLEST_LEAF**2 + share / _LARGEST_LEAF**2)  # their density falls as r^-3
    for radius in -np.sort(-radii):  # small ones lie in front
        rows, columns, inside = _leaf(float(radius), height, width, random)
        colour = _colours(random, channels, lambda: random.standard_normal((1, 1)))
        rough = 0.4 * np.exp(0.5 * random.standard_normal())
        part = picture[:, rows, columns]
        np.copyto(part, colour + rough * texture[:, rows, columns], where=inside)
    clipped: Doubles = np.clip(0.45 * random.standard_normal() + 0.9 * picture, -_RANGE, _RANGE)
    return clipped


def _colours(random: np.random.Generator, channels: int, plane: Callable[[], Doubles]) -> Doubles:
    """Planes [C, H, W] of variance 1 that share most of their content."""
    if channels == 1:
        return plane()[None]
    common = np.sqrt(_COLOUR_CORRELATION) * plane()
    return np.stack([common + np.sqrt(1 - _COLOUR_CORRELATION) * plane() for _ in range(channels)])


def _leaf(
    radius: float, height: int, width: int, random: np.random.Generator
) -> tuple[slice, slice, npt.NDArray[np.bool_]]:
    """An ellipse anywhere in the picture: the rows and columns around it, and which of their pixels lie inside."""
    y, x = random.uniform(0, height), random.uniform(0, width)
    angle, aspect = random.uniform(0, np.pi), random.uniform(0.4, 1.0)
    rows = slice(max(0, int(y - radius)), min(height, int(y + radius) + 2))
    columns = slice(max(0, int(x - radius)), min(width, int(x + radius) + 2))
    dy, dx = np.arange(rows.start, rows.stop)[:, None] - y, np.arange(columns.start, columns.stop)[None] - x
    along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    return rows, columns, np.hypot(along, across / aspect) < radius


def _noise(height: int, width: int, random: np.random.Generator) -> Doubles:
    """Noise [H, W] whose amplitude spectrum falls as 1/f, mean 0, variance 1."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf  # no constant part
    noise = random.standard_normal(frequency.shape) + 1j * random.standard_normal(frequency.shape)
    plane = np.fft.irfft2(noise / frequency, s=(height, width))
    standardised: Doubles = (plane - plane.mean()) / max(float(plane.std()), 1e-12)
    return standardised


def _to_range(values: Doubles, limits: tuple[float, float] | None) -> Doubles:
    """Standardised values as they are, or so that +-2.5 standard deviations fill the limits."""
    if limits is None:
        return values
    low, high = limits
    return low + (np.clip(values, -_RANGE, _RANGE) + _RANGE) / (2 * _RANGE) * (high - low)


# ---- shapes ------------------------------------------------------------------------------------------------


@dataclass
class _Symbols:
    """Sizes of symbolic dimensions: a name means the same size wherever it stands."""

    sizes: dict[str, int] = field(default_factory=dict)

    def resolve(self, dim: int | str | None, axis: int, spec: InputSpec) -> int:
        if isinstance(dim, int) and dim >= 0:
            return dim
        if not isinstance(dim, str):
            return _default_size(dim, axis, spec)
        if dim not in self.sizes:
            parts = [part.strip() for part in dim.split("+")]
            known = [int(part) if part.isdigit() else self.sizes.get(part) for part in parts]
            terms = [size for size in known if size is not None]
            self.sizes[dim] = sum(terms) if len(terms) == len(parts) > 1 else _default_size(dim, axis, spec)
        return self.sizes[dim]


def _default_size(dim: int | str | None, axis: int, spec: InputSpec) -> int:
    name = dim.lower() if isinstance(dim, str) else ""
    if axis == 0 and not _LENGTH_WORDS.search(name.replace("batch", "")):
        return 1
    layout = _layout(spec)
    if layout is not None:
        if axis == (1 if layout.channel_axis == 0 else 3):
            return layout.channels
        return _IMAGE_SIDE
    return _SEQUENCE_LENGTH


def resolve_shapes(inputs: Sequence[InputSpec], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """A fixed shape for every input: as asked in `shapes`, else symbolic dimensions at defaults.

    A leading axis is 1, sides of pictures 224, their channels 3, everything else 16. A size that `shapes` fixes for a
    symbolic name holds for that name in all inputs; "a + b" is the sum where both are known. UsageError for shapes
    that contradict the model, UnsupportedError for an input of unknown rank.
    """
    names = [spec.name for spec in inputs]
    unknown = [name for name in shapes if name not in names]
    if unknown:
        raise UsageError(
            f"--shape: the model has no input {unknown[0]!r}", hint=f"its inputs: {', '.join(map(repr, names))}"
        )
    symbols = _Symbols()
    for spec in inputs:
        if spec.name in shapes:
            _learn(spec, shapes[spec.name], symbols)
    resolved = {}
    for spec in sorted(inputs, key=lambda spec: "+" in str(spec.shape)):  # sums last, when their terms are known
        if spec.name in shapes:
            resolved[spec.name] = tuple(shapes[spec.name])
        elif spec.shape is None:
            raise UnsupportedError(
                f"input {spec.name!r} declares no shape, so none can be made up",
                hint=f"give it with --shape {spec.name}:1,… or give --data",
            )
        else:
            resolved[spec.name] = tuple(symbols.resolve(dim, axis, spec) for axis, dim in enumerate(spec.shape))
    return resolved


def _learn(spec: InputSpec, shape: tuple[int, ...], symbols: _Symbols) -> None:
    asked = f"--shape {spec.name}:{','.join(map(str, shape))}"
    if any(size < 0 for size in shape):
        raise UsageError(f"{asked}: a negative size", hint="sizes are 0 or more")
    if spec.shape is None:
        return
    if len(shape) != len(spec.shape):
        raise UsageError(f"{asked}: the model declares {show_shape(spec.shape)}", hint=f"give {len(spec.shape)} sizes")
    for dim, size in zip(spec.shape, shape, strict=True):
        if isinstance(dim, int) and dim != size:
            raise UsageError(
                f"{asked}: the model declares {show_shape(spec.shape)}", hint="only symbolic sizes can be chosen"
            )
        if isinstance(dim, str) and symbols.sizes.setdefault(dim, size) != size:
            raise UsageError(f"{asked}: {dim!r} is {symbols.sizes[dim]} elsewhere", hint="one name stands for one size")


def synthesize(
    inputs: Sequence[InputSpec],
    *,
    samples: int,
    seed: int,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    limits: Mapping[str, int] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> SampleSet:
    """Seeded inputs from the signature.

    Pictures: natural-image-like noise of mean 0 and variance 1, or within `ranges[name]`. Other floats: normal noise.
    Integers: uniform in [0, limits[name]) (an embedding's rows), else small. Masks: ones. `shapes` fixes symbolic
    shapes (`resolve_shapes`). UnsupportedError for inputs that are no tensors, ResourceError for one of more than 2^28
    elements.
    """
    for spec in inputs:
        if spec.dtype is None:
            raise no_array(spec)
    if samples < 1:
        raise UsageError("--samples must be at least 1", hint="256 is the default")
    resolved = resolve_shapes(inputs, shapes or {})
    for name, shape in resolved.items():
        if math.prod(shape) > _MOST_ELEMENTS:
            raise ResourceError(
                f"input {name!r} of shape {show_shape(shape)} is too large to make up",
                hint=f"fix smaller sizes with --shape {name}:1,… or give --data",
            )
    source = SyntheticSource(tuple(inputs), resolved, samples, seed, dict(limits or {}), dict(ranges or {}))
    return SampleSet(
        source,
        tuple(range(samples)),
        tuple(inputs),
        "synthetic",
        f"{samples} synthetic inputs",
        ("inputs are synthetic (no --data): ranges and fidelity on real inputs may differ; give --data to be sure",),
        pictures=all(_is_picture(spec, resolved[spec.name]) for spec in inputs),
    )
