"""ResNets for small images (32×32), as timm models: a 3×3 stem of stride 1 and no max-pool.

Importing this module registers `cifar_resnet8`, `14`, `18`, `34`, `50`, `101` and `152` with timm, so that
`timm.create_model("cifar_resnet18", num_classes=10)` works.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.layers import get_act_layer, get_norm_layer
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet, make_blocks
from torch import nn

_TIMM_STEM_CHANNELS = 64
_TIMM_STEM_STRIDE = 4
_MAX_STAGES = 4


class CifarResNet(ResNet):
    """timm's `ResNet` with a 3×3 stem of stride 1, no max-pool, and three or four stages.

    The stem is the one that the literature uses on CIFAR (He et al., CVPR 2016, section 4.2): a 32×32 image reaches
    the first stage at its full resolution. `stem_channels` is the stem's width; `channels` has one width per stage.
    """

    def __init__(
        self,
        block: Any,
        layers: tuple[int, ...],
        *,
        channels: tuple[int, ...] = (64, 128, 256, 512),
        stem_channels: int = _TIMM_STEM_CHANNELS,
        in_chans: int = 3,
        norm_layer: Any = nn.BatchNorm2d,
        act_layer: Any = nn.ReLU,
        zero_init_last: bool = True,
        drop_path_rate: float = 0.0,
        **kwargs: Any,
    ) -> None:
        shared: dict[str, Any] = {
            "norm_layer": get_norm_layer(norm_layer),
            "act_layer": get_act_layer(act_layer),
            "drop_path_rate": drop_path_rate,
        }
        super().__init__(block, layers, channels=channels, in_chans=in_chans, **shared, **kwargs)
        placement: dict[str, Any] = {"device": kwargs.get("device"), "dtype": kwargs.get("dtype")}
        stem = nn.Conv2d(in_chans, stem_channels, kernel_size=3, padding=1, bias=False, **placement)
        self.add_module("conv1", stem)
        self.add_module("maxpool", nn.Identity())
        stem_info: dict[str, Any] = {"num_chs": stem_channels, "reduction": 1, "module": "act1"}
        stages_info: list[dict[str, Any]] = self.feature_info[1:]
        self.feature_info = [stem_info, *stages_info]
        if stem_channels != _TIMM_STEM_CHANNELS:
            # timm fixes the stem at 64 channels: another width needs its own norm and first stage.
            self.bn1 = type(self.bn1)(stem_channels, **placement)
            options = shared | (kwargs.get("block_args") or {}) | placement
            stages, _ = make_blocks((block,) * len(channels), channels, layers, stem_channels, **options)
            self.layer1 = stages[0][1]
        for index in range(len(channels), _MAX_STAGES):
            setattr(self, f"layer{index + 1}", nn.Sequential())
        for info in stages_info:
            info["reduction"] //= _TIMM_STEM_STRIDE
        self.init_weights(zero_init_last=zero_init_last)


_THIN: dict[str, Any] = {"channels": (16, 32, 64), "stem_channels": 16}
_VARIANTS: dict[str, dict[str, Any]] = {  # the blocks of each stage; beside them the parameters at 10 classes
    "cifar_resnet8": {"block": BasicBlock, "layers": (1, 1, 1), **_THIN},  # 78 thousand
    "cifar_resnet14": {"block": BasicBlock, "layers": (2, 2, 2), **_THIN},  # 175 thousand
    "cifar_resnet18": {"block": BasicBlock, "layers": (2, 2, 2, 2)},  # 11.17 million
    "cifar_resnet34": {"block": BasicBlock, "layers": (3, 4, 6, 3)},  # 21.28 million
    "cifar_resnet50": {"block": Bottleneck, "layers": (3, 4, 6, 3)},  # 23.52 million
    "cifar_resnet101": {"block": Bottleneck, "layers": (3, 4, 23, 3)},  # 42.51 million
    "cifar_resnet152": {"block": Bottleneck, "layers": (3, 8, 36, 3)},  # 58.16 million
}


def _cfg(variant: str) -> dict[str, Any]:
    """What timm knows of a variant; three stages leave maps of 8×8 pixels, four of 4×4."""
    return {
        "url": "",
        "num_classes": 10,
        "input_size": (3, 32, 32),
        "pool_size": (8, 8) if len(_VARIANTS[variant]["layers"]) == 3 else (4, 4),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": (0.4914, 0.4822, 0.4465),
        "std": (0.2470, 0.2435, 0.2616),
        "first_conv": "conv1",
        "classifier": "fc",
        "license": "apache-2.0",
    }


default_cfgs = generate_default_cfgs({variant: _cfg(variant) for variant in _VARIANTS})


def _entry_point(variant: str) -> Callable[..., nn.Module]:
    """The function that timm's registry calls for a variant; arguments of the caller go before those of the table."""

    def entry(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        options = _VARIANTS[variant] | kwargs
        indices = tuple(range(len(options["layers"]) + 1))
        return build_model_with_cfg(CifarResNet, variant, pretrained, feature_cfg={"out_indices": indices}, **options)

    entry.__name__ = entry.__qualname__ = variant
    entry.__doc__ = f"`{variant}`: a `CifarResNet` of {len(_VARIANTS[variant]['layers'])} stages."
    return entry


for _variant in _VARIANTS:
    # timm finds an architecture as a function of its module.
    globals()[_variant] = register_model(_entry_point(_variant))
