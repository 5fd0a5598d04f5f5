"""Samples for calibration and evaluation: readers, preprocessing, labels, splitting, synthetic inputs.

`read` opens what the user names, `synthesize` makes inputs up, `from_feeds` takes Python objects; all give a
`SampleSet`, which is passed over as often as needed and holds no more than one sample at a time (a hook's draw apart).
Names are imported when they are first used: the presets must be printable without numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxqp.data.formats import from_feeds as from_feeds
    from onnxqp.data.formats import read as read
    from onnxqp.data.preprocess import PRESETS as PRESETS
    from onnxqp.data.preprocess import Preprocessing as Preprocessing
    from onnxqp.data.preprocess import parse_preprocessing as parse_preprocessing
    from onnxqp.data.samples import Sample as Sample
    from onnxqp.data.samples import SampleSet as SampleSet
    from onnxqp.data.samples import hold_back as hold_back
    from onnxqp.data.samples import overlap as overlap
    from onnxqp.data.synthetic import resolve_shapes as resolve_shapes
    from onnxqp.data.synthetic import synthesize as synthesize

_HOME = {
    "from_feeds": "formats",
    "read": "formats",
    "PRESETS": "preprocess",
    "Preprocessing": "preprocess",
    "parse_preprocessing": "preprocess",
    "Sample": "samples",
    "SampleSet": "samples",
    "hold_back": "samples",
    "overlap": "samples",
    "resolve_shapes": "synthetic",
    "synthesize": "synthetic",
}

__all__ = [
    "PRESETS",
    "Preprocessing",
    "Sample",
    "SampleSet",
    "from_feeds",
    "hold_back",
    "overlap",
    "parse_preprocessing",
    "read",
    "resolve_shapes",
    "synthesize",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
