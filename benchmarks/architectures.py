"""Ten well-known network structures in PyTorch, small and with random weights: what a pruner must find its way through.

Each is its family's structure, not its size: residual additions with strided shortcuts, inverted residuals, dense
concatenation, channel split and shuffle, squeeze-and-excite, attention over patches and over shifted windows, a BERT
with embeddings and a mask, an encoder-decoder with transposed convolutions and skip connections, a tagger with a
bidirectional LSTM. `NETWORKS` has a network and an example of its inputs by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


def _conv(into: int, out: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Sequential:
    layers = [nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(out)]
    return nn.Sequential(*layers, *([nn.ReLU()] if act else []))


class ResNet(nn.Module):
    """Bottleneck blocks."""

    class Block(nn.Module):
        def __init__(self, into: int, width: int, stride: int) -> None:
            super().__init__()
            out = 4 * width
            self.body = nn.Sequential(
                _conv(into, width, 1), _conv(width, width, 3, stride), _conv(width, out, 1, act=False)
            )
            self.shortcut = _conv(into, out, 1, stride, act=False) if stride > 1 or into != out else nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.body(x) + self.shortcut(x))

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 32, 7, 2), nn.MaxPool2d(3, 2, 1))
        blocks, into = [], 32
        for width, stride in ((32, 1), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1)):
            blocks.append(self.Block(into, width, stride))
            into = 4 * width
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(into, 100)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return y


class MobileNetV2(nn.Module):
    """Inverted residuals: expand, depthwise, project, with ReLU6."""

    class Block(nn.Module):
        def __init__(self, into: int, out: int, stride: int) -> None:
            super().__init__()
            wide = 6 * into
            self.same = stride == 1 and into == out
            self.body = nn.Sequential(
                nn.Conv2d(into, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
                nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
                nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out),
            )  # fmt: skip

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.body(x)
            return x + y if self.same else y

    def __init__(self) -> None:
        super().__init__()
        widths = ((32, 16, 1), (16, 24, 2), (24, 24, 1), (24, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1))
        self.body = nn.Sequential(_conv(3, 32, 3, 2), *(self.Block(*each) for each in widths), _conv(64, 320, 1))
        self.head = nn.Linear(320, 100)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(nn.functional.adaptive_avg_pool2d(self.body(x), 1).flatten(1))
        return y


class DenseNet(nn.Module):
    """Every layer reads the concatenation of all before it."""

    class Layer(nn.Module):
        def __init__(self, into: int, growth: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.BatchNorm2d(into), nn.ReLU(), nn.Conv2d(into, 4 * growth, 1, bias=False),
                nn.BatchNorm2d(4 * growth), nn.ReLU(), nn.Conv2d(4 * growth, growth, 3, 1, 1, bias=False),
            )  # fmt: skip

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, self.body(x)], 1)

    def __init__(self, growth: int = 16) -> None:
        super().__init__()
        width, parts = 32, [_conv(3, 32, 3, 2)]
        for number in range(3):
            for _ in range(4):
                parts.append(self.Layer(width, growth))
                width += growth
            if number < 2:
                parts.append(
                    nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1), nn.AvgPool2d(2))
                )
                width //= 2
        self.body = nn.Sequential(*parts, nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Linear(width, 100)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.body(x).mean((2, 3)))
        return y


class ShuffleNetV2(nn.Module):
    """Half of the channels pass, half are convolved, then all are shuffled."""

    class Block(nn.Module):
        def __init__(self, width: int, *, down: bool) -> None:
            super().__init__()
            self.down = down
            into = width if down else width // 2
            out, stride = (width, 2) if down else (width // 2, 1)
            self.branch = nn.Sequential(
                _conv(into, out, 1), _conv(out, out, 3, stride, groups=out, act=False), _conv(out, out, 1)
            )
            self.other = nn.Sequential(_conv(into, into, 3, 2, groups=into, act=False), _conv(into, out, 1))

        def forward(self, x: Tensor) -> Tensor:
            if self.down:
                y = torch.cat([self.other(x), self.branch(x)], 1)
            else:
                left, right = x.chunk(2, 1)
                y = torch.cat([left, self.branch(right)], 1)
            batch, channels, height, width = y.shape
            return (
                y.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
            )

    def __init__(self) -> None:
        super().__init__()
        blocks = [_conv(3, 32, 3, 2), self.Block(32, down=True), self.Block(64, down=False), self.Block(64, down=False)]
        blocks += [
            self.Block(64, down=True),
            self.Block(128, down=False),
            self.Block(128, down=False),
            _conv(128, 256, 1),
        ]
        self.body, self.head = nn.Sequential(*blocks), nn.Linear(256, 100)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.body(x).mean((2, 3)))
        return y


class EfficientNet(nn.Module):
    """Inverted residuals with squeeze-and-excite and SiLU."""

    class Block(nn.Module):
        def __init__(self, into: int, out: int, stride: int, expand: int = 4) -> None:
            super().__init__()
            wide = into * expand
            self.same = stride == 1 and into == out
            self.enter = nn.Sequential(
                nn.Conv2d(into, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.SiLU(),
                nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.SiLU(),
            )  # fmt: skip
            self.gate = nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, into, 1), nn.SiLU(), nn.Conv2d(into, wide, 1), nn.Sigmoid()
            )
            self.leave = nn.Sequential(nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out))

        def forward(self, x: Tensor) -> Tensor:
            y = self.enter(x)
            y = self.leave(y * self.gate(y))
            return x + y if self.same else y

    def __init__(self) -> None:
        super().__init__()
        widths = ((32, 16, 1), (16, 24, 2), (24, 24, 1), (24, 48, 2), (48, 48, 1), (48, 96, 2), (96, 96, 1))
        self.body = nn.Sequential(_conv(3, 32, 3, 2), *(self.Block(*each) for each in widths), _conv(96, 384, 1))
        self.head = nn.Linear(384, 100)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.body(x).mean((2, 3)))
        return y


class Attention(nn.Module):
    """Self-attention with one projection for queries, keys and values; `bias` is added to the scores."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        scores = qkv[0] @ qkv[1].transpose(-2, -1) * self.size**-0.5
        scores = scores if bias is None else scores + bias
        mixed = (scores.softmax(-1) @ qkv[2]).transpose(1, 2).reshape(batch, length, width)
        y: Tensor = self.out(mixed)
        return y


