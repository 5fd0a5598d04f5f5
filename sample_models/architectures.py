"""The networks of the sample models, as plain PyTorch modules with random weights: [n, 3, 32, 32] -> [n, 10]."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 10


class Residual(nn.Module):
    """The basic block of a ResNet: two 3x3 convolutions; where shapes change, a strided 1x1 one on the shortcut."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outside)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResidualCNN(nn.Module):
    """A ResNet: stem, stages of 32, 64 and 128 channels at 32, 16 and 8 pixels, average pool, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.stages = nn.Sequential(Residual(32, 64, 2), Residual(64, 64, 1), Residual(64, 128, 2))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, CLASSES))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(image)))


class SqueezeExcite(nn.Module):
    """Scale every channel by a gate computed from all channel means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 4, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 4, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class InvertedResidual(nn.Module):
    """Expand, depthwise, squeeze-and-excite, project (MobileNetV3); with a shortcut where shapes agree."""

    def __init__(self, inside: int, outside: int, stride: int, activation: type[nn.Module], expand: int = 4) -> None:
        super().__init__()
        wide = inside * expand
        self.residual = stride == 1 and inside == outside
        self.body = nn.Sequential(
            nn.Conv2d(inside, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            activation(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            activation(),
            SqueezeExcite(wide),
            nn.Conv2d(wide, outside, 1, bias=False),
            nn.BatchNorm2d(outside),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class MobileCNN(nn.Module):
    """A MobileNetV3 in small: ReLU6 in the early blocks, hard-swish in the late ones."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, 1, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU6(),
            InvertedResidual(16, 24, 2, nn.ReLU6),
            InvertedResidual(24, 24, 1, nn.ReLU6),
            InvertedResidual(24, 40, 2, nn.Hardswish),
            InvertedResidual(40, 40, 1, nn.Hardswish),
            InvertedResidual(40, 64, 2, nn.Hardswish),
            nn.Conv2d(64, 256, 1, bias=False),
            nn.BatchNorm2d(256),
            nn.Hardswish(),
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, CLASSES))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image))


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, dim // heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        tokens, dim = x.shape[1], x.shape[2]
        q, k, v = self.qkv(x).reshape(-1, tokens, 3, self.heads, self.size).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q * self.size**-0.5 @ k.transpose(-2, -1)).softmax(-1)
        return self.project((weights @ v).transpose(1, 2).reshape(-1, tokens, dim))


class Encoder(nn.Module):
    """Pre-norm transformer block with a GELU network."""

    def __init__(self, dim: int, heads: int, wide: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm2, self.network = (
            nn.LayerNorm(dim),
            nn.Sequential(nn.Linear(dim, wide), nn.GELU(), nn.Linear(wide, dim)),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.network(self.norm2(x))


class VisionTransformer(nn.Module):
    """64 tokens from a convolutional stem (Xiao et al. 2021), learned positions, encoder blocks, mean, classifier."""

    def __init__(self, dim: int = 96, heads: int = 4, depth: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, 2, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Conv2d(64, dim, 1),
        )
        self.positions = nn.Parameter(torch.randn(1, 64, dim) * 0.02)
        self.blocks = nn.Sequential(*(Encoder(dim, heads, 2 * dim) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(x)).mean(1))
