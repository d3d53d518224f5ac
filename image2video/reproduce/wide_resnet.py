"""WRN-28-10, written from Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016 (arXiv 1605.07146).

Importing this module registers `wrn_28_10` with timm.
"""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn

from image2video.errors import InputError
from image2video.reproduce.classifier import Classifier, untrained

_WIDTHS = (16, 32, 64)
_LAYERS_PER_BLOCK, _LAYERS_BESIDES = 6, 4


class WideBlock(nn.Module):
    """Norm, ReLU and 3×3 convolution twice, beside a shortcut: the block "B(3, 3)" of the paper's section 3.

    Where the widths differ, the shortcut is a 1×1 convolution of the activated input (He et al., ECCV 2016).

    Args:
        in_channels: of the input.
        channels: of both convolutions.
        stride: of the first one, and of the shortcut.
        drop_rate: share of activations that is dropped between the convolutions (section 2.4).
    """

    def __init__(self, in_channels: int, channels: int, stride: int, drop_rate: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.act1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act2 = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(drop_rate)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.shortcut: nn.Conv2d | None = None
        if in_channels != channels:
            self.shortcut = nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in_channels, H, W)` to `(B, channels, H / stride, W / stride)`."""
        activated = self.act1(self.bn1(x))
        skip = x if self.shortcut is None else self.shortcut(activated)
        x = self.conv1(activated)
        return skip + self.conv2(self.drop(self.act2(self.bn2(x))))


class WideResNet(Classifier):
    """A wide residual network for 32×32 images: a 3×3 stem, three stages of blocks, norm, ReLU, mean, linear.

    Args:
        depth: number of convolutions of the plain network, 6n + 4.
        widen: how many times as wide as the thin network with 16, 32 and 64 channels.
        num_classes: outputs; 0 gives the pooled features.
        in_chans: channels of the images.
        drop_rate: dropout within every block; the paper reports 0 and, for some runs, 0.3.

    Raises `InputError` for a depth that is not 6n + 4.

    >>> import torch
    >>> net = WideResNet(10, 1, num_classes=5)
    >>> net(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 5])
    """

    def __init__(
        self,
        depth: int = 28,
        widen: int = 10,
        *,
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(num_classes, in_chans)
        blocks, rest = divmod(depth - _LAYERS_BESIDES, _LAYERS_PER_BLOCK)
        if rest or blocks < 1:
            raise InputError(f"the depth of a wide residual network is 6n + 4 (10, 16, 22, 28, …), got {depth}")
        channels = _WIDTHS[0]
        self.conv1 = nn.Conv2d(in_chans, channels, 3, padding=1, bias=False)
        stages = []
        for index, width in enumerate(_WIDTHS):
            wide = width * widen
            first = WideBlock(channels, wide, 1 if index == 0 else 2, drop_rate)
            stages.append(nn.Sequential(first, *(WideBlock(wide, wide, 1, drop_rate) for _ in range(blocks - 1))))
            channels = wide
        self.layer1, self.layer2, self.layer3 = stages
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.ReLU(inplace=True)
        self._finish(channels)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images `(B, C, H, W)` to activated maps `(B, 64·widen, H / 4, W / 4)`."""
        return self.act(self.norm(self.layer3(self.layer2(self.layer1(self.conv1(x))))))


default_cfgs = untrained(
    "wrn_28_10",
    num_classes=10,
    input_size=(3, 32, 32),
    pool_size=(8, 8),
    crop_pct=1.0,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    first_conv="conv1",
)


@register_model
def wrn_28_10(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """28 layers, 10 times as wide: 36.48 million parameters at 10 classes (the paper: 36.5)."""
    return build_model_with_cfg(WideResNet, "wrn_28_10", pretrained, **({"depth": 28, "widen": 10} | kwargs))
