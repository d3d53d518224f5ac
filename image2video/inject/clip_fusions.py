"""Which fusion sites lie behind the place where the clip begins, and so see frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from image2video.errors import InputError
from image2video.inject.clip_places import Place
from image2video.inject.clip_rows import Rows
from image2video.inject.clip_site import ClipSite
from image2video.inject.plan import Site, Skipped, some
from image2video.trace.cuts import behind
from image2video.trace.graph import Graph, has
from image2video.trace.recorder import Call


def split_at_clip(
    graph: Graph, clip_site: ClipSite, sites: Sequence[Site], *, named: Sequence[str] | None = None
) -> tuple[list[Site], list[Skipped]]:
    """Separate the fusion sites that see the clip's frames from those before it.

    Args:
        graph: the traced forward.
        clip_site: where the clip begins.
        sites: of fusions, in the order of execution.
        named: those that the user asked for by name.

    Returns:
        The sites behind the place, and those before it as left out.

    Raises:
        InputError: a site before the place that was asked for by name.
    """
    kept, before = _split(graph, clip_site, sites)
    refused = [site.name for site in before if named is not None and site.name in named]
    if refused:
        raise InputError(
            f"sites names {some(refused)}, before the clip site {clip_site.name!r}, where a fusion would see one frame "
            "per image; leave them out, or let the clip begin further ahead (clip_at=…)"
        )
    reason = f"before the clip site {clip_site.name!r}: it sees one frame per image"
    return kept, [Skipped(site.name, site.block, reason) for site in before]


def shared_places(
    graph: Graph,
    clip_site: ClipSite | None,
    later: Sequence[ClipSite],
    sites: Sequence[Site],
    rows: Callable[[], Rows],
) -> int:
    """Count the places behind which frames that are the same may be one row until the next place.

    Args:
        graph: the traced forward.
        clip_site: where the clip begins; None for the image.
        later: where its frames are moved once more.
        sites: of fusions, which have to see all frames.
        rows: traces how the network has its rows, where that matters.

    Returns:
        A number from the first place on, at most that of the later places.
    """
    outside = set() if clip_site is None else {*clip_site.outputs_before}
    count = 0
    for site in later:
        if _split(graph, site, sites)[1] or {*site.outputs_before} - outside:
            break
        count += 1
    # Until the last of them the number of rows grows from place to place, which the network has to follow.
    growing = [] if clip_site is None else [clip_site]
    places = [place_of(graph, site) for site in (*growing, *later[:count])]
    return count if count and rows().foreign(places) is None else 0


def _split(graph: Graph, clip_site: ClipSite, sites: Sequence[Site]) -> tuple[list[Site], list[Site]]:
    """Separate the fusion sites behind a place from those before it."""
    begin = call_of(graph, clip_site)
    value = begin.inputs[clip_site.index]
    frames = behind(graph, value, begin)
    kept: list[Site] = []
    before: list[Site] = []
    for site in sites:
        calls = [call for call in graph.calls if call.name == site.name and call.stop >= 0]
        (kept if all(_sees_frames(site, call, begin, value, frames) for call in calls) else before).append(site)
    return kept, before


def call_of(graph: Graph, clip_site: ClipSite) -> Call:
    """Return the run of the module that is hooked at a clip site."""
    return next(call for call in graph.calls if call.name == clip_site.module)


def place_of(graph: Graph, clip_site: ClipSite) -> Place:
    """Return the place of a clip site in the trace."""
    call = call_of(graph, clip_site)
    value = call.inputs[clip_site.index]
    return Place(call.index, value, behind(graph, value, call))


def _sees_frames(site: Site, call: Call, begin: Call, value: int, frames: int) -> bool:
    """Whether the tensor of a fusion site is made from the clip's frames in one call of its module.

    Args:
        site: of a fusion.
        call: of its module.
        begin: the call at whose input the clip begins.
        value: what comes in there.
        frames: what is made from it by way of that call.
    """
    if site.placement == "after":
        return has(frames, call.outputs[site.index])
    tensor = call.inputs[site.index]
    inside = begin.start <= call.start and call.stop <= begin.stop
    return has(frames, tensor) or (tensor == value and inside)
