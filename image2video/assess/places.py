"""Clips inside of a network that are worth a try: just before its maps become smaller."""

from __future__ import annotations

from torch import Tensor, nn

from image2video.assess.finalists import Finalist
from image2video.inject import ClipSite, clip_sites
from image2video.wrap.phases import PHASES
from image2video.wrap.video_wrap import VideoWrap

_MOST = 4
_LEAST_SHARE = 0.02
"""Behind a place must lie at least this share of the multiply-accumulates: behind the last one nothing is computed."""
_LEAST_CELLS = 4
"""Rows and columns of the smallest map: one cell of it should be no large part."""


def places_to_try(model: nn.Module, example: Tensor) -> list[ClipSite]:
    """Return the last place of each size of the maps; in a network of one size the place in its middle.

    There a shift by one cell brings back the positions that the next stride throws away.

    Args:
        model: the bare network; it stays as it is.
        example: an image `(1, C, H, W)`.

    Raises:
        UnsupportedError: a network that cannot be traced.
        InputError: a forward that fails on such images.
    """
    sites = [
        site
        for site in clip_sites(model, example_input=example)
        if site.share_after >= _LEAST_SHARE and min(site.map_size) >= _LEAST_CELLS
    ]
    last = {site.map_size: site for site in sites}
    if len(last) == 1:
        return [min(sites, key=lambda site: abs(site.share_after - 0.5))]
    return list(last.values())[:_MOST]


def phases_finalist(model: nn.Module, example: Tensor, max_cost: float) -> Finalist | None:
    """Return the clip that brings back what the first strides throw away; None where two frames cost too much.

    It is no search: the frames are those of `phases`, as many of the first as the cost allows.

    Args:
        model: the bare network; it stays as it is.
        example: an image `(1, C, H, W)`.
        max_cost: the most that an image may cost.

    Raises:
        InputError: a network without a stride that a map can be moved before.
        UnsupportedError: a network that cannot be traced.
    """
    wrapped = VideoWrap(model, "none", genotype=PHASES, example_input=example)
    costs = {T: wrapped.cost(T) for T in range(2, wrapped.T + 1)}
    wrapped.unwrap()
    affordable = [T for T, cost in costs.items() if cost <= max_cost]
    if not affordable:
        return None
    T = max(affordable)
    return Finalist("phases", "the image at other phases of the strides", PHASES, T, cost=costs[T])
