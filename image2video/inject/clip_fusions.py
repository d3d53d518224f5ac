"""Which fusion sites lie behind the place where the clip begins, and so see frames."""

from __future__ import annotations

from collections.abc import Sequence

from image2video.errors import InputError
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
    begin = next(call for call in graph.calls if call.name == clip_site.module)
    value = begin.inputs[clip_site.index]
    frames = behind(graph, value, begin)
    kept: list[Site] = []
    before: list[Site] = []
    for site in sites:
        calls = [call for call in graph.calls if call.name == site.name and call.stop >= 0]
        (kept if all(_sees_frames(site, call, begin, value, frames) for call in calls) else before).append(site)
    refused = [site.name for site in before if named is not None and site.name in named]
    if refused:
        raise InputError(
            f"sites names {some(refused)}, before the clip site {clip_site.name!r}, where a fusion would see one frame "
            "per image; leave them out, or let the clip begin further ahead (clip_at=…)"
        )
    reason = f"before the clip site {clip_site.name!r}: it sees one frame per image"
    return kept, [Skipped(site.name, site.block, reason) for site in before]


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
