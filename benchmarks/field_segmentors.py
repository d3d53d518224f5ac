"""Segmentors of mmsegmentation as plain networks: a call maps images to logits at the size of the head."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.runner import CheckpointLoader
from mmseg_models import build, plain, read
from torch import nn

from image2video import VideoWrap

STOCK = {"pspnet_r18": "pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py"}
FUSION = "video_fusion."


def pspnet(name: str) -> nn.Module:
    """A stock PSPNet with fresh weights."""
    return build(read(STOCK[name])).eval()


def from_checkpoint(path: Path, size: tuple[int, int, int]) -> nn.Module:
    """The network of a checkpoint that mmengine wrote, which holds its config: bare, or a `VideoWrap` of it.

    A `VideoWrap` of the plain segmentor is the video segmentor whose logits are averaged at the size of the head, and
    has units of single frames.
    """
    saved = CheckpointLoader.load_checkpoint(str(path), map_location="cpu")
    config = plain(Config.fromstring(saved["meta"]["cfg"], ".py").model)
    weights: dict[str, torch.Tensor] = saved["state_dict"]
    weights.pop("_extra_state", None)  # the clip, which the config says too
    bare_type = str(config["type"]).rpartition(".")[2].removeprefix("Video")
    bare_config = ConfigDict({key: value for key, value in config.items() if key != "video"} | {"type": bare_type})
    bare = build(bare_config).eval()
    bare.load_state_dict({key: value for key, value in weights.items() if not key.startswith(FUSION)})
    if "video" not in config:
        return bare
    video = build(config)
    plan, frames = video.video_fusion.plan, video.to_video
    clip = {name: getattr(frames, name) for name in ("genotype", "T", "schedule", "padding", "interpolation")}
    # The fusions of a video segmentor are in its backbone alone.
    sites = [f"backbone.{site.name}" for site in plan.sites] or None
    residual = video.video_options.residual
    wrapped = VideoWrap(bare, plan.fusion, **clip, residual=residual, sites=sites, input_size=size).eval()
    own = {f"backbone.{key.removeprefix(FUSION)}": value for key, value in weights.items() if key.startswith(FUSION)}
    wrapped.fusion.load_state_dict(own)
    return wrapped
