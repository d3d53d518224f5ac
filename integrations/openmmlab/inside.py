"""Clips that begin inside of a segmentor's backbone: which heads see frames, and the frames of padded maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from image2video.functional import Image2Video, InputError, clip_to_frames, frames_to_clip
from image2video.inject.clip_reach import reach_of
from image2video.inject.clip_site import ClipSite
from image2video.integrations.openmmlab.cover import Size
from image2video.integrations.openmmlab.frames import Batch
from image2video.integrations.openmmlab.heads import head_rule, heads_of, stage_outputs

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
        if all(size == image_size for size in self.content):
            return self.to_video.map_frames(maps, image_size, T)
        T = self.to_video.T if T is None else T
        clip = maps.unsqueeze(1).repeat(1, T, 1, 1, 1)
        for run in Batch(self.content, image_size).runs((maps.shape[2], maps.shape[3])):
            h, w = run.part
            frames = self.to_video.map_frames(maps[run.rows, :, :h, :w], run.size, T)
            clip[run.rows, :, :, :h, :w] = frames_to_clip(frames, T)
        return clip_to_frames(clip)


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


def _output(head: Any, features: Any, previous: Any) -> Any:
    """What a head gives for features; of one that is called in a way of its own, a sum of all that it may take."""
    if head_rule(head) is None:
        return stage_outputs(head, features, previous)
    taken = features if isinstance(features, tuple | list) else [features]
    if type(head).__name__ == "PointHead":
        taken = [*head._transform_inputs(features), previous]
    return torch.stack([one.flatten(1).mean(1) for one in taken]).sum(0)


def image_heads(segmentor: Any, site: ClipSite, channels: int) -> frozenset[int]:
    """The numbers of the auxiliary heads that see images, since what they take is made before the clip begins.

    Args:
        segmentor: without hooks; it stays as it is.
        site: where the clip begins in its backbone.
        channels: of the images.

    Raises:
        InputError: a head that takes what is made before the place beside what is made behind it, or a decode head that
            takes only that.
    """
    example = torch.zeros((1, channels, *site.grid.image))
    reach = reach_of(_Heads(segmentor), example, f"backbone.{site.module}", site.index)
    if reach.bypass is not None:
        producer, user = (name.removeprefix("backbone.") for name in reach.bypass)
        raise InputError(
            f"{PLACE}={site.name!r}: what {producer!r} makes before the clip begins leads past the place to {user!r}, "
            "which takes frames too; choose a place before it (clip_sites(backbone) lists them), or a head that takes "
            "the last features alone, as those of PSPNet, DeepLabV3 and FCN do"
        )
    stages = [f"decode_{number}" for number in range(len(heads_of(segmentor.decode_head)))]
    before = [name for name in stages if any(f"'{name}'" in path for path in reach.outputs_before)]
    if before:
        head = heads_of(segmentor.decode_head)[stages.index(before[0])]
        raise InputError(
            f"{PLACE}={site.name!r}: the decode head {type(head).__name__} takes features that are made before the "
            "clip begins, and would see no frame; choose a place before them"
        )
    several = range(len(heads_of(getattr(segmentor, "auxiliary_head", None))))
    return frozenset(n for n in several if any(f"'aux_{n}'" in path for path in reach.outputs_before))


def map_size_for(site: ClipSite | None, to_video: Image2Video, canvas: Size) -> Size | None:
    """(h, w) of the map where the clip begins, for a padded batch of `canvas` (H, W); None where it does not matter.

    Raises `InputError` where magnitudes count cells of a map whose size is not known.
    """
    if site is None or not to_video.genotype.has_cells:
        return None
    size = site.map_size_of(canvas)
    if size is None:
        raise InputError(
            f"{PLACE}={site.name!r}: the size of the map there is not known for images of {canvas[0]}×{canvas[1]}, and "
            f"the genotype {to_video.genotype} counts its cells; set model.video.input_size=({canvas[0]}, {canvas[1]})"
        )
    return size
