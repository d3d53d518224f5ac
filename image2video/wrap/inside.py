"""Clips that begin inside of the backbone: what may be asked of them, and the way back from their frames."""

from __future__ import annotations

import warnings
from typing import NamedTuple

from torch import Tensor

from image2video.clip.frame_sources import FrameSource
from image2video.clip.image_to_video import Image2Video
from image2video.clip.map_frames import check_inside
from image2video.errors import InputError
from image2video.inject.clip_site import ClipSite
from image2video.protocols import Unwarper
from image2video.trace.capture import is_captured
from image2video.wrap.clip_record import ClipWarning

LITTLE = 0.5
"""The share of a map that a frame should show."""


class Given(NamedTuple):
    """What a backbone gets for images.

    Args:
        inputs: their frames `(B·T, C, H, W)`, or the images themselves where the clip begins inside of the backbone.
        T: frames per image.
        rows: B·T.
        size: (height, width) of the images.
        unwarper: what brings maps of the frames back.
    """

    inputs: Tensor
    T: int
    rows: int
    size: tuple[int, int]
    unwarper: Unwarper


def check_begin(to_video: Image2Video | FrameSource, name: str) -> None:
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


class Seen:
    """Warns, once for each size of images and T, of frames that show little of the map where the clip begins."""

    def __init__(self) -> None:
        self._known: set[tuple[tuple[int, int], int, str]] = set()

    def look(self, to_video: Image2Video | FrameSource, site: ClipSite, size: tuple[int, int], T: int) -> None:
        """Warn of a clip of images of this (height, width) where a frame's map shows less than half of it."""
        if is_captured() or not isinstance(to_video, Image2Video):
            return
        key = (size, T, str(to_video.genotype))
        map_size = site.map_size_of(size)
        if key in self._known or map_size is None:
            return
        self._known.add(key)
        shares = to_video.valid_share(map_size, size, T)
        least = min(shares)
        if least < LITTLE:
            warnings.warn(
                f"the map at {site.name!r} has {map_size[0]}×{map_size[1]} cells for images of {size[0]}×{size[1]}, "
                f"and frame {shares.index(least)} of {to_video.genotype} shows {100 * least:.0f} % of them, padding "
                "the rest; use milder magnitudes, another schedule, or a place with a larger map",
                ClipWarning,
                stacklevel=4,
            )


class NoWayBack:
    """Stands for the way back where it is not known; vectors need none.

    Args:
        reason: what it says to whoever asks for it.
    """

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def unwarped_mean(self, maps: Tensor, image_size: tuple[int, int], T: int | None = None) -> Tensor:
        """Raise `InputError`."""
        raise InputError(self._reason)


def map_shape(site: ClipSite) -> tuple[int, int, int]:
    """Return channels, height and width of what is copied at a clip site."""
    return (site.channels, *site.map_size)


def way_back(to_video: Image2Video | FrameSource, site: ClipSite | None, size: tuple[int, int]) -> Unwarper:
    """Return what brings maps of the frames back to images of this (height, width)."""
    if site is None or not isinstance(to_video, Image2Video) or not to_video.genotype.has_cells:
        return to_video
    map_size = site.map_size_of(size)
    if map_size is None:
        return NoWayBack(
            f"clip_at={site.name!r}: the size of the map there is not known for images of {size[0]}×{size[1]}, and the "
            f"genotype {to_video.genotype} counts its cells; wrap the backbone at this size: "
            f"input_size=(C, {size[0]}, {size[1]})"
        )
    return to_video.at_map(map_size)
