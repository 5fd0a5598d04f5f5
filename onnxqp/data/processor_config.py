"""`preprocessor_config.json`, as image processors of Hugging Face models write it, in its old and its new form.

New: `size` is {"height", "width"} or {"shortest_edge"}, and every step has a `do_…` switch. Old: `size` is a bare
number, and scaling by 1/255 went without saying. (transformers, `image_processing_*.py` and `feature_extraction_*.py`.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

from onnxqp.data.preprocess import Interpolation, Preprocessing, Size
from onnxqp.errors import UsageError

FILE_NAME = "preprocessor_config.json"
_MAX_BYTES = 1 << 20
_RESAMPLE: tuple[Interpolation, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # PIL's numbers
_SQUARE_THEN_CROP = ("DeiT", "Beit")  # their bare `size` stretches to a square, although a crop follows


def read_processor_config(path: Path) -> Preprocessing:
    """The preprocessing in this file, or in the file of that name in this folder. UsageError if there is none."""
    file = path / FILE_NAME if path.is_dir() else path
    try:
        if not file.is_file():
            raise UsageError(f"--preprocess: {file} is no file", hint=f"give a preset, or the path of a {FILE_NAME}")
        if file.stat().st_size > _MAX_BYTES:
            raise UsageError(f"--preprocess: {file} is larger than 1 MB", hint=f"is it really a {FILE_NAME}?")
        table = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--preprocess: {file} cannot be read: {error.strerror}", hint="check the path") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--preprocess: {file} is not JSON: {error}", hint=f"expected a {FILE_NAME}") from error
    if not isinstance(table, dict):
        raise UsageError(f"--preprocess: {file} holds no JSON object", hint=f"expected a {FILE_NAME}")
    return from_processor_config(table, name=file.name)


def from_processor_config(table: Mapping[str, object], *, name: str = FILE_NAME) -> Preprocessing:
    """The preprocessing that this table describes. UsageError for what is no image processor, or none we can follow."""
    if not {"size", "crop_size", "image_mean", "rescale_factor"} & table.keys():
        kind = table.get("feature_extractor_type") or table.get("processor_class") or "unknown"
        raise UsageError(
            f"{name} describes no image preprocessing (its type: {kind})",
            hint="for other inputs prepare arrays (.npz) or write a hook (file.py:function)",
        )
    resize, crop = _geometry(table, name)
    rescale, offset = _scale(table, name)
    mean = _numbers(table, "image_mean", name) if _does(table, "do_normalize", "image_mean") else (0.0,)
    std = _numbers(table, "image_std", name) if _does(table, "do_normalize", "image_mean") else (1.0,)
    resample = table.get("resample", 2)
    if not isinstance(resample, int) or not 0 <= resample < len(_RESAMPLE):
        raise UsageError(f"{name}: resample = {resample!r}", hint="one of PIL's filters, 0 to 5")
    return Preprocessing(
        name=name,
        resize=resize,
        crop=crop,
        interpolation=_RESAMPLE[resample],
        colour="BGR" if table.get("do_flip_channel_order") else "RGB",
        rescale=rescale,
        mean=tuple(value + offset for value in mean),
        std=std,
    )


def _does(table: Mapping[str, object], switch: str, evidence: str) -> bool:
    """A step's switch; where old files have none, the step is done when its numbers are there."""
    return bool(table.get(switch, evidence in table))


def _geometry(table: Mapping[str, object], name: str) -> tuple[int | Size | None, Size | None]:
    crops = _does(table, "do_center_crop", "crop_size")
    resize = _resize(table, crops, name) if _does(table, "do_resize", "size") else None
    if "crop_pct" in table and isinstance(resize, int):  # ConvNeXt: scale up, then crop; from 384 on only stretch
        share = table["crop_pct"]
        if not isinstance(share, int | float) or not 0 < share <= 1:
            raise UsageError(f"{name}: crop_pct = {share!r}", hint="a share in (0, 1]")
        return ((resize, resize), None) if resize >= 384 else (int(resize / share), (resize, resize))
    if not crops:
        return resize, None
    crop = table.get("crop_size", resize)
    if _is_side(crop):
        return resize, (crop, crop)
    sides = crop if isinstance(crop, tuple) else _height_width(crop)
    if sides is None:
        raise UsageError(f"{name}: crop_size = {crop!r}", hint='a number, or {"height": …, "width": …}')
    return resize, sides


def _resize(table: Mapping[str, object], crops: bool, name: str) -> int | Size:
    size = table.get("size")
    kind = str(table.get("image_processor_type") or table.get("feature_extractor_type") or "")
    if _is_side(size):
        square = not crops and "crop_pct" not in table
        return (size, size) if square or kind.startswith(_SQUARE_THEN_CROP) else size
    pair = _height_width(size)
    if pair is not None:
        return pair
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        edge = size["shortest_edge"]
        if _is_side(edge):
            return edge
    raise UsageError(
        f"{name}: size = {size!r} cannot be followed",
        hint="supported: a number, height and width, or shortest_edge; else prepare arrays (.npz) or write a hook",
    )


def _scale(table: Mapping[str, object], name: str) -> tuple[float, float]:
    """The factor on pixels, and what is subtracted after it (EfficientNet, ViViT: `rescale_offset`)."""
    if not table.get("do_rescale", True):
        return 1.0, 0.0
    factor = table.get("rescale_factor", 1 / 255)
    if not isinstance(factor, int | float) or isinstance(factor, bool) or not 0 < factor < 1e6:
        raise UsageError(f"{name}: rescale_factor = {factor!r}", hint="a positive number, usually 1/255")
    return float(factor), 1.0 if table.get("rescale_offset") or table.get("offset") else 0.0


def _numbers(table: Mapping[str, object], key: str, name: str) -> tuple[float, ...]:
    values = table.get(key)
    if isinstance(values, list) and len(values) in (1, 3) and all(isinstance(v, int | float) for v in values):
        return tuple(float(value) for value in values)
    raise UsageError(f"{name}: {key} = {values!r}", hint="a list of 3 numbers")


def _height_width(size: object) -> Size | None:
    if not isinstance(size, Mapping) or not _is_side(size.get("height")) or not _is_side(size.get("width")):
        return None
    return (size["height"], size["width"])


def _is_side(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
