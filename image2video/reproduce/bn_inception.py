"""BN-Inception, written from Ioffe and Szegedy, "Batch Normalization", ICML 2015 (arXiv 1502.03167), figure 5.

Importing this module registers `bn_inception` with timm.

The figure states 576 outputs for 4c and 4d, but the branches that it lists have 608 together. The branches count here,
as in the public models of this name. One departure, theirs as well: the stem is a plain 7×7 convolution, where the
paper has a separable one of depth multiplier 8. Convolutions have no bias, as the paper says: the norm would cancel it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn

from image2video.reproduce.classifier import Classifier, untrained


@dataclass(frozen=True)
class Mix:
    """The widths of one inception module: a line of the paper's figure 5.

    Attributes:
        one: of the 1×1 branch; 0 where there is none.
        three: of the 3×3 branch, its 1×1 reduction first.
        twice: of the branch of two 3×3 convolutions, the reduction first.
        pool: `avg` or `max`.
        proj: of the 1×1 convolution behind the pooling; 0 passes the pooled maps through.
        stride: of the last convolution of both 3×3 branches, and of the pooling.
    """

    one: int
    three: tuple[int, int]
    twice: tuple[int, int]
    pool: str
    proj: int
    stride: int = 1

    def outputs(self, in_channels: int) -> int:
        """Channels of the concatenated branches."""
        return self.one + self.three[1] + self.twice[1] + (self.proj or in_channels)


MODULES = {
    "mixed_3a": Mix(64, (64, 64), (64, 96), "avg", 32),
    "mixed_3b": Mix(64, (64, 96), (64, 96), "avg", 64),
    "mixed_3c": Mix(0, (128, 160), (64, 96), "max", 0, stride=2),
    "mixed_4a": Mix(224, (64, 96), (96, 128), "avg", 128),
    "mixed_4b": Mix(192, (96, 128), (96, 128), "avg", 128),
    "mixed_4c": Mix(160, (128, 160), (128, 160), "avg", 128),
    "mixed_4d": Mix(96, (128, 192), (160, 192), "avg", 128),
    "mixed_4e": Mix(0, (128, 192), (192, 256), "max", 0, stride=2),
    "mixed_5a": Mix(352, (192, 320), (160, 224), "avg", 128),
    "mixed_5b": Mix(352, (192, 320), (192, 224), "max", 128),
}


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm, ReLU; maps keep their size at stride 1."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int = 1) -> None:
        conv = nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=kernel // 2, bias=False)
        super().__init__()
        self.add_module("conv", conv)
        self.add_module("bn", nn.BatchNorm2d(channels))
        self.add_module("act", nn.ReLU(inplace=True))


class Inception(nn.Module):
    """Branches of 1×1, 3×3 and two 3×3 convolutions and a pooling, concatenated along channels."""

    def __init__(self, in_channels: int, mix: Mix) -> None:
        super().__init__()
        self.one = ConvNorm(in_channels, mix.one, 1) if mix.one else None
        reduced, wide = mix.three
        self.three = nn.Sequential(ConvNorm(in_channels, reduced, 1), ConvNorm(reduced, wide, 3, mix.stride))
        reduced, wide = mix.twice
        self.twice = nn.Sequential(
            ConvNorm(in_channels, reduced, 1), ConvNorm(reduced, wide, 3), ConvNorm(wide, wide, 3, mix.stride)
        )
        kind = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}[mix.pool]
        self.pool = nn.Sequential(kind(3, stride=mix.stride, padding=1))
        if mix.proj:
            self.pool.append(ConvNorm(in_channels, mix.proj, 1))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in_channels, H, W)` to the concatenated maps."""
        branches = [] if self.one is None else [self.one(x)]
        return torch.cat([*branches, self.three(x), self.twice(x), self.pool(x)], dim=1)


class BnInception(Classifier):
    """The inception network of the batch-norm paper; images of 224×224 end in maps of 7×7 with 1024 channels.

    Args:
        num_classes: outputs; 0 gives the pooled features.
        in_chans: channels of the images.
        drop_rate: dropout before the classifier; the paper removes it.
    """

    def __init__(self, *, num_classes: int = 1000, in_chans: int = 3, drop_rate: float = 0.0) -> None:
        super().__init__(num_classes, in_chans)
        self.stem = nn.Sequential(
            ConvNorm(in_chans, 64, 7, 2),
            nn.MaxPool2d(3, stride=2, padding=1),
            ConvNorm(64, 64, 1),
            ConvNorm(64, 192, 3),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        channels = 192
        self.blocks = nn.Sequential()
        for name, mix in MODULES.items():
            self.blocks.add_module(name, Inception(channels, mix))
            channels = mix.outputs(channels)
        self._finish(channels, drop_rate)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images `(B, C, H, W)` to maps `(B, 1024, H / 32, W / 32)`."""
        return self.blocks(self.stem(x))


default_cfgs = untrained(
    "bn_inception",
    num_classes=1000,
    input_size=(3, 224, 224),
    pool_size=(7, 7),
    crop_pct=0.875,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    first_conv="stem.0.conv",
)


@register_model
def bn_inception(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """BN-Inception: 11.29 million parameters at 1000 classes, 2.05 billion multiply-accumulates at 224×224."""
    return build_model_with_cfg(BnInception, "bn_inception", pretrained, **kwargs)
