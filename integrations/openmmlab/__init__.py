"""image2video in mmsegmentation: importing this package registers its classes with mmsegmentation's registries.

custom_imports = dict(imports=["image2video.integrations.openmmlab"])
model = dict(type="VideoEncoderDecoder", video=dict(genotype="translate_x(0.02) > scale(1.05)", T=5))
"""

from image2video.integrations.openmmlab.backbone import VideoBackbone
from image2video.integrations.openmmlab.camvid import CamVidDataset
from image2video.integrations.openmmlab.config_files import CONFIGS
from image2video.integrations.openmmlab.exact_resume import ExactResumeHook
from image2video.integrations.openmmlab.heads import HeadOutputs, HeadRule, register_head_rule
from image2video.integrations.openmmlab.mask_heads import PointRule, QueryRule
from image2video.integrations.openmmlab.options import VideoOptions
from image2video.integrations.openmmlab.segmentor import VideoCascadeEncoderDecoder, VideoEncoderDecoder
from image2video.integrations.openmmlab.timm_features import TimmFeatures
from image2video.integrations.openmmlab.wide_resnet import WideResNet38

__all__ = [
    "CONFIGS",
    "CamVidDataset",
    "ExactResumeHook",
    "HeadOutputs",
    "HeadRule",
    "PointRule",
    "QueryRule",
    "TimmFeatures",
    "VideoBackbone",
    "VideoCascadeEncoderDecoder",
    "VideoEncoderDecoder",
    "VideoOptions",
    "WideResNet38",
    "register_head_rule",
]