class Encoder(nn.Module):
    """LayerNorm, attention, LayerNorm, two layers with GELU; both added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention, self.norm1, self.norm2 = Attention(width, heads), nn.LayerNorm(width), nn.LayerNorm(width)
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.network(self.norm2(x))
        return y


class ViT(nn.Module):
    """Patches, a class token, positions."""

    def __init__(self, width: int = 128, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, 65, width) * 0.02)
        self.body = nn.Sequential(*(Encoder(width, heads) for _ in range(4)), nn.LayerNorm(width))
        self.head = nn.Linear(width, 100)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        y: Tensor = self.head(self.body(x)[:, 0])
        return y


class Swin(nn.Module):
    """Attention in windows with a relative bias, every other block on a shifted grid; patches merge between stages."""

    class Block(nn.Module):
        def __init__(self, width: int, heads: int, window: int, shift: int) -> None:
            super().__init__()
            self.window, self.shift = window, shift
            self.attention, self.norm1, self.norm2 = Attention(width, heads), nn.LayerNorm(width), nn.LayerNorm(width)
            self.bias = nn.Parameter(torch.randn(heads, window**2, window**2) * 0.02)
            self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

        def forward(self, x: Tensor) -> Tensor:
            batch, height, breadth, width = x.shape
            size, rows, columns = self.window, height // self.window, breadth // self.window
            y = self.norm1(x)
            if self.shift:
                y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
            y = (
                y.view(batch, rows, size, columns, size, width)
                .permute(0, 1, 3, 2, 4, 5)
                .reshape(-1, size * size, width)
            )
            y = self.attention(y, self.bias)
            y = y.view(batch, rows, columns, size, size, width).permute(0, 1, 3, 2, 4, 5)
            y = y.reshape(batch, height, breadth, width)
            if self.shift:
                y = torch.roll(y, (self.shift, self.shift), (1, 2))
            x = x + y
            z: Tensor = x + self.network(self.norm2(x))
            return z

    class Merge(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.norm, self.reduce = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            parts = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
            y: Tensor = self.reduce(self.norm(torch.cat(parts, -1)))
            return y

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.body = nn.Sequential(
            self.Block(width, 2, 4, 0), self.Block(width, 2, 4, 2), self.Merge(width),
            self.Block(2 * width, 4, 4, 0), self.Block(2 * width, 4, 4, 2), nn.LayerNorm(2 * width),
        )  # fmt: skip
        self.head = nn.Linear(2 * width, 100)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.body(self.patches(x).permute(0, 2, 3, 1)).mean((1, 2)))
        return y


class Bert(nn.Module):
    """Embeddings of words and positions, a mask over padding, LayerNorm behind each addition."""

    class Layer(nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads, self.size = heads, width // heads
            self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
            self.out, self.norm1, self.norm2 = nn.Linear(width, width), nn.LayerNorm(width), nn.LayerNorm(width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def split(self, x: Tensor) -> Tensor:
            return x.view(x.shape[0], x.shape[1], self.heads, self.size).transpose(1, 2)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            scores = self.split(self.query(x)) @ self.split(self.key(x)).transpose(-1, -2) / self.size**0.5
            mixed = (scores + mask).softmax(-1) @ self.split(self.value(x))
            x = self.norm1(x + self.out(mixed.transpose(1, 2).reshape(x.shape)))
            y: Tensor = self.norm2(x + self.down(nn.functional.gelu(self.up(x))))
            return y

    def __init__(self, width: int = 128, heads: int = 4, words: int = 1000, longest: int = 64) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(longest, width)
        self.norm, self.pooler, self.head = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, 2)
        self.layers = nn.ModuleList(self.Layer(width, heads) for _ in range(3))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(self.words(ids) + self.places(torch.arange(ids.shape[1], device=ids.device)))
        added = (1.0 - mask[:, None, None, :].float()) * -10000.0
        for layer in self.layers:
            x = layer(x, added)
        y: Tensor = self.head(torch.tanh(self.pooler(x[:, 0])))
        return y


class UNet(nn.Module):
    """Down by pooling, up by transposed convolution, joined by concatenation."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        sizes = (width, 2 * width, 4 * width)
        self.down = nn.ModuleList(self.double(a, b) for a, b in zip((3, *sizes[:-1]), sizes, strict=True))
        self.middle = self.double(4 * width, 8 * width)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * size, size, 2, 2) for size in reversed(sizes))
        self.join = nn.ModuleList(self.double(2 * size, size) for size in reversed(sizes))
        self.head = nn.Conv2d(width, 2, 1)

    @staticmethod
    def double(into: int, out: int) -> nn.Sequential:
        return nn.Sequential(_conv(into, out), _conv(out, out))

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for block in self.down:
            kept.append(block(x))
            x = nn.functional.max_pool2d(kept[-1], 2)
        x = self.middle(x)
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([kept.pop(), up(x)], 1))
        y: Tensor = self.head(x)
        return y


