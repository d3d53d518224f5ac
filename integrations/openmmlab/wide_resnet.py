"""The wide residual network with 38 layers of Wu et al., as a backbone of mmsegmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from image2video.functional import InputError

# Per stage B2 … B7: units, widths of a unit's convolutions in units of `base_channels`, their kernels.
_BASIC, _BOTTLENECK = (3, 3), (1, 3, 1)
_STAGES = (
    (3, (2, 2), _BASIC),
    (3, (4, 4), _BASIC),
    (6, (8, 8), _BASIC),
    (3, (8, 16), _BASIC),
    (1, (8, 16, 32), _BOTTLENECK),
    (1, (16, 32, 64), _BOTTLENECK),
)
_HALVED = 5
"""Stages that halve the map in the network for classification: B2 … B6."""

STRIDES = (8, 16, 32)

_INIT = [{"type": "Kaiming", "layer": "Conv2d"}, {"type": "Constant", "val": 1, "layer": ["_BatchNorm", "GroupNorm"]}]


class PreActivationUnit(nn.Module):
    """norm → ReLU → convolution, twice (3×3, 3×3) or three times (1×1, 3×3, 1×1), added to the shortcut.

    Where widths or the stride change, the shortcut is a 1×1 convolution of the first activation, and the input itself
    elsewhere. The first convolution has the stride. Dropout, where there is any, stands before the last one.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        kernels: Sequence[int],
        *,
        stride: int,
        dilations: Sequence[int],
        dropout: float,
        norm_cfg: dict[str, Any],
    ) -> None:
        super().__init__()
        self.norms, self.convs = nn.ModuleList(), nn.ModuleList()
        channels = in_channels
        for index, (width, kernel, dilation) in enumerate(zip(widths, kernels, dilations, strict=True)):
            self.norms.append(build_norm_layer(norm_cfg, channels)[1])
            reach = dilation * (kernel // 2)
            step = stride if index == 0 else 1
            self.convs.append(
                nn.Conv2d(channels, width, kernel, step, padding=reach, dilation=dilation if reach else 1, bias=False)
            )
            channels = width
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout2d(dropout) if dropout else None
        changes = in_channels != channels or stride != 1
        self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(N, in_channels, H, W)` -> `(N, widths[-1], H / stride, W / stride)`."""
        out = self.relu(self.norms[0](x))
        kept = x if self.shortcut is None else self.shortcut(out)
        for index, conv in enumerate(self.convs):
            if index:
                out = self.relu(self.norms[index](out))
            if self.dropout is not None and index == len(self.convs) - 1:
                out = self.dropout(out)
            out = conv(out)
        return kept + out


@MODELS.register_module()
class WideResNet38(BaseModule):
    """ResNet-38 of Wu, Shen and van den Hengel, "Wider or Deeper" (Pattern Recognition 2019), without its classifier.

    A 3×3 stem and six stages B2 … B7 of pre-activation units; images `(N, C, H, W)` -> a tuple of maps. With 64 base
    channels, stage by stage (index: units, channels, stride at `output_stride` 8):

        0 stem     64  1 | 1 B2 3  128  2 | 2 B3 3  256  4 | 3 B4 6  512  8
        4 B5 3   1024  8 | 5 B6 1 2048  8 | 6 B7 1 4096  8

    105 million parameters; 124 with the classifier of two convolutions that the authors put on it for PASCAL VOC, 137
    under the head of DeepLabV3+. Maps are sums of residuals, which no norm has seen, but for the last one, which
    follows the network's closing norm and ReLU.

    This is the authors' model A1, the one of their VOC results: it halves maps by strided convolutions. (Model A does
    so by max pooling and has the same parameters; model A2 is trained on another data set.) In the stages that halve
    the map for classification but not here, dilation takes the place of the stride: the unit's first convolution still
    has the dilation of the stage before, all later ones the doubled one.

    Args:
        in_channels: channels of the images.
        base_channels: channels of the stem, of which all widths are multiples; 64 in the publication.
        output_stride: of the last maps: 8 as published for segmentation, 16, or 32 as for classification.
        out_indices: the stages whose maps are returned, in ascending order. The default gives four, as the stock heads
            expect: `in_index=3` has 4096 channels, `in_index=2` 2048.
        dropout: the rates in B6 and B7.
        norm_cfg: mmcv's config of the norms.
        norm_eval: keep batch norms in eval mode in training too.
        init_cfg: as in any `BaseModule`; without it, convolutions are initialised by He's rule.

    Raises:
        InputError: an output stride or stages that there are not.
    """

    def __init__(
        self,
        in_channels: int = 3,
        base_channels: int = 64,
        output_stride: int = 8,
        out_indices: Sequence[int] = (3, 4, 5, 6),
        dropout: Sequence[float] = (0.3, 0.5),
        norm_cfg: dict[str, Any] | None = None,
        norm_eval: bool = False,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(_INIT if init_cfg is None else init_cfg)
        if output_stride not in STRIDES:
            raise InputError(f"model.backbone.output_stride must be one of {STRIDES}, got {output_stride!r}")
        stages = len(_STAGES)
        known = all(isinstance(i, int) and 0 <= i <= stages for i in out_indices)
        if not (out_indices and known and sorted(set(out_indices)) == list(out_indices)):
            raise InputError(
                f"model.backbone.out_indices must be ascending stages from 0 (stem) to {stages}, got "
                f"{tuple(out_indices)}"
            )
        if len(dropout) != 2 or not all(0 <= rate < 1 for rate in dropout):
            raise InputError(
                f"model.backbone.dropout must be the two rates of B6 and B7, in 0 … 1, got {tuple(dropout)}"
            )
        norm_cfg = {"type": "BN", "requires_grad": True} if norm_cfg is None else norm_cfg
        self.out_indices = tuple(out_indices)
        self.norm_eval = norm_eval
        self.stem = nn.Conv2d(in_channels, base_channels, 3, padding=1, bias=False)
        self.stages = nn.ModuleList()
        channels, reached, dilation = base_channels, 1, 1
        rates = (*[0.0] * (stages - len(dropout)), *dropout)
        # Stages above the highest that is returned would have parameters without a gradient.
        for index, (units, factors, kernels) in enumerate(_STAGES[: self.out_indices[-1]]):
            stride, before = 1, dilation
            if index < _HALVED and reached < output_stride:
                stride = 2
                reached *= 2
            elif index < _HALVED:  # dilation takes the place of the stride
                dilation *= 2
            widths = [base_channels * factor for factor in factors]
            shared: dict[str, Any] = {"dropout": rates[index], "norm_cfg": norm_cfg}
            later = (dilation,) * (len(kernels) - 1)
            first = PreActivationUnit(channels, widths, kernels, stride=stride, dilations=(before, *later), **shared)
            stage = nn.Sequential(first)
            channels = widths[-1]
            for _ in range(units - 1):
                stage.append(
                    PreActivationUnit(channels, widths, kernels, stride=1, dilations=(dilation, *later), **shared)
                )
            self.stages.append(stage)
        self.closing = stages in self.out_indices
        if self.closing:
            self.norm = build_norm_layer(norm_cfg, channels)[1]
            self.relu = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The maps of the stages `out_indices`."""
        x = self.stem(images)
        maps = [x] if 0 in self.out_indices else []
        for index, stage in enumerate(self.stages, 1):
            x = stage(x)
            if index == len(_STAGES):
                x = self.relu(self.norm(x))
            if index in self.out_indices:
                maps.append(x)
        return tuple(maps)

    def train(self, mode: bool = True) -> WideResNet38:
        """Set the training mode; with `norm_eval`, batch norms stay in eval mode."""
        super().train(mode)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
