"""Clips that move inside of a network: what lies behind each place, and the map there."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torch import Tensor, nn

from image2video.inject.clip_places import Places
from image2video.inject.clip_site import ClipSite
from image2video.receptive_field.models import uncompiled
from image2video.receptive_field.traced import Traced
from image2video.trace.graph import Graph, has
from image2video.trace.token_grid import grid_for
from image2video.wrap.video_wrap import VideoWrap


@dataclass(frozen=True)
class Begin:
    """Where the clip begins in a trace, or where its frames are moved once more.

    Attributes:
        site: the place.
        value: the index of what comes in there.
        behind: what is made from it, as a bit set.
    """

    site: ClipSite
    value: int
    behind: int

    def sees_frames(self, value: int) -> bool:
        """Whether a value is made from the frames."""
        return has(self.behind, value)


def begin_of(model: nn.Module, traced: Traced) -> Begin | None:
    """Find where the clip of a wrapper begins in its trace; None for the image, and for a model without frames."""
    model = uncompiled(model)
    if not isinstance(model, VideoWrap) or model.plan.clip_site is None:
        return None
    return places_of(model, traced)[0]


def places_of(model: nn.Module, traced: Traced) -> list[Begin]:
    """Find all places inside of a wrapper's backbone where maps are moved, in the order of execution."""
    model = uncompiled(model)
    sites = model.plan.clip_sites if isinstance(model, VideoWrap) else ()
    if not sites:
        return []
    known = Places(Graph(traced.trace))
    found = []
    for site in sites:
        call = traced.layer(site.module)
        value = call.inputs[site.index]
        found.append(Begin(site, value, known.place(call, value).behind))
    return found


def maps_at(site: ClipSite, tensor: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Return what comes in at a place as maps `(N, C, h, w)`; prefix tokens, which have no place, are left out."""
    layout = site.layout
    if layout.spatial == "tokens":
        tokens = tensor.shape[layout.token_dim] - layout.prefix_tokens
        layout = dataclasses.replace(layout, grid=grid_for((site.grid,), image_size, tokens))
    return layout.to_maps(layout.split_prefix(tensor)[1])