class Tagger(nn.Module):
    """Word embeddings, two bidirectional LSTM layers, a tag for every word."""

    def __init__(self, words: int = 1000, width: int = 64, hidden: int = 64, tags: int = 20) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.layers = nn.LSTM(width, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU(), nn.Linear(hidden, tags))

    def forward(self, ids: Tensor) -> Tensor:
        y: Tensor = self.head(self.layers(self.words(ids))[0])
        return y


@dataclass(frozen=True)
class Network:
    """`symbolic`: names of free axes by input, as `torch.onnx.export` takes them."""

    make: Callable[[], nn.Module]
    inputs: dict[str, tuple[int, ...]]
    words: int | None = None  # inputs are word numbers below it
    symbolic: tuple[int, ...] = (0,)

    def example(self, seed: int = 0) -> dict[str, Tensor]:
        """Random inputs of one call."""
        random = torch.Generator().manual_seed(seed)
        found = {}
        for name, shape in self.inputs.items():
            if name == "mask":
                found[name] = torch.ones(shape, dtype=torch.int64)
            elif self.words is not None:
                found[name] = torch.randint(self.words, shape, generator=random)
            else:
                found[name] = torch.randn(shape, generator=random)
        return found

    def export(self, path: str, *, seed: int = 0) -> None:
        """Write the network, in evaluation mode, with weights from a seed."""
        torch.manual_seed(seed)
        network, example = self.make().eval(), self.example(seed)
        axes = {
            name: {axis: f"axis{axis}" for axis in self.symbolic if axis < len(shape)}
            for name, shape in self.inputs.items()
        }
        torch.onnx.export(
            network, tuple(example.values()), path, input_names=list(example), output_names=["y"], dynamic_axes=axes,
            opset_version=17, dynamo=False,
        )  # fmt: skip


_IMAGE = {"x": (1, 3, 64, 64)}
NETWORKS: dict[str, Network] = {
    "resnet": Network(ResNet, _IMAGE, symbolic=(0, 2, 3)),
    "mobilenet_v2": Network(MobileNetV2, _IMAGE, symbolic=(0, 2, 3)),
    "densenet": Network(DenseNet, _IMAGE, symbolic=(0, 2, 3)),
    "shufflenet_v2": Network(ShuffleNetV2, _IMAGE),
    "efficientnet_se": Network(EfficientNet, _IMAGE, symbolic=(0, 2, 3)),
    "vit": Network(ViT, _IMAGE),
    "swin": Network(Swin, _IMAGE),
    "bert": Network(Bert, {"ids": (1, 24), "mask": (1, 24)}, words=1000, symbolic=(0, 1)),
    "unet": Network(UNet, _IMAGE, symbolic=(0, 2, 3)),
    "lstm_tagger": Network(Tagger, {"ids": (1, 24)}, words=1000, symbolic=(0, 1)),
}
