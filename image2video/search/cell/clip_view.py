"""Images as a network sees them through one clip, at the image or at several places."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from image2video.clip.deep_video import DeepVideo
from image2video.clip.frames import frames_to_clip
from image2video.clip.image_to_video import Image2Video
from image2video.inject.clip_site import ClipSite
from image2video.search.cell.view import View
from image2video.wrap.ways import way_back


def clip_view(
    video: Image2Video | DeepVideo, images: Tensor, sites: Sequence[ClipSite] = (), *, shared: int = 0
) -> View:
    """Return images as they go into a network, with the way back; making frames at the image gives no gradient.

    Args:
        video: the clip.
        images: `(B, C, H, W)`.
        sites: the places inside of the network, where the clip moves there.
        shared: behind how many of the places frames that are the same up to there are one row. The network then gets
            them as clips of so many frames.
    """
    size = (images.shape[-2], images.shape[-1])
    if isinstance(video, Image2Video):
        return View(_without_gradient(video, images), lambda maps: video.unwarped_mean(maps, size))
    maker, back = video.frames_of_call(shared=shared), way_back(video, sites, size)
    inputs = images
    if maker.begins_at_image:
        rows = maker.counts[0]
        inputs = _without_gradient(lambda part: frames_to_clip(maker.image_frames(part), rows), images)
    return View(inputs, lambda maps: back.unwarped_mean(maps, size), maker)


def _without_gradient(make: object, images: Tensor) -> Tensor:
    """Return what `make` makes of images, in full precision."""
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        made: Tensor = make(images)  # type: ignore[operator]
    return made
