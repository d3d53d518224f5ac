"""Clips that begin inside of the backbone: what may be asked of them, and the way back from their frames."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from image2video.clip.any_clip import Clip
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


def way_back(to_video: Video, sites: Sequence[ClipSite], size: tuple[int, int]) -> Unwarper:
    """Return what brings maps of the frames back to images of this (height, width)."""
    if isinstance(to_video, DeepVideo):
        return _deep_way_back(to_video, sites, size, len(to_video.genotype.sites))
    if len(sites) == 0 or not isinstance(to_video, Image2Video) or not to_video.genotype.has_cells:
        return to_video
    map_size = sites[0].map_size_of(size)
    return no_way_back(sites[0].name, to_video.genotype, size) if map_size is None else to_video.at_map(map_size)


def ways_between(to_video: Video, plan: Plan, size: tuple[int, int]) -> dict[str, Unwarper]:
    """Return the way back of outputs, by their paths, that some of the places of a clip come behind."""
    if not isinstance(to_video, DeepVideo):
        return {}
    first = int(to_video.genotype.begins_at_image)
    ways: dict[str, Unwarper] = {}
    for number, site in reversed([*enumerate(plan.clip_sites, first)]):
        if number:  # an output before the first place is that of the images
            ways |= dict.fromkeys(site.outputs_before, _deep_way_back(to_video, plan.clip_sites, size, number))
    return ways


def way_behind(to_video: Video, sites: Sequence[ClipSite], size: tuple[int, int], passed: int) -> Unwarper:
    """Return the way back of maps behind so many of the clip sites of a clip at several places."""
    assert isinstance(to_video, DeepVideo), "one place alone has one way back"
    count = passed + int(to_video.genotype.begins_at_image)
    return _deep_way_back(to_video, sites, size, count)


def _deep_way_back(to_video: DeepVideo, sites: Sequence[ClipSite], size: tuple[int, int], count: int) -> Unwarper:
    """Return the way back of frames that have passed the first `count` places."""
    maps: list[tuple[int, int] | None] = [None] if to_video.genotype.begins_at_image else []
    for site, video in zip(sites, inner_videos(to_video), strict=True):
        map_size = site.map_size_of(size) if video.genotype.has_cells else None
        if map_size is None and video.genotype.has_cells and len(maps) < count:
            return no_way_back(site.name, video.genotype, size)
        maps.append(map_size)
    return to_video.at_maps(tuple(maps), count)


def no_way_back(name: str, genotype: Clip, size: tuple[int, int]) -> NoWayBack:
    """Return what refuses the way back, since the size of a map is not known whose cells a genotype counts."""
    return NoWayBack(
        f"clip_at={name!r}: the size of the map there is not known for images of {size[0]}×{size[1]}, and the genotype "
        f"{genotype} counts its cells; wrap the backbone at this size: input_size=(C, {size[0]}, {size[1]})"
    )


def named_as(to_video: Video, plan: Plan) -> Video:
    """Name the places of a clip as the plan does, which knows the other names of a place; without changing them."""
    if not isinstance(to_video, DeepVideo) or to_video.genotype.places == plan.places:
        return to_video
    clips = zip(plan.places, to_video.genotype.clips, strict=True)
    return DeepVideo(DeepClip(tuple(clips), to_video.genotype.provenance), to_video.options)
