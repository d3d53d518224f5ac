"""The ways back from maps of the frames to their images, where maps are moved inside of the backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from image2video.clip.any_clip import Clip
from image2video.clip.deep_video import DeepVideo
from image2video.clip.image_to_video import Image2Video
from image2video.errors import InputError
from image2video.inject.api import Injection
from image2video.inject.clip_site import ClipSite
from image2video.inject.door import entering
from image2video.inject.plan import Plan
from image2video.inject.recent import Recent, told_all
from image2video.protocols import Unwarper
from image2video.trace.trace import tensors_of
from image2video.wrap.clip_record import Video
from image2video.wrap.inside import Given, inner_videos
from image2video.wrap.passed import passed_places


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


class LateWays:
    """The ways back of maps that the plan does not know: training and keywords may return other ones.

    What they have passed is traced once for each training mode and each set of keywords.
    """

    def __init__(self) -> None:
        self._passed: Recent[tuple[bool, str], dict[str, int]] = Recent()

    def clear(self) -> None:
        """Forget what was traced, after a change of the backbone."""
        self._passed.clear()

    def of(
        self,
        backbone: nn.Module,
        fusion: Injection,
        to_video: Video,
        given: Given,
        outputs: Any,
        flags: Mapping[str, Any],
    ) -> dict[str, Unwarper]:
        """Return the ways back by the paths of the outputs.

        Args:
            backbone: the injected backbone.
            fusion: the injection that hooked it.
            to_video: the clip at several places.
            given: what the backbone got.
            outputs: what it returned.
            flags: the keywords of the call.
        """
        plan = fusion._plan
        planned = {output.path for output in plan.outputs}
        unknown = [path for path, found in tensors_of(outputs) if path not in planned and found.ndim > 2]
        if not unknown:
            return {}
        key = (backbone.training, told_all(flags.items()))
        if key not in self._passed:
            self._passed[key] = passed_places(backbone, fusion, given.inputs, entering(flags))
        passed = self._passed[key]
        # What has passed none of the places inside is of the images; its rows, which are not B·T, are refused.
        least = 0 if plan.clip_site is None else 1
        counts = {path: passed[path] for path in unknown if passed.get(path, -1) >= least}
        return {path: way_behind(to_video, plan.clip_sites, given.size, count) for path, count in counts.items()}
