"""Where clips inside of a network are worth a try: just before its maps become smaller."""

from __future__ import annotations

from torch import Tensor, nn

from image2video.inject import ClipSite, clip_sites

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
