"""Frames that are made at several places one by one, for the tests of deep clips."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from wrap_helpers import backbone, stir

from image2video.clip.image_to_video import Image2Video
from image2video.inject.planning import plan
from image2video.wrap.video_wrap import VideoWrap

SIZE = (3, 32, 48)
SITES = {"image": "translate_x(0.1) > rotate(8)", "layer2": "rotate(-12) > scale(1.1)", "layer3": "translate_y(0.15)"}
SET_SITES = {
    "layer2": "identity | flip_x | rotate(9)",
    "layer3": "identity | translate_x(1 cell) | scale(1.2)",
}


def deep(fusion="gsf", sites=SITES, *, name="cifar_resnet8", stirred=False, options=None, size=SIZE, **how):
    """A wrapped backbone whose clip moves at several places; `stirred` lets its fusions mix the frames."""
    of_chains = isinstance(sites, dict) and not any("|" in clip for clip in sites.values())
    how = {"T": 3, **how} if of_chains else how
    net = backbone(name, **(options or {}))
    if isinstance(sites, dict) and len(sites) > 1:  # traced once for all tests
        how["sites"] = _plan(name, fusion, tuple(sites), size, tuple((options or {}).items()))
    else:
        how["input_size"] = size
    model = VideoWrap(net, fusion, genotype=sites, **how)
    if stirred:
        stir(model.fusion)
    return model


@functools.cache
def _plan(name, fusion, places, size, options):
    """The plan of a backbone, which does not depend on what moves at its places."""
    return plan(backbone(name, **dict(options)), fusion=fusion, input_size=size, clip_at=places)


def one_by_one(bare: nn.Module, sites: dict[str, str], batch: Tensor, T: int, kind: str = "map", **how) -> Tensor:
    """The outputs `(B, T, …)` of a bare backbone whose image and maps are moved, one frame after the other."""
    schedule = {} if any("|" in clip for clip in sites.values()) else {"schedule": "centred"}
    made = {place: Image2Video(clip, T=T, padding="reflection", **schedule, **how) for place, clip in sites.items()}
    return torch.stack([_frame(bare, made, batch, t, T, kind) for t in range(T)], 1)


def _frame(bare: nn.Module, made: dict[str, Image2Video], batch: Tensor, t: int, T: int, kind: str) -> Tensor:
    """The output of frame t."""
    handles = []
    for place, video in made.items():
        if place != "image":
            hook = _moving(video, batch.shape[2:], t, T, kind)
            handles.append(bare.get_submodule(place).register_forward_pre_hook(hook))
    try:
        return bare(made["image"](batch)[:, t] if "image" in made else batch)
    finally:
        for handle in handles:
            handle.remove()


def _moving(video: Image2Video, size: tuple[int, int], t: int, T: int, kind: str):
    """A hook that replaces an input by its frame t."""

    def frame(maps: Tensor) -> Tensor:
        return video.map_frames(maps, tuple(size), T).unflatten(0, (-1, T))[:, t]

    def hook(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = args[0]
        if kind == "map":
            return (frame(x), *args[1:])
        if kind == "last":
            return (frame(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), *args[1:])
        grid = size[0] // 8, size[1] // 8
        patches = frame(x[:, 1:].transpose(1, 2).unflatten(2, grid)).flatten(2).transpose(1, 2)
        return (torch.cat([x[:, :1], patches], 1), *args[1:])

    return hook
