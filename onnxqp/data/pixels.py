"""Pictures to inputs: the arithmetic behind a `Preprocessing`, for image files and for `uint8` arrays.

Pillow is imported when the first picture is met.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxqp.data.files import require_file
from onnxqp.data.preprocess import PRESETS, Preprocessing, Size
from onnxqp.errors import DataError, UsageError
from onnxqp.specs import Array, InputSpec

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels: TypeAlias = npt.NDArray[np.uint8]

MAX_PIXELS = 64_000_000
# Named, so that no other decoder of pillow (EPS starts Ghostscript) ever sees a file.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


@dataclass(frozen=True)
class Layout:
    """Where an image input keeps its channels, rows and columns. Axes count without the batch axis."""

    channels: int
    height: int | None
    width: int | None
    channel_axis: int | None  # 0 (CHW), -1 (HWC), or None: there is no channel axis (grey, HW)
    batch: bool


def image_layout(spec: InputSpec, asked: str = "auto") -> Layout | None:
    """How this input holds a picture, or None if it cannot.

    [N, C, H, W], [N, H, W, C], [C, H, W], [H, W, C] or [N, H, W]; N is 1 or open, C is 1 or 3. An open C counts as 3,
    on the axis that `asked` ("NCHW", "NHWC") says, axis 1 with "auto".
    """
    if spec.shape is None or len(spec.shape) not in (3, 4):
        return None
    batch = len(spec.shape) == 4 or not isinstance(spec.shape[0], int)
    if batch and isinstance(spec.shape[0], int) and spec.shape[0] != 1:
        return None  # a fixed batch of several pictures
    dims = [dim if isinstance(dim, int) else None for dim in spec.shape]
    inner = dims[1:] if batch else dims
    if len(inner) == 2:
        return Layout(1, inner[0], inner[1], None, batch)
    first, last = inner[0] in (1, 3), inner[2] in (1, 3)
    if asked == "NHWC" or (asked == "auto" and last and not first):
        return Layout(inner[2] or 3, inner[0], inner[1], -1, batch) if inner[2] in (1, 3, None) else None
    return Layout(inner[0] or 3, inner[1], inner[2], 0, batch) if inner[0] in (1, 3, None) else None


@dataclass(frozen=True)
class PixelInput:
    """The input that takes pictures, with the preprocessing already fitted to its size."""

    name: str
    dtype: np.dtype[np.generic]
    layout: Layout
    preprocessing: Preprocessing
    note: str | None = None  # a disagreement worth a warning

    @classmethod
    def of(cls, inputs: Sequence[InputSpec], preprocessing: Preprocessing | None, *, alone: bool) -> PixelInput:
        """The image input among these; `alone`: the model must have no other. Without a preprocessing: the usual one.

        DataError if no input (or more than one) can take a picture, UsageError if the preprocessing does not fit it.
        """
        asked = preprocessing.layout if preprocessing else "auto"
        found = [(spec, layout) for spec in inputs if (layout := image_layout(spec, asked)) and spec.dtype is not None]
        if len(found) != 1 or (alone and len(inputs) != 1):
            shapes = ", ".join(f"{spec.name} {list(spec.shape or ())}" for spec in inputs)
            raise DataError(
                f"pictures need one image input of batch 1, the model has: {shapes or 'no inputs'}",
                hint="give arrays by input name (.npz), or a hook (file.py:function)",
            )
        spec, layout = found[0]
        assert spec.dtype is not None
        integer = spec.dtype.kind in "iu"
        chosen = preprocessing or PRESETS["raw" if integer else "imagenet" if layout.channels == 3 else "unit"]
        if preprocessing is None and layout.channels == 1:
            chosen = _grey(chosen)
        _check(chosen, layout, spec, integer)
        fitted = chosen.fitted((layout.height, layout.width))
        note = None
        if chosen.name not in PRESETS and chosen.size not in (None, fitted.size):
            note = (
                f"the preprocessing ({chosen.name}) is for {chosen.size[0]}x{chosen.size[1]}, input {spec.name!r} "
                f"takes {layout.height}x{layout.width}: its sizes were scaled in proportion"
            )
        return cls(spec.name, spec.dtype, layout, _grey(fitted) if layout.channels == 1 else fitted, note)

    def from_file(self, path: Path) -> Array:
        """The input that this image file becomes, whole, with its batch axis if the model has one."""
        return self._finish(read_pixels(path, self.preprocessing, grey=self.layout.channels == 1))

    def from_array(self, pixels: Array, origin: str) -> Array:
        """The input that one `uint8` picture becomes: [C, H, W], [H, W, C] or, of one channel, [H, W]."""
        from PIL import Image

        channels, values = self.layout.channels, np.asarray(pixels, dtype=np.uint8)
        if values.ndim == 2 and channels == 1:
            values = values[..., None]
        elif values.ndim == 3 and self._channels_first(values.shape):
            values = np.moveaxis(values, 0, -1)
        if values.ndim != 3 or values.shape[-1] != channels:
            raise DataError(
                f"input {self.name!r}: found uint8 pixels of shape {list(pixels.shape)}, expected a picture of "
                f"{channels} channel{'s' * (channels > 1)}",
                where=origin,
                hint="one picture per row: [C, H, W] or [H, W, C]",
            )
        size = self.preprocessing.size
        if size is None or values.shape[:2] == size:
            return self._finish(values)
        picture = Image.fromarray(np.ascontiguousarray(values[..., 0] if channels == 1 else values))
        return self._finish(_pixels(fit(picture, self.preprocessing, origin)))

    def _channels_first(self, shape: Sequence[int]) -> bool:
        first, last = shape[0] == self.layout.channels, shape[-1] == self.layout.channels
        return first and (not last or self.layout.channel_axis == 0)

    def _finish(self, pixels: Pixels) -> Array:
        """Pixels [H, W, C] in RGB order to the input: colours, scale, layout, batch axis, element type."""
        rules = self.preprocessing
        values = pixels[..., ::-1] if rules.colour == "BGR" else pixels
        if self.dtype.kind in "iu":
            scaled: Array = values.astype(self.dtype)
        else:
            std = np.asarray(rules.std, dtype=np.float64)
            factor, offset = (rules.rescale / std).astype(np.float32), (np.asarray(rules.mean) / std).astype(np.float32)
            scaled = (values.astype(np.float32) * factor - offset).astype(self.dtype)
        if self.layout.channel_axis is None:
            scaled = scaled[..., 0]
        elif self.layout.channel_axis == 0:
            scaled = np.moveaxis(scaled, -1, 0)
        return np.ascontiguousarray(scaled[None] if self.layout.batch else scaled)


def _grey(rules: Preprocessing) -> Preprocessing:
    return replace(rules, colour="L")


def _check(rules: Preprocessing, layout: Layout, spec: InputSpec, integer: bool) -> None:
    if integer and not (rules.keeps_pixels and spec.dtype == np.uint8):
        raise UsageError(
            f"preprocessing {rules.name!r} gives fractions, input {spec.name!r} takes {spec.dtype}",
            hint="pixels go unchanged into a uint8 input: --preprocess raw; for other types prepare arrays (.npz)",
        )
    needs = max(len(rules.mean), len(rules.std), 3 if rules.colour == "BGR" else 1)
    if needs == 3 and layout.channels == 1:
        raise UsageError(
            f"preprocessing {rules.name!r} is for 3 channels, input {spec.name!r} has 1",
            hint="--preprocess unit (0..1), raw (0..255) or mnist",
        )
    if rules.colour == "L" and layout.channels == 3:
        raise UsageError(
            f"preprocessing {rules.name!r} is for grey pictures, input {spec.name!r} has 3 channels",
            hint="choose a preset in colour: imagenet, unit, raw, …",
        )


# ---- image files -------------------------------------------------------------------------------------------


def read_pixels(path: Path, rules: Preprocessing, *, grey: bool) -> Pixels:
    """[H, W, C] of an image file after EXIF rotation, resize and crop; C is 3 (RGB) or 1. DataError if damaged."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    require_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what pillow remarks about odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise _too_large(str(path), f"{image.width}x{image.height} pixels")
                upright = ImageOps.exif_transpose(image)
                return _pixels(fit(_to_mode(upright, path, grey=grey), rules, str(path)))
    except DataError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_large(str(path), "far more pixels") from error
    except UnidentifiedImageError as error:
        raise DataError(
            "is no image that can be read", where=str(path), hint="remove it, or save it again as PNG or JPEG"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # decoders raise nearly anything (SyntaxError, struct.error, …) for damaged files
        raise DataError(
            f"the image is damaged or cut short: {error}", where=str(path), hint="remove it, or fetch it again"
        ) from error


def _too_large(origin: str, found: str) -> DataError:
    return DataError(
        f"the image has {found}; the limit is {MAX_PIXELS // 1_000_000} megapixels",
        where=origin,
        hint="scale it down before, the model sees a small version anyway",
    )


def _to_mode(image: Image, path: Path, *, grey: bool) -> Image:
    """RGB or grey (L) of 8 bits."""
    import PIL.Image

    if image.mode.startswith("I;16"):
        image = PIL.Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise DataError(
            f"pixels of 32 bits (mode {image.mode}) have no known scale",
            where=str(path),
            hint="save it with 8 or 16 bits",
        )
    if image.mode == "P":  # a palette with transparency: through RGBA, or pillow guesses
        image = image.convert("RGBA")
    return image.convert("L" if grey else "RGB")


def _pixels(image: Image) -> Pixels:
    values = np.asarray(image, dtype=np.uint8)
    return values[..., None] if values.ndim == 2 else values


def fit(image: Image, rules: Preprocessing, origin: str) -> Image:
    """Resized and cropped (or padded). A picture that already has the final size is left alone."""
    import PIL.Image

    if rules.size is not None and (image.height, image.width) == rules.size:
        return image
    method = PIL.Image.Resampling[rules.interpolation.upper()]
    if rules.pad is not None and isinstance(rules.resize, tuple):
        return _letterbox(image, rules.resize, rules.pad, method)
    if isinstance(rules.resize, int):
        height, width = _cover(image, rules.resize, rules.crop)
        if height * width > MAX_PIXELS:  # a strip: its longer side would explode
            raise _too_large(origin, f"{height}x{width} pixels once its shorter side is scaled to {rules.resize}")
        image = image.resize((width, height), method)
    elif rules.resize is not None:
        image = image.resize((rules.resize[1], rules.resize[0]), method)
    if rules.crop is None:
        return image
    height, width = rules.crop
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))  # beyond the border: black, as torchvision pads


def _cover(image: Image, shorter: int, crop: Size | None) -> Size:
    """Height and width with the shorter side as asked (the longer rounded down, as torchvision does), or larger where a
    crop that is not square would reach beyond the picture."""
    height, width = image.height, image.width
    flat = height <= width
    size = (shorter, int(shorter * width / height)) if flat else (int(shorter * height / width), shorter)
    if crop is None or (size[0] >= crop[0] and size[1] >= crop[1]):
        return size
    scale = max(crop[0] / height, crop[1] / width)
    return (max(crop[0], round(height * scale)), max(crop[1], round(width * scale)))


def _letterbox(image: Image, size: Size, grey: int, method: int) -> Image:
    import PIL.Image

    scale = min(size[0] / image.height, size[1] / image.width)
    width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    small = image.resize((width, height), PIL.Image.Resampling(method))
    canvas = PIL.Image.new(image.mode, (size[1], size[0]), grey if image.mode == "L" else (grey, grey, grey))
    canvas.paste(small, ((size[1] - width) // 2, (size[0] - height) // 2))
    return canvas
