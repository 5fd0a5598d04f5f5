"""Data: what is fed to a model."""

from __future__ import annotations

from collections.abc import Sequence

import click

from onnxqp.cli import settings
from onnxqp.cli.options.declare import DATA, gathered, option
from onnxqp.cli.parameters import Shape
from onnxqp.errors import UsageError
from onnxqp.options import DataOptions


def _data_options(
    data: str | None,
    preprocess: str | None,
    samples: int,
    batch_size: int,
    seed: int,
    shape: tuple[tuple[str, tuple[int, ...]], ...],
    eval: str | None = None,
) -> DataOptions:
    return DataOptions(data, eval, settings.preprocessing(preprocess), samples, batch_size, seed, _shapes(shape))


def _shapes(given: Sequence[tuple[str, tuple[int, ...]]]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, sizes in given:
        if shapes.setdefault(name, sizes) != sizes:
            raise UsageError(f"--shape gives {name} twice", hint="give each input one shape")
    return shapes


_data = option(
    DATA,
    "--data",
    metavar="SPEC",
    help="Unlabelled inputs for calibration and fidelity: a folder of images, .npz (keys are input names), .npy, a "
    "folder of .npz or of test_data_set_*, or file.py:function. Without it inputs are synthesised, with a warning.",
)
_preprocess = option(
    DATA,
    "--preprocess",
    metavar="SPEC",
    help="How images become inputs: a preset (below), a preprocessor_config.json, or a [preprocess.NAME] table of the "
    "configuration. Without it a warning, and imagenet for 3 channels, unit for 1.",
)
_samples = option(
    DATA,
    "--samples",
    type=click.IntRange(min=1),
    metavar="N",
    default=256,
    show_default=True,
    help="How many samples to draw from the data.",
)
_batch_size = option(
    DATA,
    "--batch-size",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="How many samples to run at once.",
)
_seed = option(
    DATA,
    "--seed",
    type=click.IntRange(min=0),
    metavar="N",
    default=0,
    show_default=True,
    help="The seed of every random choice.",
)
_shape = option(
    DATA,
    "--shape",
    type=Shape(),
    metavar="NAME:1,3,224,224",
    multiple=True,
    help="Fix a symbolic input shape for synthetic inputs and measuring; the written model keeps its own. Repeatable.",
)
_eval = option(
    DATA,
    "--eval",
    metavar="SPEC",
    help="Evaluation inputs, in the same forms. With labels: accuracy. Without: fidelity on them.",
)
data = gathered("data", _data_options, _data, _eval, _preprocess, _samples, _batch_size, _seed, _shape)
feeds = gathered("data", _data_options, _data, _preprocess, _samples, _batch_size, _seed, _shape, without=("eval",))
