"""Segmentors of mmsegmentation as plain networks: a call maps images to logits at the size of the head."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mmseg
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader
from mmseg.registry import MODELS
from torch import nn

import image2video.integrations.openmmlab  # noqa: F401 (registers the video segmentors)
from image2video import VideoWrap

STOCK = {"pspnet_r18": "pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py"}
FUSION = "video_fusion."


def pspnet(name: str) -> nn.Module:
    """A stock PSPNet with fresh weights."""
    path = Path(mmseg.__path__[0]) / ".mim" / "configs" / STOCK[name]
    return segmentor(Config.fromfile(path).model).eval()


def segmentor(model: Any) -> nn.Module:
    """The segmentor of a config's `model`, without pretrained weights, batch norms for one process."""
    init_default_scope("mmseg")
    config = _plain(model.to_dict() if hasattr(model, "to_dict") else model)
    return MODELS.build(config)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {key: _plain(one) for key, one in value.items() if key not in ("pretrained", "init_cfg")}
        return kept | ({"type": "BN"} if kept.get("type") == "SyncBN" else {})
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def from_checkpoint(path: Path, size: tuple[int, int, int]) -> nn.Module:
    """The network of a checkpoint that mmengine wrote, which holds its config: bare, or a `VideoWrap` of it.

    A `VideoWrap` of the plain segmentor is the video segmentor whose logits are averaged at the size of the head, and
    has units of single frames.
    """
    saved = CheckpointLoader.load_checkpoint(str(path), map_location="cpu")
    config = dict(Config.fromstring(saved["meta"]["cfg"], ".py").model)
    weights: dict[str, torch.Tensor] = saved["state_dict"]
    bare_type = str(config["type"]).rpartition(".")[2].removeprefix("Video")
    bare = segmentor({key: value for key, value in config.items() if key != "video"} | {"type": bare_type}).eval()
    bare.load_state_dict({key: value for key, value in weights.items() if not key.startswith(FUSION)})
    if "video" not in config:
        return bare
    video = segmentor(config)
    plan, frames = video.video_fusion.plan, video.to_video
    clip = {name: getattr(frames, name) for name in ("genotype", "T", "schedule", "padding", "interpolation")}
    # The fusions of a video segmentor are in its backbone alone.
    sites = [f"backbone.{site.name}" for site in plan.sites] or None
    residual = video.video_options.residual
    wrapped = VideoWrap(bare, plan.fusion, **clip, residual=residual, sites=sites, input_size=size).eval()
    own = {f"backbone.{key.removeprefix(FUSION)}": value for key, value in weights.items() if key.startswith(FUSION)}
    wrapped.fusion.load_state_dict(own)
    return wrapped
