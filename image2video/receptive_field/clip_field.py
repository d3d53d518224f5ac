"""The theoretical receptive field of a unit over a clip, which may begin inside of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from image2video.clip.image_to_video import Image2Video
from image2video.errors import InputError, InputTypeError
from image2video.receptive_field.field import Box, Field
from image2video.receptive_field.inside import begin_of
from image2video.receptive_field.models import uncompiled
from image2video.receptive_field.target import image_shape, locate
from image2video.receptive_field.traced import field_of_value, trace_model
from image2video.receptive_field.units import Unit
from image2video.wrap.video_wrap import VideoWrap


@dataclass(frozen=True)
class ClipField:
    """The pixels of the image that a unit can see through every frame of a clip, by the sizes of the layers.

    Attributes:
        frames: `(T, H, W)` bool: through frame t, at the unit's own place of that frame.
        place: the module at whose input the clip begins; None for the image.
        before: the field of a cell of the map there, in pixels of the image; None for the image.
        behind: the field of the unit, in cells of that map (at the image, in pixels).
        map_size: (h, w) of that map.
        unit: with its position filled in.
        described: the unit in words.
    """

    frames: Tensor
    place: str | None
    before: Field | None
    behind: Field
    map_size: tuple[int, int]
    unit: Unit
    described: str

    @property
    def mask(self) -> Tensor:
        """`(H, W)` bool: through any frame, which is what a fusion that mixes them can reach."""
        return self.frames.any(0)

    @property
    def area(self) -> int:
        """How many pixels that is."""
        return int(self.mask.sum())

    @property
    def areas(self) -> tuple[int, ...]:
        """How many pixels each frame shows the unit."""
        return tuple(self.frames.sum((1, 2)).tolist())

    @property
    def box(self) -> Box:
        """(top, left, bottom, right) around `mask`, edges in pixels."""
        rows, columns = self.mask.any(1).nonzero(), self.mask.any(0).nonzero()
        return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def clip_field(model: VideoWrap, size: Sequence[int], unit: Unit | None = None) -> ClipField:
    """What a unit of a video network can see of the image through each of its frames (ours).

    The unit's field in the map where the clip begins (Casarin et al., CVPR 2024, Eq. 8) is taken in every frame, moved
    back by the frame's warp, with the cells that the sampler reads between, and each of these cells sees its own field
    of the image. At the image, whose cells are its pixels, the last step falls away. So a shift moves the whole field,
    wherever the clip begins, and a turn or a zoom moves what lies behind the place alone. Nothing is run but the warps.

    Args:
        model: a wrapper whose frames have a fixed shape.
        size: (H, W) of the images, or (C, H, W) where the model does not tell its channels.
        unit: a unit of a layer behind the place; by default the output's. Its `frame` does not matter.

    Returns:
        The pixels, frame by frame. The support of a unit of frame t lies in `frames[t]` where no fusion mixes frames,
        and in `mask` where one does.

    Raises:
        InputError: a unit before the place, or one that the model does not have; frames that are drawn at random; more
            cells than a map allows.
        InputTypeError: a model that is no `VideoWrap`.
        UnsupportedError: an operation whose reach is not known, by name; `support` measures it.
    """
    model = uncompiled(model)
    if not isinstance(model, VideoWrap):
        raise InputTypeError(
            f"a clip's field needs a VideoWrap, got {type(model).__name__}; theoretical(model) has none"
        )
    if not isinstance(model.to_video, Image2Video):
        raise InputError("a field needs frames of a fixed shape; this wrapper draws them at random")
    shape = image_shape(model, size)
    traced = trace_model(model, shape)
    # Of any frame: they all have the same field in the map where the clip begins.
    target = locate(model, shape[0], shape[1:], replace(unit or Unit(), frame=0), traced=traced)
    begin = begin_of(model, traced)
    before, (h, w) = None, shape[1:]
    if begin is not None:
        before = field_of_value(traced, begin.value, f"the map at {begin.site.name!r}")
        h, w = begin.site.map_size_of(shape[1:]) or begin.site.map_size
    origin = 0 if begin is None else begin.value
    behind = field_of_value(traced, target.value, target.described, origin=origin, size=(h, w))
    position = target.unit.position if isinstance(target.unit.position, tuple) else (0, 0)
    cells = _cells(model.to_video, behind.pixels(position, (h, w)), shape[1:], inside=begin is not None)
    frames = torch.stack([_pixels(one, before, shape[1:]) for one in cells])
    place = None if begin is None else begin.site.name
    found = target.unit.of_image()
    described = found.phrase(vector=target.layout is None, aggregated=False)
    return ClipField(frames, place, before, behind, (h, w), found, described)


def _cells(video: Image2Video, seen: Tensor, image_size: tuple[int, int], *, inside: bool) -> Tensor:
    """The cells `(T, h, w)` of a map that the sampler reads for the cells `seen` `(h, w)` of its frames."""
    geometric = Image2Video.of(video.genotype.geometric, video.options)
    # Weights of one sign and size could cancel: bicubic ones have both.
    draws = torch.rand(int(seen.sum()), generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    with torch.inference_mode(False), torch.enable_grad():
        maps = torch.ones((1, 1, *seen.shape), dtype=torch.float64, requires_grad=True)
        frames = geometric.map_frames(maps, image_size) if inside else geometric(maps)[0]
        found = []
        for frame in frames:
            (read,) = torch.autograd.grad((frame[0][seen] * draws).sum(), maps, retain_graph=True, allow_unused=True)
            found.append(torch.zeros_like(seen) if read is None else read[0, 0].abs() > _FAINT)
    return torch.stack(found)


_FAINT = 1e-9
"""Weights of the sampler that are rounding, not reading."""


def _pixels(cells: Tensor, field: Field | None, image_size: tuple[int, int]) -> Tensor:
    """The pixels `(H, W)` that some cells of a map see."""
    if field is None:
        return cells
    mask = torch.zeros(image_size, dtype=torch.bool)
    for row, column in cells.nonzero().tolist():
        mask |= field.pixels((row, column), image_size)
    return mask
