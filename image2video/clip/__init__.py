"""An image becomes a clip: genotypes, the geometry and colours of their ops, and the frames that come of them."""

from typing import TYPE_CHECKING

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
else:
    from image2video.late import late

    __getattr__, __dir__ = late(
        __name__,
        {
            "colours": ("Colours",),
            "deep_clip": ("DeepClip",),
            "frame_set": ("FrameSet",),
            "frame_sources": ("FrameSource",),
            "genotype": ("DEFAULT_GENOTYPE", "Genotype", "Transform"),
            "image_to_video": ("Image2Video", "clip_to_frames", "frames_to_clip"),
            "ops.op": ("Op",),
            "ops.registry": ("register_op",),
            "options": ("ClipOptions",),
            "random_clips": ("RandomClips",),
        },
    )

__all__ = [
    "DEFAULT_GENOTYPE",
    "ClipOptions",
    "Colours",
    "DeepClip",
    "FrameSet",
    "FrameSource",
    "Genotype",
    "Image2Video",
    "Op",
    "RandomClips",
    "Transform",
    "clip_to_frames",
    "frames_to_clip",
    "register_op",
]
