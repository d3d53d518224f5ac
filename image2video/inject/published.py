"""Where published video networks have their fusions: `sites="published"`, for the backbones of their own code alone.

The lists were compared with the configuration files and the code that the authors published. The general rule is in
`rule.py`; it names no family.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from image2video.errors import InputError
from image2video.fusion.config import FusionConfig
from image2video.inject.plan import Site

PUBLISHED = "published"

_PLAIN, _REDUCTIONS = ("3a", "3b", "4a", "4b", "4c", "4d", "5a", "5b"), ("3c", "4e")
_BN_INCEPTION = tuple(f"blocks.mixed_{name}.one.conv" for name in _PLAIN)
_BN_INCEPTION += tuple(f"blocks.mixed_{name}.three.0.conv" for name in _REDUCTIONS)
_BN_INCEPTION_CAFFE = tuple(f"inception_{name}_1x1" for name in _PLAIN)
_BN_INCEPTION_CAFFE += tuple(f"inception_{name}_3x3_reduce" for name in _REDUCTIONS)
_INCEPTION_V3 = tuple(f"Mixed_{n}.branch1x1.conv" for n in ("5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b", "7c"))
_INCEPTION_V3 += ("Mixed_6a.branch3x3.conv", "Mixed_7a.branch3x3_1.conv")

INCEPTIONS = (_BN_INCEPTION, _BN_INCEPTION_CAFFE, _INCEPTION_V3)
"""GSF in inception networks (Sudhakaran et al., TPAMI 2023): 10 in BN-Inception, 11 in Inception-v3.

There is one per module: on the 1×1 branch, or in a reduction, which has none, on one convolution. The names are of
our BN-Inception, of Caffe's, and of the Inception-v3 of timm and torchvision.
"""

MANY_BLOCKS = 23
"""Blocks of the third stage from which TSM shifts in every second block only, in all stages (Lin et al., ICCV 2019)."""


def published_names(backbone: nn.Module, config: FusionConfig, found: Sequence[Site]) -> tuple[str, ...]:
    """The modules at which a published network has its fusions.

    Args:
        backbone: the bare network.
        config: the fusion; there are recipes for `gsf` and `tsm`.
        found: the sites of the general rule.

    Raises:
        InputError: no published network has this fusion in this backbone.
    """
    blocks = {site.block: site for site in found}
    stages = _resnet_stages(backbone)
    if stages and set(blocks) == set().union(*stages) and len(found) == len(blocks):
        if config.name == "gsf":  # in every block, where the rule has it
            return tuple(site.name for site in found)
        if config.name == "tsm":
            step = 2 if len(stages[2]) >= MANY_BLOCKS else 1
            return tuple(blocks[block].name for stage in stages for block in stage[::step])
    if config.name == "gsf":
        running = {name for name, _ in backbone.named_modules()}
        for names in INCEPTIONS:
            if running.issuperset(names):
                return names
    raise InputError(
        f"sites='published' knows gsf in ResNets, BN-Inception and Inception-v3, and tsm in ResNets; got "
        f"{config.name!r} in {type(backbone).__name__}: leave sites out, or name modules"
    )


def _resnet_stages(backbone: nn.Module) -> list[list[str]]:
    """The paths of a ResNet's blocks by stage; empty for what is no ResNet."""
    stages = [getattr(backbone, f"layer{number}", None) for number in range(1, 5)]
    if not all(isinstance(stage, nn.Sequential) for stage in stages):
        return []
    named = enumerate((stage for stage in stages if stage is not None), 1)
    return [[f"layer{number}.{name}" for name, _ in stage.named_children()] for number, stage in named]
