"""Fusion modules: frames in, frames of the same shape out, mixed along T within each clip."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from image2video.fusion.base import Fusion, Placement
    from image2video.fusion.config import (
        Conv3dConfig,
        FusionConfig,
        GSFConfig,
        GSMConfig,
        NoFusionConfig,
        TSMConfig,
    )
    from image2video.fusion.conv3d import Conv3d
    from image2video.fusion.gsf import GSF
    from image2video.fusion.gsm import GSM
    from image2video.fusion.registry import (
        RegisteredConfig,
        config_from_dict,
        fusion_names,
        register_fusion,
        resolve_fusion,
    )
    from image2video.fusion.shift import shift_frames
    from image2video.fusion.testing import check_fusion
    from image2video.fusion.tsm import TSM
else:
    from image2video.late import late

    __getattr__, __dir__ = late(
        __name__,
        {
            "base": ("Fusion", "Placement"),
            "config": ("Conv3dConfig", "FusionConfig", "GSFConfig", "GSMConfig", "NoFusionConfig", "TSMConfig"),
            "conv3d": ("Conv3d",),
            "gsf": ("GSF",),
            "gsm": ("GSM",),
            "registry": ("RegisteredConfig", "config_from_dict", "fusion_names", "register_fusion", "resolve_fusion"),
            "shift": ("shift_frames",),
            "testing": ("check_fusion",),
            "tsm": ("TSM",),
        },
    )

__all__ = [
    "GSF",
    "GSM",
    "TSM",
    "Conv3d",
    "Conv3dConfig",
    "Fusion",
    "FusionConfig",
    "GSFConfig",
    "GSMConfig",
    "NoFusionConfig",
    "Placement",
    "RegisteredConfig",
    "TSMConfig",
    "check_fusion",
    "config_from_dict",
    "fusion_names",
    "register_fusion",
    "resolve_fusion",
    "shift_frames",
]
