"""How a picture becomes an input: sizes, colours, scale; the presets; tables of the configuration file.

Nothing here imports numpy or pillow, so that `--help` can print `PRESETS` in no time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar, cast, get_args

from onnxqp.errors import UsageError

Interpolation: TypeAlias = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Layout: TypeAlias = Literal["auto", "NCHW", "NHWC"]
Colour: TypeAlias = Literal["RGB", "BGR", "L"]
Size: TypeAlias = tuple[int, int]  # height, width
Word = TypeVar("Word", bound=str)
Target: TypeAlias = tuple[int | None, int | None]  # the same, None where the model leaves it open


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a picture, in this order: resize, crop (or fit and pad), reorder colours, scale.

    `resize`: an int scales the shorter side to it and keeps the aspect; (height, width) stretches; None leaves the
    size. `crop`: (height, width) around the centre. `pad`: fit inside the size keeping the aspect, and fill the rest
    with this grey level (letterbox). `layout` "auto": from the input's shape. A pixel p in 0..255 becomes
    (p * rescale - mean) / std, with mean and std per channel in the order of `colour`, or one number for all.

    The model's own height and width win over the sizes here, which are then scaled in proportion (`fitted`). A picture
    that already has the final size is neither resized nor cropped.
    """

    name: str = "custom"
    resize: int | Size | None = None
    crop: Size | None = None
    pad: int | None = None
    interpolation: Interpolation = "bilinear"
    layout: Layout = "auto"
    colour: Colour = "RGB"
    rescale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        channels = 1 if self.colour == "L" else 3
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise UsageError(
                    f"preprocessing: {key} has {len(values)} numbers, colour {self.colour} has {channels} channels",
                    hint=f"give one number, or {channels}",
                )
        if any(value == 0 for value in self.std):
            raise UsageError("preprocessing: a standard deviation of 0", hint="std divides; use 1 for no scaling")
        if self.pad is not None and (self.crop is not None or isinstance(self.resize, int)):
            raise UsageError(
                "preprocessing: pad goes with resize = [height, width] and without crop",
                hint="pad keeps the whole picture; crop cuts it: choose one",
            )

    @property
    def size(self) -> Size | None:
        """Height and width of the result, where they are known without looking at the picture."""
        return self.crop or (self.resize if isinstance(self.resize, tuple) else None)

    @property
    def keeps_pixels(self) -> bool:
        """Whether values stay 0..255, as inputs of integer type need."""
        return self.rescale == 1 and set(self.mean) == {0} and set(self.std) == {1}

    def fitted(self, target: Target) -> Preprocessing:
        """The same for a model whose input has this height and width; open ones come from here, if known."""
        own = self.size or (None, None)
        height, width = target[0] or own[0], target[1] or own[1]
        if height is None or width is None or (height, width) == self.size:
            return self
        size = (height, width)
        if self.crop is None:
            shorter = isinstance(self.resize, int)
            return replace(self, resize=min(size), crop=size) if shorter else replace(self, resize=size)
        if isinstance(self.resize, int):
            return replace(self, resize=round(self.resize * min(size) / min(self.crop)), crop=size)
        if self.resize is None:
            return replace(self, crop=size)
        stretched = tuple(round(side * new / old) for side, new, old in zip(self.resize, size, self.crop, strict=True))
        return replace(self, resize=cast(Size, stretched), crop=size)

    def describe(self) -> str:
        """One line with every fact: what the help prints of a preset."""
        steps = []
        if self.pad is not None:
            steps.append(f"fit inside {_size(self.resize)}, pad with {self.pad}")
        elif isinstance(self.resize, int):
            steps.append(f"shorter side to {self.resize}")
        elif self.resize is not None:
            steps.append(f"stretch to {_size(self.resize)}")
        steps.append(f"centre crop {_size(self.crop)}" if self.crop else "no crop")
        layout = "layout of the input's shape" if self.layout == "auto" else self.layout
        scale = f"x/{1 / self.rescale:.4g}" if self.rescale != 1 else "0..255"
        statistics = [f"mean {_list(self.mean)}", f"std {_list(self.std)}"]
        return ", ".join([*steps, self.interpolation, self.colour, layout, scale, *statistics])


def _size(size: int | Size | None) -> str:
    return f"{size[0]}x{size[1]}" if isinstance(size, tuple) else "its own size"


def _list(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)

