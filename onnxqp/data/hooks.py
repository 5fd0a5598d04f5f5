"""Python hooks (`file.py:function`, `module:function`) and samples handed over as Python objects.

A hook is called without arguments and gives an iterable of `dict[str, ndarray]` or `(dict, label)`. A uniform draw of
unknown length is a reservoir; the whole of a source is kept in memory while it is small, and else asked for anew on
every pass.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from onnxqp.data.check import Signature
from onnxqp.data.files import ACCEPTED, require_file
from onnxqp.data.labels import check_range, plain_label
from onnxqp.errors import DataError, OnnxqpError
from onnxqp.specs import Feed

Yielded: TypeAlias = "Mapping[str, object] | tuple[Mapping[str, object], object]"
Factory: TypeAlias = Callable[[], Iterable[object]]

_KEPT_BYTES = 1 << 28  # a whole source is kept up to this size
_MOST_SAMPLES = 1_000_000


@dataclass(frozen=True)
class KeptSource:
    """Feeds in memory: a reservoir, or a source that is small."""

    feeds: tuple[tuple[Feed, str], ...]
    labels: tuple[object, ...] | None
    files: None = None

    def __len__(self) -> int:
        return len(self.feeds)

    def read(self, indices: Sequence[int]) -> Iterator[tuple[Feed, str]]:
        for index in indices:
            yield self.feeds[index]


@dataclass(frozen=True)
class RepeatedSource:
    """A hook that is called again on every pass, because what it gives is too much to keep."""

    factory: Factory
    name: str
    signature: Signature
    count: int
    labels: tuple[object, ...] | None
    files: None = None

    def __len__(self) -> int:
        return self.count

    def read(self, indices: Sequence[int]) -> Iterator[tuple[Feed, str]]:
        wanted = set(indices)
        found = 0
        for index, (values, label) in enumerate(_yields(self.factory, self.name)):
            if index not in wanted:
                continue
            if self.labels is not None and not np.array_equal(np.asarray(self.labels[index]), np.asarray(label)):
                raise self._changed(f"sample {index} had label {self.labels[index]!r}, now {label!r}")
            found += 1
            yield self.signature.feed(values, f"{self.name}[{index}]"), f"{self.name}[{index}]"
            if found == len(wanted):
                return
        raise self._changed(f"{self.count} samples at first, now fewer")

    def _changed(self, how: str) -> DataError:
        return DataError(
            f"the hook gives other samples each time: {how}", where=self.name, hint="seed its random choices"
        )


def collect(
    factory: Factory,
    name: str,
    signature: Signature,
    *,
    samples: int | None,
    seed: int,
    classes: int | None,
    labelled: bool,
    again: bool = True,
) -> tuple[KeptSource | RepeatedSource, list[str]]:
    """Draws `samples` (None: all) of what `factory` gives, uniformly, and warnings.

    `again`: whether calling it a second time gives the same. Raises DataError for feeds that do not fit the model, for
    labels that only some have, and if there is none at all.
    """
    kept: list[tuple[int, Feed]] = []
    labels: list[object] = []
    held, count, pixels, too_much = 0, 0, False, False
    random = np.random.default_rng(seed)
    for values, label in _yields(factory, name):
        origin = f"{name}[{count}]"
        slot = _slot(count, samples, random)
        if slot is not None:
            feed = {key: array.copy() for key, array in signature.feed(values, origin).items()}  # hooks reuse buffers
            pixels = pixels or _has_pixels(values, signature)
            if slot < len(kept):
                kept[slot] = (count, feed)
            elif not too_much:
                kept.append((count, feed))
                held += sum(array.nbytes for array in feed.values())
            if samples is None and again and held > _KEPT_BYTES and not too_much:
                too_much = True
                kept.clear()
        labels.append(label if labelled else None)
        count += 1
    if not count:
        raise DataError("yields no samples", where=name, hint="yield dict[str, ndarray] or (dict, label)")
    known = _checked_labels(labels, classes, name)
    warnings = [] if signature.pixels is None or pixels else [_NOT_APPLIED.format(signature.pixels.name)]
    if too_much:
        return RepeatedSource(factory, name, signature, count, known), warnings
    kept.sort(key=lambda pair: pair[0])
    chosen = None if known is None else tuple(known[index] for index, _ in kept)
    return KeptSource(tuple((feed, f"{name}[{index}]") for index, feed in kept), chosen), warnings


_NOT_APPLIED = "--preprocess is not applied to {!r}: its arrays are not uint8, so they count as prepared"


def _slot(count: int, samples: int | None, random: np.random.Generator) -> int | None:
    """Where sample number `count` goes in a reservoir of `samples` (Vitter 1985, algorithm R); None: nowhere."""
    if samples is None or count < samples:
        return count
    slot = int(random.integers(0, count + 1))
    return slot if slot < samples else None


def _has_pixels(values: Mapping[str, object], signature: Signature) -> bool:
    return signature.pixels is not None and any(
        signature.takes_pixels(key, np.asarray(value).dtype) for key, value in values.items()
    )


def _checked_labels(labels: Sequence[object], classes: int | None, name: str) -> tuple[object, ...] | None:
    missing = sum(label is None for label in labels)
    if missing == len(labels):
        return None
    if missing:
        raise DataError(f"{missing} of {len(labels)} samples have no label", where=name, hint="label all or none")
    check_range(labels, classes, name)
    return tuple(labels)


def _yields(factory: Factory, name: str) -> Iterator[tuple[Mapping[str, object], object]]:
    """What the hook yields, as pairs of arrays by name and label; whatever it raises becomes a DataError."""
    with _user_code(name):
        given = factory()
        items = iter(given)
    for count in range(_MOST_SAMPLES + 1):
        with _user_code(name):
            try:
                item = next(items)
            except StopIteration:
                return
        if count == _MOST_SAMPLES:
            break
        values, label = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
        if not isinstance(values, Mapping):
            raise DataError(
                f"yields {type(item).__name__}, expected dict[str, ndarray] or (dict, label)",
                where=f"{name}[{count}]",
                hint="the keys are the model's input names",
            )
        yield values, plain_label(label)
    raise DataError(f"yields more than {_MOST_SAMPLES} samples", where=name, hint="does it ever end?")


@contextmanager
def _user_code(name: str) -> Iterator[None]:
    """Around every entry into a hook: its prints go to stderr (stdout is for results), its errors become ours."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except OnnxqpError:
        raise
    except (Exception, SystemExit) as error:
        told = str(error).strip().splitlines()
        raise DataError(
            f"the hook raised {type(error).__name__}{': ' + told[0] if told else ''}",
            where=name,
            hint="run it by itself in Python to see where",
        ) from error


