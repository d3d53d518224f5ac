"""The theoretical receptive field of a unit over a clip, which may move inside of the network."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from image2video.clip.deep_video import DeepVideo
from image2video.clip.image_to_video import Image2Video
from image2video.errors import InputError, InputTypeError
from image2video.receptive_field.field import Box, Field
from image2video.receptive_field.inside import places_of
from image2video.receptive_field.models import uncompiled
from image2video.receptive_field.target import Target, image_shape, locate
from image2video.receptive_field.traced import Traced, field_of_value, trace_model
from image2video.receptive_field.units import Unit
from image2video.trace.places import IMAGE
from image2video.wrap.inside import inner_videos
from image2video.wrap.video_wrap import VideoWrap


@dataclass(frozen=True)
class ClipField:
    """The pixels of the image that a unit can see through every frame of a clip, by the sizes of the layers.

    Attributes:
        frames: `(T, H, W)` bool: through frame t, at the unit's own place of that frame.
        place: the module at whose input the clip begins; None for the image.
        before: the field of a cell of the map there, in pixels of the image; None for the image.
        behind: the field of the unit, in cells of the map at the last place that it is behind (at the image, in
            pixels).
        map_size: (h, w) of that map.
        unit: with its position filled in.
        described: the unit in words.
        passed: the names of all places that it is behind, the first where the clip begins; `"image"` for the image.
        between: of a clip at several places, the field of a cell of the map at each later one, in cells of the map at
            the one before it.
        fused: `mask` where a fusion mixes the frames between two places, so that the unit sees through one frame at
            the one and through another at the other; else None.
    """

    frames: Tensor
    place: str | None
    before: Field | None
    behind: Field
    map_size: tuple[int, int]
    unit: Unit
    described: str
    passed: tuple[str, ...] = (IMAGE,)
    between: tuple[Field, ...] = ()
    fused: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        """`(H, W)` bool: through any frame, which is what a fusion that mixes them can reach."""
        return self.frames.any(0) if self.fused is None else self.fused

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
    wherever the clip begins, and a turn or a zoom moves what lies behind the place alone. Of a clip at several places
    the same goes on from each place to the one before it. Nothing is run but the warps.

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
    if not isinstance(model.to_video, Image2Video | DeepVideo):
        raise InputError("a field needs frames of a fixed shape; this wrapper draws them at random")
    shape = image_shape(model, size)
    traced = trace_model(model, shape)
    # Of any frame: they all have the same field in the map where they are moved last.
    target = locate(model, shape[0], shape[1:], replace(unit or Unit(), frame=0), traced=traced)
    stages = _stages(model, traced, target, shape[1:])
    fields = [_between(traced, former, stage) for former, stage in pairwise(stages)]
    last = stages[-1]
    behind = field_of_value(traced, target.value, target.described, origin=last.value, size=last.map_size)
    position = target.unit.position if isinstance(target.unit.position, tuple) else (0, 0)
    seen = behind.pixels(position, last.map_size).expand(model.T, -1, -1)
    mixing = _mixing(model, traced, stages)
    fused = _seen(stages, fields, seen, mixing).any(0) if mixing else None
    begins = 0 if stages[0].video is not None else 1
    found = target.unit.of_image()
    return ClipField(
        _seen(stages, fields, seen),
        None if begins == 0 else stages[1].name,
        None if begins == 0 else fields[0],
        behind,
        last.map_size,
        found,
        found.phrase(vector=target.layout is None, aggregated=False),
        tuple(stage.name for stage in stages[begins:]),
        tuple(fields[begins:]),
        fused,
    )


@dataclass(frozen=True)
class _Stage:
    """The image, or a place inside of the network, on the way to a unit.

    Attributes:
        number: among all stages; the image is 0.
        name: of the place.
        value: the index in the trace of what comes in there; 0 for the image.
        map_size: (h, w) of the map there.
        video: what makes the frames there; None for the image of a clip that begins later.
    """

    number: int
    name: str
    value: int
    map_size: tuple[int, int]
    video: Image2Video | None


def _stages(model: VideoWrap, traced: Traced, target: Target, size: tuple[int, int]) -> list[_Stage]:
    """The image and the places that a unit is behind, in order."""
    video = model.to_video
    assert isinstance(video, Image2Video | DeepVideo), "sources of frames are refused"
    places = places_of(model, traced)
    inner = inner_videos(video) if places else []
    at_image = None
    if model.plan.clip_site is None:
        at_image = video.place_videos()[0] if isinstance(video, DeepVideo) else video
    stages = [_Stage(0, IMAGE, 0, size, at_image)]
    for number, (place, one) in enumerate(zip(places[: target.passed], inner, strict=False), 1):
        map_size = place.site.map_size_of(size) or place.site.map_size
        stages.append(_Stage(number, place.site.name, place.value, map_size, one))
    return stages


def _mixing(model: VideoWrap, traced: Traced, stages: Sequence[_Stage]) -> set[int]:
    """The numbers of the stages with a fusion between the one before and them, both behind where the clip begins."""
    places = places_of(model, traced)
    made = [traced.layer(site.name).outputs[0] for site in model.plan.sites] if len(stages) > 1 else []
    found = set()
    for stage in stages[1:]:
        former = stages[stage.number - 1]
        begun = former.video is not None
        inside = [value for value in made if former.number == 0 or places[former.number - 1].sees_frames(value)]
        if begun and any(not places[stage.number - 1].sees_frames(value) for value in inside):
            found.add(stage.number)
    return found


def _seen(stages: Sequence[_Stage], fields: Sequence[Field], seen: Tensor, mixing: Set[int] = frozenset()) -> Tensor:
    """The pixels `(T, H, W)` that the cells `seen` `(T, h, w)` of the last map's frames see.

    `mixing` are the numbers of the stages before which a fusion mixes the frames.
    """
    for stage in reversed(stages):
        if stage.video is not None:
            seen = _cells(stage.video, seen, stages[0].map_size, inside=stage.number > 0)
        if stage.number:
            field, former = fields[stage.number - 1], stages[stage.number - 1]
            seen = torch.stack([_pixels(one, field, former.map_size) for one in seen])
        if stage.number in mixing:
            seen = seen.any(0).expand_as(seen)
    return seen


def _between(traced: Traced, former: _Stage, stage: _Stage) -> Field:
    """The field of a cell of the map at a place, in cells of the map at the one before it."""
    return field_of_value(traced, stage.value, f"the map at {stage.name!r}", origin=former.value, size=former.map_size)


def _cells(video: Image2Video, seen: Tensor, image_size: tuple[int, int], *, inside: bool) -> Tensor:
    """The cells `(T, h, w)` of a map that the sampler reads for the cells `seen` `(T, h, w)` of its frames."""
    geometric = Image2Video.of(video.genotype.geometric, video.options)
    # Weights of one sign and size could cancel: bicubic ones have both.
    draws = torch.rand(seen[0].shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    with torch.inference_mode(False), torch.enable_grad():
        maps = torch.ones((1, 1, *seen.shape[1:]), dtype=torch.float64, requires_grad=True)
        frames = geometric.map_frames(maps, image_size) if inside else geometric(maps)[0]
        found = []
        for frame, cells in zip(frames, seen, strict=True):
            value = (frame[0] * draws)[cells].sum()
            (read,) = torch.autograd.grad(value, maps, retain_graph=True, allow_unused=True)
            found.append(torch.zeros_like(cells) if read is None else read[0, 0].abs() > _FAINT)
    return torch.stack(found)


_FAINT = 1e-9
"""Weights of the sampler that are rounding, not reading."""


def _pixels(cells: Tensor, field: Field, image_size: tuple[int, int]) -> Tensor:
    """The pixels `(H, W)` of an image, or cells of an earlier map, that some cells of a map see."""
    mask = torch.zeros(image_size, dtype=torch.bool)
    for row, column in cells.nonzero().tolist():
        mask |= field.pixels((row, column), image_size)
    return mask
