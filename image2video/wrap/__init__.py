"""`VideoWrap`: a trained backbone sees every image as a short video; its outputs, files and parameter groups."""

from image2video.wrap.builders import Builder
from image2video.wrap.checkpoint import FreshFusionWarning
from image2video.wrap.clip_record import ClipWarning
from image2video.wrap.param_groups import param_groups
from image2video.wrap.video_wrap import VideoWrap

__all__ = ["Builder", "ClipWarning", "FreshFusionWarning", "VideoWrap", "param_groups"]