# Means and standard deviations are those that the families were trained with: torchvision's reference recipes
# (imagenet), Keras' `imagenet_utils` modes "tf" and "caffe" (inception, caffe), the processors that accompany OpenAI's
# CLIP and Google's ViT, and the statistics of the training sets for CIFAR and MNIST.
PRESETS: dict[str, Preprocessing] = {
    preset.name: preset
    for preset in (
        Preprocessing("imagenet", resize=256, crop=(224, 224), mean=_IMAGENET_MEAN, std=_IMAGENET_STD),
        Preprocessing("inception", resize=342, crop=(299, 299), mean=_HALF, std=_HALF),
        Preprocessing(
            "clip",
            resize=224,
            crop=(224, 224),
            interpolation="bicubic",
            mean=(0.48145466, 0.4578275, 0.40821073),
            std=(0.26862954, 0.26130258, 0.27577711),
        ),
        Preprocessing("vit", resize=(224, 224), mean=_HALF, std=_HALF),
        Preprocessing("caffe", resize=256, crop=(224, 224), colour="BGR", rescale=1.0, mean=(103.939, 116.779, 123.68)),
        Preprocessing("cifar10", resize=(32, 32), mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
        Preprocessing("cifar100", resize=(32, 32), mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762)),
        Preprocessing("mnist", resize=(28, 28), colour="L", mean=(0.1307,), std=(0.3081,)),
        Preprocessing("yolo", resize=(640, 640), pad=114),
        Preprocessing("unit", resize=(224, 224)),
        Preprocessing("raw", resize=(224, 224), rescale=1.0),
    )
}


def parse_preprocessing(spec: str | Mapping[str, object]) -> Preprocessing:
    """A preset's name, the path of a `preprocessor_config.json` (or its folder), or a table, to a `Preprocessing`.

    Raises UsageError for an unknown name or key, with the closest known one, and for values that make no sense.
    """
    if isinstance(spec, Mapping):
        return _from_table(spec)
    if spec in PRESETS:
        return PRESETS[spec]
    if spec.endswith(".json") or Path(spec).exists():
        from onnxqp.data.processor_config import read_processor_config

        return read_processor_config(Path(spec))
    close = get_close_matches(spec, PRESETS, n=1)
    known = f"presets: {', '.join(PRESETS)}; or the path of a preprocessor_config.json"
    raise UsageError(
        f"--preprocess: no preset and no file is called {spec!r}",
        hint=f"did you mean {close[0]!r}? {known}" if close else known,
    )


# ---- tables of the configuration file ----------------------------------------------------------------------


def _from_table(table: Mapping[str, object]) -> Preprocessing:
    """A table with the fields of `Preprocessing` as keys, and `preset` to start from one."""
    known = [field.name for field in fields(Preprocessing) if field.name != "name"]
    for key in table:
        if key not in (*known, "preset"):
            close = get_close_matches(key, [*known, "preset"], n=1)
            raise UsageError(
                f"preprocess: unknown key {key!r}",
                hint=f"did you mean {close[0]!r}?" if close else f"keys: preset, {', '.join(known)}",
            )
    preset = table.get("preset", None)
    if preset is not None and preset not in PRESETS:
        raise UsageError(f"preprocess: no preset is called {preset!r}", hint=f"presets: {', '.join(PRESETS)}")
    base = PRESETS[str(preset)] if preset is not None else Preprocessing()
    return Preprocessing(
        name="custom",
        resize=_read_size(table, "resize", base.resize, whole=False),
        crop=cast("Size | None", _read_size(table, "crop", base.crop, whole=True)),
        pad=_read_grey(table, base.pad),
        interpolation=_read_word(table, "interpolation", base.interpolation, get_args(Interpolation)),
        layout=_read_word(table, "layout", base.layout, get_args(Layout)),
        colour=_read_word(table, "colour", base.colour, get_args(Colour)),
        rescale=_read_numbers(table, "rescale", (base.rescale,))[0],
        mean=_read_numbers(table, "mean", base.mean),
        std=_read_numbers(table, "std", base.std),
    )


def _read_size(table: Mapping[str, object], key: str, default: int | Size | None, *, whole: bool) -> int | Size | None:
    """A side or [height, width]; false for none. `whole`: one number means a square."""
    value = table.get(key, default)
    if value is None or value is False:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return (value, value) if whole else value
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        sides = [side for side in value if isinstance(side, int) and not isinstance(side, bool) and side > 0]
        if len(sides) == 2:
            return (sides[0], sides[1])
    one = "a side (square)" if whole else "the shorter side"
    raise UsageError(f"preprocess: {key} = {value!r}", hint=f"{one}, [height, width], or false for none; in pixels")


def _read_grey(table: Mapping[str, object], default: int | None) -> int | None:
    value = table.get("pad", default)
    if value is None or value is False:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255:
        return value
    raise UsageError(f"preprocess: pad = {value!r}", hint="a grey level of 0..255, or false for none")


def _read_word(table: Mapping[str, object], key: str, default: Word, choices: Sequence[Word]) -> Word:
    value = table.get(key, default)
    for choice in choices:
        if value == choice:
            return choice
    raise UsageError(f"preprocess: {key} = {value!r}", hint=f"one of: {', '.join(choices)}")


def _read_numbers(table: Mapping[str, object], key: str, default: tuple[float, ...]) -> tuple[float, ...]:
    value = table.get(key, default)
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    numbers = tuple(float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool))
    allowed = (1,) if key == "rescale" else (1, 3)
    if len(numbers) != len(values) or len(numbers) not in allowed or not all(abs(v) < 1e30 for v in numbers):
        raise UsageError(
            f"preprocess: {key} = {value!r}", hint="a number" if key == "rescale" else "one number, or one per channel"
        )
    return numbers
