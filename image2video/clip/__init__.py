"""An image becomes a clip: genotypes, the geometry and colours of their ops, and the frames that come of them."""

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
