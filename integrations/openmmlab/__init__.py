"""image2video in mmsegmentation: importing this package registers its classes with mmsegmentation's registries.

custom_imports = dict(imports=["image2video.integrations.openmmlab"])
model = dict(type="VideoEncoderDecoder", video=dict(genotype="translate_x(0.02) > scale(1.05)", T=5))
"""

from image2video.integrations.openmmlab.heads import HeadOutputs, HeadRule, register_head_rule
from image2video.integrations.openmmlab.options import VideoOptions
from image2video.integrations.openmmlab.segmentor import VideoCascadeEncoderDecoder, VideoEncoderDecoder

__all__ = [
    "HeadOutputs",
    "HeadRule",
    "VideoCascadeEncoderDecoder",
    "VideoEncoderDecoder",
    "VideoOptions",
    "register_head_rule",
]
