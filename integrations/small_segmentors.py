"""A small fully convolutional network for segmentation (48×48 and the like), as a timm model.

Importing this module registers `small_fcn` with timm, so that `timm.create_model("small_fcn", num_classes=11)` works.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, make_blocks
from torch import Tensor, nn
from torch.nn.functional import interpolate

_CHANNELS = (16, 32, 64)


class SmallFCN(nn.Module):
    """Logits of pixels at half resolution: `(N, in_chans, H, W)` -> `(N, num_classes, ⌈H/2⌉, ⌈W/2⌉)`.

    The trunk is that of `cifar_resnet8`: a 3×3 stem and three `BasicBlock`s of 16, 32 and 64 channels at strides 1, 2
    and 4. The last stage's map is enlarged (bilinear) to that of the second; a 1×1 convolution on both, side by side,
    gives the logits (the skip architecture of Long et al., CVPR 2015, with concatenation for the sum of scores).
    """

    def __init__(self, num_classes: int = 11, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans
        self.num_features = _CHANNELS[-1]
        self.output_fmt = "NCHW"
        self.conv1 = nn.Conv2d(in_chans, _CHANNELS[0], kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_CHANNELS[0])
        self.act1 = nn.ReLU(inplace=True)
        blocks = (BasicBlock,) * len(_CHANNELS)
        stages, _ = make_blocks(
            blocks, _CHANNELS, (1, 1, 1), _CHANNELS[0], norm_layer=nn.BatchNorm2d, act_layer=nn.ReLU
        )
        self.layer1, self.layer2, self.layer3 = (stage for _, stage in stages)
        self.head = nn.Conv2d(_CHANNELS[1] + _CHANNELS[2], num_classes, kernel_size=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """The logits of images."""
        fine = self.layer2(self.layer1(self.act1(self.bn1(self.conv1(images)))))
        coarse = interpolate(self.layer3(fine), size=fine.shape[-2:], mode="bilinear", align_corners=False)
        return self.head(torch.cat([fine, coarse], dim=1))


default_cfgs = generate_default_cfgs(
    {
        "small_fcn": {
            "url": "",
            "num_classes": 11,
            "input_size": (3, 48, 48),
            "first_conv": "conv1",
            "classifier": "head",
            "mean": None,  # no trained weights, so nothing says how images are normalised
            "std": None,
            "license": "apache-2.0",
        }
    }
)


@register_model
def small_fcn(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A `SmallFCN` (78 thousand parameters at 11 classes)."""
    return build_model_with_cfg(SmallFCN, "small_fcn", pretrained, **kwargs)
