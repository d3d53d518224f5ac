"""Whether an arm of segmentation can run: its config is made, its segmentor built and called on the meta device."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS

from image2video.data import Augmentation
from image2video.errors import StateError
from image2video.integrations.openmmlab.search_config import crop_size
from image2video.integrations.openmmlab.search_model import quiet
from image2video.reproduce.book import Run
from image2video.reproduce.genotypes import Chosen
from image2video.reproduce.policies import Policy
from image2video.reproduce.segment_config import arm_config, arm_steps
from image2video.reproduce.segment_reading import read_config
from image2video.reproduce.size import Network, call_once


def check_segmentor(run: Run, chosen: Chosen | None) -> Network:
    """The segmentor of an arm and its steps; nothing is read but configs, and no memory is used for weights.

    It is called with one image of the size of a training crop; `macs` are those of its decode head's logits. A policy
    that is searched for has its family's default in its stead. Raises what making the config and building and calling
    the segmentor raise, and `StateError` where it gives other than logits.
    """
    arm, setting = run.arm, run.setting
    policy = None if arm.augment is None else str(Augmentation.parse(arm.augment.removeprefix("search:")))
    plain = read_config(setting)
    config = arm_config(arm, setting, run.seed, plain, chosen, Policy(policy), work_dir=Path(run.stem))
    size = crop_size(plain)
    with quiet(), warnings.catch_warnings(), DefaultScope.overwrite_default_scope("mmseg"):
        # Said of every loss of every arm; here nothing is lost.
        warnings.filterwarnings("ignore", "Default ``avg_non_ignore``")
        segmentor = _on_meta(config.model)
    logits, parameters, macs = call_once(segmentor, (3, *size), mode="tensor")
    if logits.ndim != 4 or tuple(logits.shape[:2]) != (1, segmentor.out_channels):
        raise StateError(f"one image must give (1, {segmentor.out_channels}, h, w), got {tuple(logits.shape)}")
    fusion = getattr(segmentor, "video_fusion", None)
    return Network(
        input_size=(3, *size),
        classes=segmentor.num_classes,
        sites=0 if fusion is None else len(fusion._plan.sites),
        parameters=parameters,
        macs=macs,
        steps=arm_steps(arm, setting, plain),
    )


def _on_meta(model: Any) -> Any:
    """The segmentor with all parameters on the meta device; its data preprocessor, which says the colours, is real."""
    preprocessor = MODELS.build(model.data_preprocessor)
    with torch.device("meta"):
        return MODELS.build({**model, "data_preprocessor": preprocessor}).eval()
