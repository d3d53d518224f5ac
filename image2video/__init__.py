"""Turn an image into a short video, and a backbone into a network that fuses its frames."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from image2video.moved import install as install_old_paths
from image2video.version import __version__

if TYPE_CHECKING:
    from image2video.clip.colours import Colours
    from image2video.clip.deep_clip import DeepClip
    from image2video.clip.frame_set import FrameSet
    from image2video.clip.frame_sources import FrameSource
    from image2video.clip.genotype import DEFAULT_GENOTYPE, Genotype, Transform
    from image2video.clip.image_to_video import Image2Video, clip_to_frames, frames_to_clip
    from image2video.clip.ops.op import Op
    from image2video.clip.ops.registry import register_op
    from image2video.clip.options import ClipOptions
    from image2video.clip.random_clips import RandomClips
    from image2video.errors import (
        ExistsError,
        Image2VideoError,
        InputError,
        InputTypeError,
        MissingError,
        StateError,
        UnsupportedError,
    )
    from image2video.fusion import (
        Conv3dConfig,
        FusionConfig,
        GSFConfig,
        GSMConfig,
        NoFusionConfig,
        TSMConfig,
        register_fusion,
    )
    from image2video.inject import ClipSite, Injection, Plan, Site, clip_sites, inject_, plan
    from image2video.trace.layout import NCHW, NHWC, NLC, Layout
    from image2video.wrap.builders import Builder, register_builder
    from image2video.wrap.checkpoint import FreshFusionWarning
    from image2video.wrap.clip_record import ClipWarning
    from image2video.wrap.param_groups import param_groups
    from image2video.wrap.phases import phases
    from image2video.wrap.video_wrap import VideoWrap

install_old_paths()

_HOMES = {
    "clip.colours": ("Colours",),
    "clip.deep_clip": ("DeepClip",),
    "clip.frame_set": ("FrameSet",),
    "clip.frame_sources": ("FrameSource",),
    "clip.genotype": (
        "DEFAULT_GENOTYPE",
        "Genotype",
        "Transform",
    ),
    "clip.image_to_video": (
        "Image2Video",
        "clip_to_frames",
        "frames_to_clip",
    ),
    "clip.ops.op": ("Op",),
    "clip.ops.registry": ("register_op",),
    "clip.options": ("ClipOptions",),
    "clip.random_clips": ("RandomClips",),
    "errors": (
        "ExistsError",
        "Image2VideoError",
        "InputError",
        "InputTypeError",
        "MissingError",
        "StateError",
        "UnsupportedError",
    ),
    "fusion": (
        "Conv3dConfig",
        "FusionConfig",
        "GSFConfig",
        "GSMConfig",
        "NoFusionConfig",
        "TSMConfig",
        "register_fusion",
    ),
    "inject": (
        "ClipSite",
        "Injection",
        "Plan",
        "Site",
        "clip_sites",
        "inject_",
        "plan",
    ),
    "trace.layout": (
        "NCHW",
        "NHWC",
        "NLC",
        "Layout",
    ),
    "wrap.builders": ("Builder", "register_builder"),
    "wrap.checkpoint": ("FreshFusionWarning",),
    "wrap.clip_record": ("ClipWarning",),
    "wrap.param_groups": ("param_groups",),
    "wrap.phases": ("phases",),
    "wrap.video_wrap": ("VideoWrap",),
}
"""Module -> the public names that it has; a name is imported when it is first asked for, and torch with it."""
_ROOMS = ("clip", "fusion", "inject", "runs", "trace", "wrap")
"""Packages that are there after `import image2video` alone."""
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name where it stands; the command line's help needs none of them, and no torch."""
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    if name not in _HOME_OF:
        raise AttributeError(f"module 'image2video' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF, *_ROOMS})


__all__ = [
    "DEFAULT_GENOTYPE",
    "NCHW",
    "NHWC",
    "NLC",
    "Builder",
    "ClipOptions",
    "ClipSite",
    "ClipWarning",
    "Colours",
    "Conv3dConfig",
    "DeepClip",
    "ExistsError",
    "FrameSet",
    "FrameSource",
    "FreshFusionWarning",
    "FusionConfig",
    "GSFConfig",
    "GSMConfig",
    "Genotype",
    "Image2Video",
    "Image2VideoError",
    "Injection",
    "InputError",
    "InputTypeError",
    "Layout",
    "MissingError",
    "NoFusionConfig",
    "Op",
    "Plan",
    "RandomClips",
    "Site",
    "StateError",
    "TSMConfig",
    "Transform",
    "UnsupportedError",
    "VideoWrap",
    "__version__",
    "clip_sites",
    "clip_to_frames",
    "frames_to_clip",
    "inject_",
    "param_groups",
    "phases",
    "plan",
    "register_builder",
    "register_fusion",
    "register_op",
]
