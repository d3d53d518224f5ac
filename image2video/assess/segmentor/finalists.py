"""The averages of a segmentor's predictions that need no search."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from image2video.assess.finalists import Finalist
from image2video.assess.segmentor.assessment import video_options
from image2video.clip.frame_set import FrameSet
from image2video.errors import Image2VideoError
from image2video.search.score.network import macs_per_frame
from image2video.wrap.phases import PHASES

if TYPE_CHECKING:  # mmsegmentation takes seconds to import, and may not be there
    from image2video.integrations.openmmlab.trained import TrainedSegmentor

SETS = {
    "mirror": ("the image and its mirror image", "identity | flip_x"),
    "zoom_in": ("the image and a zoom of 1.2", "identity | scale(1.2)"),
    "zoom_out": ("the image and a zoom of 1 / 1.2", "identity | scale(0.8333)"),
    "zooms": ("the image and both zooms", "identity | scale(1.2) | scale(0.8333)"),
    "shifts": ("the image and two shifts of 3 %", "identity | translate_x(0.03) | translate_x(-0.03)"),
    "mirror_zoom": ("the image, its mirror image and a zoom", "identity | flip_x | scale(1.2)"),
}
"""Name -> title and frames: the test-time averages that people use without any search."""

_PHASES = (2, 3)
"""Frames of the clip of phases: each number is a segmentor of its own to build."""


def plain_averages(max_cost: float) -> list[Finalist]:
    """The plain averages of at most so many frames."""
    found = []
    for name, (title, text) in SETS.items():
        T = FrameSet.parse(text).T
        if max_cost >= T:
            found.append(Finalist(name, title, text, T, cost=T))
    return found


def phases_of_backbone(segmentor: TrainedSegmentor, example: Tensor, max_cost: float) -> list[Finalist]:
    """The clip that brings back what the backbone's first strides throw away: three frames, or two.

    None where two frames cost too much, where the backbone has no such strides, and where heads take features from
    before them.

    Args:
        segmentor: the trained one.
        example: an image `(1, C, H, W)`.
        max_cost: the most that an image may cost.
    """
    from image2video.integrations.openmmlab.trained import Inference

    with torch.no_grad():
        bare = macs_per_frame(Inference(segmentor.plain), example)
        found: list[Finalist] = []
        try:
            for T in _PHASES:
                clip = Finalist("phases", "the image at other phases of the strides", PHASES, T)
                made = segmentor.with_clip(video_options(clip))
                cost = macs_per_frame(Inference(made), example) / bare
                if cost > max_cost:
                    break
                found = [Finalist(clip.name, clip.title, PHASES, T, cost=cost)]
        except Image2VideoError:
            pass
    return found
