"""The data of the sample models: scikit-learn's handwritten digits, rendered in colour before clutter.

Each of the 1797 scanned digits (8x8 pixels, UCI "Optical Recognition of Handwritten Digits") belongs to one part only
(train, calib, eval, images), so that no stroke seen in training or calibration is ever evaluated. A render enlarges one
digit, turns, shears and moves it, paints it over a darker, two-coloured background, puts fragments of other digits of
the same part around it, and adds noise. Pixels have 32 levels (multiples of 8), which keeps the committed files small.

Needs numpy, scipy, scikit-learn and Pillow; no deep learning framework.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

SIDE = 32  # pixels
CLASSES = 10
LEVELS = 8  # distance of two neighbouring pixel values
SOURCES = {"eval": 500, "calib": 128, "images": 100}  # scanned digits per part; train has all the others
FORKS = {"train": 1, "eval": 2, "calib": 3, "images": 4}  # one random stream per part

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Scanned digits of one part: `strokes` [n, 44, 44] in 0..1, `labels` [n]."""

    name: str
    strokes: FloatArray
    labels: IntArray


def load_parts(seed: int) -> dict[str, Part]:
    """Enlarge the 1797 scans and deal them out to the parts, by class, so that every part is balanced."""
    from scipy import ndimage
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    padded = np.pad(scans.reshape(-1, 8, 8) / 16.0, ((0, 0), (1, 1), (1, 1)))
    smooth = np.stack([ndimage.zoom(scan, 4.4, order=3) for scan in padded])
    strokes = _smoothstep(smooth, 0.2, 0.65).astype(np.float32)

    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(_rank_within_class(labels[order]), kind="stable")]  # 0,1,...,9 in turn
    parts, start = {}, 0
    for name, count in [*SOURCES.items(), ("train", len(order) - sum(SOURCES.values()))]:
        chosen = order[start : start + count]
        parts[name] = Part(name, strokes[chosen], labels[chosen].astype(np.int64))
        start += count
    return parts


def _rank_within_class(labels: IntArray) -> IntArray:
    ranks = np.empty(len(labels), np.int64)
    for label in range(CLASSES):
        members = np.flatnonzero(labels == label)
        ranks[members] = np.arange(len(members))
    return ranks


def _smoothstep(values: npt.NDArray[np.floating], low: float, high: float) -> npt.NDArray[np.floating]:
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def stream(part: Part, seed: int) -> np.random.Generator:
    """The random numbers of one part; two parts never share a stream."""
    return np.random.default_rng([seed, FORKS[part.name]])


def render(part: Part, count: int, random: np.random.Generator) -> tuple[ByteArray, IntArray]:
    """Render `count` images [count, 32, 32, 3] and their labels; each scan occurs equally often, but for one."""
    chosen = np.resize(random.permutation(len(part.labels)), count)
    background, luma = _background(count, random)
    image = background
    for _ in range(3):
        fragment = part.strokes[random.integers(len(part.labels), size=count)]
        image = _paint(image, _fragment(fragment, random), random.uniform(0, 1, (count, 1, 1, 3)))
    image = _paint(image, _central(part.strokes[chosen], random), _ink(luma, random))
    image = image + random.normal(0, 1, image.shape) * random.uniform(0.02, 0.08, (count, 1, 1, 1))
    pixels = np.clip(np.rint(image * 255 / LEVELS), 0, 255 // LEVELS) * LEVELS
    return pixels.astype(np.uint8), part.labels[chosen]


def _background(count: int, random: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """A soft slope between two near colours [count, 32, 32, 3], and its mean luma [count, 1, 1, 1]."""
    base = random.uniform(0, 0.6, (count, 1, 1, 3))
    other = np.clip(base + random.uniform(-0.25, 0.25, base.shape), 0, 1)
    angle, phase = random.uniform(0, 2 * np.pi, (2, count, 1, 1))
    period = random.uniform(16, 64, (count, 1, 1))
    y, x = np.mgrid[:SIDE, :SIDE]
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * (np.cos(angle) * x + np.sin(angle) * y) / period + phase)
    image = base + (other - base) * wave[..., None]
    return image.astype(np.float32), _luma(image).mean((1, 2), keepdims=True).astype(np.float32)


def _luma(image: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return image @ np.array([[0.299], [0.587], [0.114]])


def _ink(luma: FloatArray, random: np.random.Generator) -> FloatArray:
    """A colour that can be told from the background: its luma is 0.25 to 0.55 above."""
    tint = random.uniform(-0.15, 0.15, (len(luma), 1, 1, 3))
    return np.clip(luma + random.uniform(0.25, 0.55, luma.shape) + tint - _luma(tint), 0, 1).astype(np.float32)


def _paint(image: FloatArray, cover: FloatArray, colour: npt.NDArray[np.floating]) -> FloatArray:
    return (image + cover[..., None] * (colour - image)).astype(np.float32)


def _central(strokes: FloatArray, random: np.random.Generator) -> FloatArray:
    count = len(strokes)
    centre = SIDE / 2 + random.uniform(-4, 4, (count, 2))
    return _warp(strokes, centre, random.uniform(18, 30, count), random.uniform(-25, 25, count), random)


def _fragment(strokes: FloatArray, random: np.random.Generator) -> FloatArray:
    """A small digit around the border, mostly cut off by it."""
    count = len(strokes)
    angle = random.uniform(0, 2 * np.pi, count)
    distance = random.uniform(14, 20, count)
    centre = SIDE / 2 + distance[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)
    return _warp(strokes, centre, random.uniform(10, 18, count), random.uniform(-180, 180, count), random)


def _warp(
    strokes: FloatArray,
    centre: npt.NDArray[np.floating],
    size: npt.NDArray[np.floating],
    degrees: npt.NDArray[np.floating],
    random: np.random.Generator,
) -> FloatArray:
    """Draw each stroke image at `centre` (row, column), `size` pixels high, turned and sheared; bilinear, 0 outside."""
    count, height, width = strokes.shape
    radians = np.deg2rad(degrees)[:, None, None]
    shear = random.uniform(-0.25, 0.25, (count, 1, 1))
    stretch = random.uniform(0.8, 1.2, (count, 1, 1))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    y, x = rows - centre[:, :1, None], columns - centre[:, 1:, None]
    v = (np.cos(radians) * y - np.sin(radians) * x) * height / size[:, None, None] + (height - 1) / 2
    u = np.sin(radians) * y + np.cos(radians) * x + shear * y
    u = u * stretch * width / size[:, None, None] + (width - 1) / 2
    v, u = np.clip(v, 0, height - 1.001), np.clip(u, 0, width - 1.001)  # the border of every scan is empty
    top, left = v.astype(np.int64), u.astype(np.int64)
    fv, fu, n = v - top, u - left, np.arange(count)[:, None, None]
    upper = strokes[n, top, left] * (1 - fu) + strokes[n, top, left + 1] * fu
    lower = strokes[n, top + 1, left] * (1 - fu) + strokes[n, top + 1, left + 1] * fu
    return (upper * (1 - fv) + lower * fv).astype(np.float32)


def to_input(pixels: ByteArray) -> FloatArray:
    """Pixels [n, 32, 32, 3] as the models' input [n, 3, 32, 32] in 0..1: preprocessing `unit`."""
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255)


def digests(pixels: ByteArray) -> set[str]:
    """One SHA-256 per image."""
    return {hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() for image in pixels}


def write_images(folder: Path, pixels: ByteArray, labels: IntArray) -> None:
    """Write `<folder>/<label>/<number>.png`."""
    from PIL import Image

    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        path = folder / str(label) / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, optimize=True)
