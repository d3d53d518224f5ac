"""Test images in another pose than the training images: tilted, smaller, shifted, or each in one of several ways."""

from __future__ import annotations

from dataclasses import replace

import torch

from image2video.clip.any_clip import as_clip, options_for
from image2video.clip.frame_set import FrameSet
from image2video.clip.genotype import Genotype
from image2video.clip.image_to_video import Image2Video
from image2video.data import DataSource, MemorySet
from image2video.errors import UnsupportedError

_AT_ONCE = 1024  # images, of which float copies are made


def check_pose(text: str) -> None:
    """Refuse a pose that is neither a genotype nor a frame set."""
    _frames(text)


def posed(data: DataSource, pose: str, padding: str) -> DataSource:
    """The data with all held-out and test images moved; the training images stay as they are.

    Args:
        data: in memory.
        pose: a genotype, which moves every image once, or a frame set, whose frames take turns from image to image.
        padding: what lies outside the image.

    Returns:
        The data; images are rounded to whole grey levels, as files would hold them.

    Raises:
        UnsupportedError: images that are read from files.
    """
    holdout = None if data.holdout is None else _moved(data.holdout, data, pose, padding)
    return replace(data, test=_moved(data.test, data, pose, padding), holdout=holdout)


def _moved(images: object, data: DataSource, pose: str, padding: str) -> MemorySet:
    if not isinstance(images, MemorySet):
        raise UnsupportedError(f"pose={pose!r:.80} moves images in memory, got {type(images).__name__}; use npz:PATH")
    pixels = torch.stack([images.raw(index) for index in range(images.num_images)])
    frames = _frames(pose)
    for turn, frame in enumerate(frames):
        clip = FrameSet((frame,))
        to_video = Image2Video.of(clip, options_for(clip, padding=padding, mean=0.0, std=1.0))
        mine = torch.arange(turn, len(pixels), len(frames))
        for places in mine.split(_AT_ONCE):
            moved = to_video(pixels[places].float() / 255)[:, 0]
            pixels[places] = (moved * 255).round().clamp(0, 255).to(torch.uint8)
    return MemorySet(pixels, images.labels, mean=data.mean, std=data.std)


def _frames(text: str) -> tuple[Genotype, ...]:
    clip = as_clip(text)
    return clip.frames if isinstance(clip, FrameSet) else (clip,)