# ---- finding the function ----------------------------------------------------------------------------------


def load_hook(spec: str) -> Factory:
    """The function that `file.py:name` or `module:name` means. Split at the last colon; the name may hold dots."""
    function, beside = find_function(spec)

    def call() -> Iterator[object]:
        with beside():
            given = function()
            if given is None:
                raise DataError(
                    "the hook returns None, no samples", where=spec, hint="yield a dict[str, ndarray] for every sample"
                )
            items = iter(given)
        while True:  # the body of a generator runs here, and may import what lies beside it
            with beside():
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    return call


def find_function(spec: str) -> tuple[Callable[..., Any], Callable[[], AbstractContextManager[None]]]:
    """The function that `file.py:name` or `module:name` means, and a context in which it finds what lies beside it.

    Raises DataError when there is none, or when the user's code cannot be imported.
    """
    place, _, name = spec.rpartition(":")
    file = Path(place)
    is_file = file.suffix == ".py" or file.is_file()
    folder = str(file.resolve().parent) if is_file else str(Path.cwd())
    beside = functools.partial(_search_path, folder, first=is_file)
    with _user_code(spec), beside():
        module = _load_file(file) if is_file else _load_module(place, spec)
        function = _resolve(module, name, spec)
    if not callable(function):
        raise DataError(f"{name!r} is no function", where=spec, hint="name a function, as in file.py:function")
    return function, beside


@contextmanager
def _search_path(folder: str, *, first: bool) -> Iterator[None]:
    """A folder on `sys.path` for as long as user code runs: in front beside a file, at the end for a module's name."""
    sys.path.insert(0 if first else len(sys.path), folder)
    try:
        yield
    finally:
        if folder in sys.path:
            places = [place for place, entry in enumerate(sys.path) if entry == folder]
            del sys.path[places[0 if first else -1]]


def _load_file(file: Path) -> ModuleType:
    """The module in a file, under a name of its own; loaded once while the file stays the same. Writes no bytecode."""
    require_file(file)
    source = file.read_bytes()
    name = f"onnxqp_hook_{blake2b(str(file.resolve()).encode() + source, digest_size=8).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(file.resolve())
    sys.modules[name] = module  # before it runs: dataclasses and pickles look themselves up there
    try:
        exec(compile(source, str(file.resolve()), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _load_module(name: str, spec: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise DataError(f"{name!r} is neither a file nor a module's name", where=spec, hint=ACCEPTED)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise
        raise DataError(
            f"no module is called {name!r}", where=spec, hint="install it, or name the file: path/to/file.py:function"
        ) from error


def _resolve(module: ModuleType, name: str, spec: str) -> object:
    """The attribute of that very name (a module's `__getattr__` may take dots), else the dotted path."""
    if not name:
        raise DataError("names no function", where=spec, hint="file.py:function")
    found: object = module
    try:
        return getattr(module, name)
    except AttributeError:
        if "." not in name:
            raise _no_such(module, name, spec) from None
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise _no_such(module, name, spec) from None
    return found


def _no_such(module: ModuleType, name: str, spec: str) -> DataError:
    public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    return DataError(
        f"there is no {name!r}", where=spec, hint=f"it has: {', '.join(public[:10])}" if public else "check the name"
    )
