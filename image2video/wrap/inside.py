"""Clips that move inside of the backbone: what may be asked of them, and what a call gives the backbone."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from image2video.clip.deep_clip import DeepClip
from image2video.clip.deep_video import DeepVideo
from image2video.clip.frame_sources import FrameSource
from image2video.clip.image_to_video import Image2Video
from image2video.clip.map_frames import check_inside
from image2video.errors import InputError
from image2video.inject.clip_hook import FrameMaker, PlaceMaker
from image2video.inject.clip_site import ClipSite
from image2video.inject.plan import Plan
from image2video.protocols import Unwarper
from image2video.trace.capture import is_captured
from image2video.wrap.clip_record import ClipWarning, Video

LITTLE = 0.5
"""The share of a map that a frame should show."""


class Given(NamedTuple):
    """What a backbone gets for images.

    Args:
        inputs: their frames `(B·T, C, H, W)`, or the images themselves where the clip begins inside of the backbone.
        T: frames per image.
        rows: B·T; None where it is not known.
        size: (height, width) of the images.
        unwarper: what brings maps of the frames back.
        maker: what makes the frames at places inside of the backbone; None where there are none.
    """

    inputs: Tensor
    T: int
    rows: int | None
    size: tuple[int, int]
    unwarper: Unwarper
    maker: FrameMaker | PlaceMaker | None = None


def check_begin(to_video: Video, name: str) -> None:
    """Raise `InputError` for a clip that cannot begin inside of a backbone: drawn frames, colours, one frame."""
    if not isinstance(to_video, Image2Video):
        raise InputError(
            f"frames={type(to_video).__name__} draws clips of images, and clip_at={name!r} lets the clip begin "
            "inside of the backbone; give a genotype, or leave clip_at out"
        )
    check_inside(to_video.genotype, f"at {name!r}")
    check_several(to_video.T, name)


def check_several(T: int, name: str) -> None:
    """Raise `InputError` for a clip of one frame inside of a backbone."""
    if T < 2:
        raise InputError(
            f"a clip inside of the backbone (clip_at={name!r}) has 2 frames or more, got T={T}; raise T, or call "
            "the bare backbone (model.unwrap())"
        )


def check_channels(images: Tensor, channels: int) -> None:
    """Raise `InputError` for images of other channels than the backbone was planned for; 0 where none are known."""
    if channels and images.shape[1] != channels:
        raise InputError(
            f"images have {images.shape[1]} channels, shape {tuple(images.shape)}; the backbone was planned for "
            f"{channels}: pass images (B, {channels}, H, W)"
        )


class Seen:
    """Warns, once for each size of images and T, of frames that show little of the map at a place."""

    def __init__(self) -> None:
        self._known: set[tuple[tuple[int, int], int, str]] = set()

    def look(self, to_video: Video, sites: Sequence[ClipSite], size: tuple[int, int], T: int) -> None:
        """Warn of a clip of images of this (height, width) where a frame's map shows less than half of it."""
        if is_captured() or isinstance(to_video, FrameSource):
            return
        key = (size, T, str(to_video.genotype))
        if key in self._known:
            return
        self._known.add(key)
        for site, video in zip(sites, inner_videos(to_video), strict=True):
            map_size = site.map_size_of(size)
            if map_size is not None:
                _look(video, site.name, map_size, size, T)


def _look(video: Image2Video, name: str, map_size: tuple[int, int], size: tuple[int, int], T: int) -> None:
    """Warn where a frame shows little of the map at one place."""
    shares = video.valid_share(map_size, size, T)
    least = min(shares)
    if least < LITTLE:
        warnings.warn(
            f"the map at {name!r} has {map_size[0]}×{map_size[1]} cells for images of {size[0]}×{size[1]}, and frame "
            f"{shares.index(least)} of {video.genotype} shows {100 * least:.0f} % of them, padding the rest; use "
            "milder magnitudes, another schedule, or a place with a larger map",
            ClipWarning,
            stacklevel=5,
        )


def inner_videos(to_video: Image2Video | DeepVideo) -> list[Image2Video]:
    """List what makes the frames of maps at each place inside of the backbone."""
    if isinstance(to_video, Image2Video):
        return [to_video]
    videos = to_video.place_videos()
    return videos[1:] if to_video.genotype.begins_at_image else videos


def check_cells(to_video: Video, plan: Plan) -> None:
    """Raise `InputError` for magnitudes in cells that a map is too small for, at the planned size of the images."""
    if not plan.clip_sites or not isinstance(to_video, Image2Video | DeepVideo):
        return
    for site, video in zip(plan.clip_sites, inner_videos(to_video), strict=True):
        try:
            video.genotype.check_cells(site.map_size)
        except InputError as error:
            height, width = plan.input_size[1:]
            raise InputError(
                f"the map at {site.name!r} has {site.map_size[0]}×{site.map_size[1]} cells for images of "
                f"{height}×{width}: {error}; or choose a place with a larger map, or wrap at the size that the images "
                "have"
            ) from error


def map_shape(site: ClipSite) -> tuple[int, int, int]:
    """Return channels, height and width of what is copied at a clip site."""
    return (site.channels, *site.map_size)


def named_as(to_video: Video, plan: Plan) -> Video:
    """Name the places of a clip as the plan does, which knows the other names of a place; without changing them."""
    if not isinstance(to_video, DeepVideo) or to_video.genotype.places == plan.places:
        return to_video
    clips = zip(plan.places, to_video.genotype.clips, strict=True)
    return DeepVideo(DeepClip(tuple(clips), to_video.genotype.provenance), to_video.options)
