"""`image2video sites`."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import Namespace

from image2video.cli.arguments import collect
from image2video.cli.commands.sites import SitesOptions
from image2video.errors import InputError
from image2video.inject import ClipSite, clip_sites, plan
from image2video.inject.plan import layout_words, plain_table
from image2video.wrap.builders import Builder

_FRAMES = (3, 5)  # for which costs are shown


def run(options: Namespace) -> None:
    """Prints the plan, or the places where a clip may begin."""
    chosen = collect(SitesOptions, options)
    without_effect = [name for name in ("sites", "clip_at") if getattr(chosen, name) is not None]
    if chosen.clip_sites and without_effect:
        option = without_effect[0].replace("_", "-")
        raise InputError(f"--clip-sites lists all places, and --{option} has no effect on it; leave one of them out")
    name = options.model if ":" in options.model else f"timm:{options.model}"
    backbone = Builder(name, chosen.model_kwargs).build()
    if chosen.clip_sites:
        print(clip_site_lines(options.model, clip_sites(backbone, input_size=chosen.input_size)))
        return
    print(
        plan(
            backbone,
            fusion=chosen.fusion,
            sites=chosen.sites,
            input_size=chosen.input_size,
            clip_at=None if chosen.clip_at is None else [place.strip() for place in chosen.clip_at.split(",")],
        )
    )


def clip_site_lines(model: str, sites: Sequence[ClipSite]) -> str:
    """One line per place where a clip may begin, with its cost as a multiple of the image's."""
    if not sites:
        return f"{model}: no clip can begin inside of it; --clip-at MODULE says why, for one module"
    rows = [("clip_at", "map", "stride", "channels", "layout", "MACs behind it", *(f"T = {T}" for T in _FRAMES))]
    for site in sites:
        sides = ("×".join(f"{side:.4g}" for side in pair) for pair in (site.map_size, site.stride))
        costs = (f"{site.cost(T):.2f}" for T in _FRAMES)
        layout, share = layout_words(site.layout), f"{100 * site.share_after:.1f} %"
        rows.append((site.name, *sides, str(site.channels), layout, share, *costs))
    head = f"{model}: {len(sites)} places where a clip may begin; the cost of T frames as a multiple of the image's"
    return "\n".join([head, *plain_table(rows)])
