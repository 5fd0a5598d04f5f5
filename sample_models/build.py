"""Train and export the PyTorch sample models and write their data: `python sample_models/build.py [NAME ...]`.

Needs `pip install torch==2.13.0 onnxscript scikit-learn` beside onnxqp itself; about ten minutes on one core. The same
machine, library versions and seed give the same files; elsewhere the accuracy may move by some tenths of a point.
"""

from __future__ import annotations

import shutil
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import architectures
import digits
import judge
import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import functional

SEED = 0
HERE = Path(__file__).resolve().parent
DATA = HERE / "data"
RENDERS = {"train": 24_000, "calib": 256, "eval": 1000, "images": 100}


@dataclass(frozen=True)
class Recipe:
    """How one model is trained and by which of PyTorch's two exporters it is written."""

    network: Callable[[], nn.Module]
    steps: int
    batch: int
    rate: float  # the peak of a one-cycle schedule
    exporter: str  # "TorchScript" or "dynamo"


RECIPES = {
    "residual_cnn": Recipe(architectures.ResidualCNN, 450, 64, 4e-3, "TorchScript"),
    "mobile_cnn": Recipe(architectures.MobileCNN, 750, 64, 5e-3, "dynamo"),
    "vit": Recipe(architectures.VisionTransformer, 1800, 48, 2e-3, "dynamo"),
}


def render_all() -> dict[str, tuple[digits.ByteArray, digits.IntArray]]:
    """Pixels and labels of every part; no image of one part occurs in another, and no scan does either."""
    parts = digits.load_parts(SEED)
    rendered = {name: digits.render(part, RENDERS[name], digits.stream(part, SEED)) for name, part in parts.items()}
    seen: set[str] = set()
    for name, (pixels, _) in rendered.items():
        own = digits.digests(pixels)
        if len(own) != len(pixels) or own & seen:
            raise SystemExit(f"an image of part {name} occurs twice")
        seen |= own
    return rendered


def write_data(rendered: dict[str, tuple[digits.ByteArray, digits.IntArray]]) -> None:
    """Write calib.npz, eval.npz, their channels-last halves, and the image folder."""
    DATA.mkdir(exist_ok=True)
    for name in ("calib", "eval"):
        pixels, labels = rendered[name]
        np.savez_compressed(DATA / f"{name}.npz", image=digits.to_input(pixels), labels=labels)
        half = len(pixels) // 2
        channels_last = pixels[:half].astype(np.float32) / np.float32(255)
        np.savez_compressed(DATA / f"{name}_nhwc.npz", image=channels_last, labels=labels[:half])
    shutil.rmtree(DATA / "images", ignore_errors=True)
    digits.write_images(DATA / "images", *rendered["images"])


def train(recipe: Recipe, pixels: digits.ByteArray, labels: digits.IntArray) -> nn.Module:
    """Train one network from random weights; returns it in evaluation mode."""
    torch.manual_seed(SEED)
    network = recipe.network().train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=recipe.steps, pct_start=0.15)
    random = np.random.default_rng(SEED)
    epochs = -(-recipe.steps * recipe.batch // len(pixels))
    order = np.concatenate([random.permutation(len(pixels)) for _ in range(epochs)])
    total, start = 0.0, time.monotonic()
    for step in range(recipe.steps):
        chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
        images = torch.from_numpy(digits.to_input(pixels[chosen])).to(memory_format=torch.channels_last)
        loss = functional.cross_entropy(network(images), torch.from_numpy(labels[chosen]), label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += loss.item()
        if (step + 1) % 50 == 0:
            print(
                f"  step {step + 1}/{recipe.steps}, loss {total / 50:.3f}, {time.monotonic() - start:.0f} s", flush=True
            )
            total = 0.0
    return network.eval().to(memory_format=torch.contiguous_format)


def export(network: nn.Module, path: Path, exporter: str) -> None:
    """Write `network` with the symbolic axis `batch`, input `image` and output `logits`."""
    example = (torch.zeros(2, 3, 32, 32),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' talk about their own deprecations
        if exporter == "TorchScript":
            torch.onnx.export(
                network,
                example,
                path,
                dynamo=False,
                opset_version=17,
                input_names=["image"],
                output_names=["logits"],
                dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
                training=torch.onnx.TrainingMode.PRESERVE,  # with no folding: BatchNormalization stays a node
                do_constant_folding=False,
            )
        else:
            batch = torch.export.Dim("batch")
            torch.onnx.export(
                network,
                example,
                path,
                dynamo=True,
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes=({0: batch},),
                external_data=False,
                verbose=False,
            )
    model = onnx.load(path)
    for node in model.graph.node:  # stack traces, with the paths of this machine
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        value.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    onnx.save(model, path)


def main(names: list[str]) -> None:
    """Build the named models, or all of them."""
    unknown = set(names) - set(RECIPES)
    if unknown:
        raise SystemExit(f"no recipe for {', '.join(sorted(unknown))}; there are {', '.join(RECIPES)}")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    rendered = render_all()
    write_data(rendered)
    pixels, labels = rendered["eval"]
    for name in names or RECIPES:
        print(name, flush=True)
        recipe = RECIPES[name]
        path = HERE / f"{name}.onnx"
        export(train(recipe, *rendered["train"]), path, recipe.exporter)
        judge.record(path, f"PyTorch, {recipe.exporter}", digits.to_input(pixels), labels)


if __name__ == "__main__":
    main(sys.argv[1:])
