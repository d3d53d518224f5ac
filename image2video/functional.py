"""The few names of the core that integrations build on; whatever else they need is private to the core."""

from image2video.clip.cover import LEAST_COVER, divisor_of
from image2video.clip.frame_set import FrameSet
from image2video.clip.genotype import DEFAULT_GENOTYPE, Genotype
from image2video.clip.image_to_video import Image2Video, clip_to_frames, frames_to_clip
from image2video.errors import Image2VideoError, InputError, InputTypeError, MissingError, StateError, UnsupportedError
from image2video.fusion import FusionConfig, resolve_fusion
from image2video.inject import Injection, Plan, Site, inject_, plan
from image2video.wrap.aggregate import OutputFormats, aggregate
from image2video.wrap.builders import Builder
from image2video.wrap.checkpoint import adapt_state_dict
from image2video.wrap.steps import output_formats, plan_for
from image2video.wrap.video_wrap import VideoWrap

__all__ = [
    "DEFAULT_GENOTYPE",
    "LEAST_COVER",
    "Builder",
    "FrameSet",
    "FusionConfig",
    "Genotype",
    "Image2Video",
    "Image2VideoError",
    "Injection",
    "InputError",
    "InputTypeError",
    "MissingError",
    "OutputFormats",
    "Plan",
    "Site",
    "StateError",
    "UnsupportedError",
    "VideoWrap",
    "adapt_state_dict",
    "aggregate",
    "clip_to_frames",
    "divisor_of",
    "frames_to_clip",
    "inject_",
    "output_formats",
    "plan",
    "plan_for",
    "resolve_fusion",
]
