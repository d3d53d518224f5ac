"""Clips that move inside of a segmentor's backbone: what each head sees of them, and the frames of padded maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from image2video.clip.deep_video import CallFrames, DeepVideo
from image2video.functional import Image2Video, InputError, clip_to_frames, frames_to_clip
from image2video.inject.clip_reach import Reach, reach_of
from image2video.inject.clip_site import ClipSite
from image2video.integrations.openmmlab.cover import Cells, Size, Video
from image2video.integrations.openmmlab.frames import Batch
from image2video.integrations.openmmlab.heads import head_rule, heads_of, stage_outputs
from image2video.wrap.inside import inner_videos

PLACE = "model.video.clip_at"


class PaddedMaps:
    """Makes the frames of maps of padded images: each content is warped about its own centre, its padding stays.

    Args:
        to_video: what makes the frames.
        content: (height, width) of every image without its padding, which stands on the right and below.
    """

    def __init__(self, to_video: Image2Video, content: Sequence[Size]) -> None:
        self.to_video, self.content = to_video, content

    def map_frames(self, maps: Tensor, image_size: Size, T: int | None = None) -> Tensor:
        """The frames `(B·T, C, h, w)` of maps `(B, C, h, w)` of a padded batch of `image_size` (H, W).

        A content that ends within a cell takes all of it.
        """
        parents = (0,) * (self.to_video.T if T is None else T)
        make = self.to_video.map_frames
        return padded_rows(maps, parents, self.content, image_size, lambda part, size: make(part, size, len(parents)))


class PaddedPlaces:
    """Makes the frames of padded images at several places of a network, as `PaddedMaps` does at one.

    Args:
        call: what makes the frames of images without padding.
        content: as in `PaddedMaps`.
    """

    def __init__(self, call: CallFrames, content: Sequence[Size]) -> None:
        self.call, self.content = call, content

    @property
    def counts(self) -> tuple[int, ...]:
        """Rows per image before the first place inside of the network, and behind each of those places."""
        return self.call.counts

    def parents_at(self, place: int) -> tuple[int, ...]:
        """Which row each row behind a place is made of."""
        return self.call.parents_at(place)

    def image_frames(self, images: Tensor) -> Tensor:
        """The rows that enter the network: those behind the image, or the images where the clip begins later."""
        if not self.call.begins_at_image:
            return images
        parents, size = self.call.walk.parents[0], (images.shape[2], images.shape[3])
        return padded_rows(images, parents, self.content, size, lambda part, _: self.call.image_frames(part))

    def place_frames(self, place: int, maps: Tensor, image_size: Size) -> Tensor:
        """The rows `(B·m, C, h, w)` behind a place, of those before it, `(B·n, C, h, w)`."""
        parents = self.parents_at(place)
        make = self.call.place_frames
        return padded_rows(maps, parents, self.content, image_size, lambda part, size: make(place, part, size))


def padded_rows(
    rows: Tensor,
    parents: tuple[int, ...],
    content: Sequence[Size],
    canvas: Size,
    make: Callable[[Tensor, Size], Tensor],
) -> Tensor:
    """The rows `(B·m, C, h, w)` that are made of rows `(B·n, C, h, w)` of a padded batch, content by content.

    Args:
        rows: n of every image, batch-major.
        parents: of each of the m new rows of an image, the number of the row that it is made of.
        content: (height, width) of every image without its padding, which is that of the row it is made of.
        canvas: (H, W) of the padded batch.
        make: gives the new rows of the content of some images, and takes (height, width) of that content.
    """
    if all(size == canvas for size in content):
        return make(rows, canvas)
    count = len(rows) // len(content)
    made = rows.unflatten(0, (-1, count))[:, list(parents)]
    for run in Batch(content, canvas).runs((rows.shape[2], rows.shape[3])):
        h, w = run.part
        part = rows[run.rows.start * count : run.rows.stop * count, :, :h, :w]
        made[run.rows, :, :, :h, :w] = frames_to_clip(make(part, run.size), len(parents))
    return clip_to_frames(made)


class _Heads(nn.Module):
    """A segmentor whose every head runs on the features: images -> `{"decode_0": …, "aux_0": …}`."""

    def __init__(self, segmentor: Any) -> None:
        super().__init__()
        self.backbone = segmentor.backbone
        self.neck = segmentor.neck if segmentor.with_neck else None
        self.decode_head = nn.ModuleList(heads_of(segmentor.decode_head))
        self.auxiliary_head = nn.ModuleList(heads_of(getattr(segmentor, "auxiliary_head", None)))

    def forward(self, images: Tensor) -> dict[str, Any]:
        features = self.backbone(images)
        if self.neck is not None:
            features = self.neck(features)
        found: dict[str, Any] = {}
        previous = None
        for number, head in enumerate(self.decode_head):
            previous = _output(head, features, previous)
            found[f"decode_{number}"] = previous
        for number, head in enumerate(self.auxiliary_head):
            found[f"aux_{number}"] = _output(head, features, None)
        return found


def check_heads(segmentor: Any, images: Tensor) -> None:
    """Raise `InputError` where something leads past a place into a head, in the mode that the segmentor is in.

    Args:
        segmentor: with hooks.
        images: `(B, C, H, W)`, of which the size and type count.
    """
    fusion = segmentor.video_fusion
    if fusion._plan.clip_sites:
        network = _Heads(segmentor)
        for own in (network, network.decode_head, network.auxiliary_head):
            own.training = segmentor.training
        fusion._paths.check(network, images, prefix="backbone.")


def _output(head: Any, features: Any, previous: Any) -> Any:
    """What a head gives for features; of one that is called in a way of its own, a sum of all that it may take."""
    if head_rule(head) is None:
        return stage_outputs(head, features, previous)
    taken = features if isinstance(features, tuple | list) else [features]
    if type(head).__name__ == "PointHead":
        taken = [*head._transform_inputs(features), previous]
    return torch.stack([one.flatten(1).mean(1) for one in taken]).sum(0)


def passed_by_heads(segmentor: Any, sites: Sequence[ClipSite], channels: int, *, at_image: bool) -> tuple[int, ...]:
    """How many places inside of the backbone each auxiliary head comes behind; decode heads come behind all of them.

    Args:
        segmentor: without hooks; it stays as it is.
        sites: where maps are moved in its backbone, in order.
        channels: of the images.
        at_image: whether the clip begins at the image, before all of them.

    Raises:
        InputError: a head that takes what is made before a place beside what is made behind it, or a decode head that
            takes only that.
    """
    heads = heads_of(getattr(segmentor, "auxiliary_head", None))
    if not sites:
        return (0,) * len(heads)
    network, example = _Heads(segmentor), torch.zeros((1, channels, *sites[0].grid.image))
    counts = [0] * len(heads)
    for number, site in enumerate(sites):
        reach = reach_of(network, example, f"backbone.{site.module}", site.index)
        _check_reach(segmentor, reach, site, begins=not at_image and number == 0)
        for index in range(len(heads)):
            counts[index] += not any(f"'aux_{index}'" in path for path in reach.outputs_before)
    return tuple(counts)


def _check_reach(segmentor: Any, reach: Reach, site: ClipSite, *, begins: bool) -> None:
    """Raise `InputError` where something leads past a place, or a decode head sees nothing of it."""
    when = "the clip begins" if begins else "its frames move once more"
    if reach.bypass is not None:
        producer, user = (name.removeprefix("backbone.") for name in reach.bypass)
        raise InputError(
            f"{_named(site, begins)}: what {producer!r} makes before {when} leads past the place to {user!r}, "
            "which takes frames too; choose a place before it (clip_sites(backbone) lists them), or a head that takes "
            "the last features alone, as those of PSPNet, DeepLabV3 and FCN do"
        )
    stages = [f"decode_{number}" for number in range(len(heads_of(segmentor.decode_head)))]
    before = [name for name in stages if any(f"'{name}'" in path for path in reach.outputs_before)]
    if before:
        head = heads_of(segmentor.decode_head)[stages.index(before[0])]
        seen = "would see no frame" if begins else "would see nothing of what moves there"
        raise InputError(
            f"{_named(site, begins)}: the decode head {type(head).__name__} takes features that are made before "
            f"{when}, and {seen}; choose a place before them"
        )


def _named(site: ClipSite, begins: bool) -> str:
    """Name a place as the config does."""
    return f"{PLACE}={site.name!r}" if begins else f"the place {site.name!r} of model.video.genotype"


def cells_of_batch(sites: Sequence[ClipSite], to_video: Video, canvas: Size) -> Cells | None:
    """What the way back of a padded batch of `canvas` (H, W) needs of its maps at the places; see `cover.back_of`.

    Raises `InputError` where magnitudes count cells of a map whose size is not known.
    """
    if isinstance(to_video, DeepVideo):
        first: Cells = (None,) if to_video.genotype.begins_at_image else ()
    elif not sites or not to_video.genotype.has_cells:
        return None
    else:
        first = ()
    videos = inner_videos(to_video)
    return first + tuple(_map_size(site, video, canvas) for site, video in zip(sites, videos, strict=True))


def _map_size(site: ClipSite, video: Image2Video, canvas: Size) -> Size | None:
    """(h, w) of the map at a place, where the clip there counts its cells; else None."""
    if not video.genotype.has_cells:
        return None
    size = site.map_size_of(canvas)
    if size is None:
        raise InputError(
            f"{PLACE}={site.name!r}: the size of the map there is not known for images of {canvas[0]}×{canvas[1]}, and "
            f"the genotype {video.genotype} counts its cells; set model.video.input_size=({canvas[0]}, {canvas[1]})"
        )
    return size
