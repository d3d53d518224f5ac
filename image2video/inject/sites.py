"""From a place that the rule chose to a `Site`, or to the reason why there is none."""

from __future__ import annotations

import dataclasses

from torch import nn

from image2video.errors import Image2VideoError
from image2video.fusion.config import FusionConfig
from image2video.inject.hookpoints import Point
from image2video.inject.plan import Site, Skipped
from image2video.inject.rule import Candidate
from image2video.trace.graph import Graph
from image2video.trace.layouts import Placed, placed
from image2video.trace.token_grid import TokenGrid


def site_of(backbone: nn.Module, graph: Graph, config: FusionConfig, candidate: Candidate) -> Site | Skipped:
    """Give a candidate its layout and channels; skip it where they are unknown, too few, or differ between calls."""
    point = candidate.point
    if point is None:
        where = candidate.where or "(root)"
        reason = "no module boundary lies between its weights and the shortcut, so no hook reaches the branch alone"
        return Skipped(where, candidate.block, reason)
    call = graph.calls[point.call]
    calls = [c for c in graph.calls if c.module is call.module and c.stop >= 0]
    known: Placed | None = None
    grids: list[TokenGrid] = []
    for other in calls:
        here = _at_call(graph, point, other.index)
        if isinstance(here, str):
            return Skipped(call.name, candidate.block, here)
        if here.grid is not None and here.grid not in grids:
            grids.append(here.grid)
        known = here if known is None else _common(known, here)
        if known is None:
            return Skipped(call.name, candidate.block, f"its {len(calls)} calls have different layouts or channels")
    assert known is not None
    refusal = config.refusal(known.channels) or _cannot_build(backbone, config, call.name, known)
    if refusal is not None:
        return Skipped(call.name, candidate.block, refusal)
    return Site(
        name=call.name,
        placement="beside" if config.every_conv else point.side,
        channels=known.channels,
        layout=known.layout,
        rule=candidate.rule,
        block=candidate.block,
        shape=known.shape,
        parts=known.parts,
        index=point.index,
        calls=len(calls),
        order=candidate.order,
        grids=tuple(grids),
    )


def _at_call(graph: Graph, point: Point, call: int) -> Placed | str:
    """Return the layout of the tensor that a hook would get in one call of its module, or why it has none."""
    tensors = graph.calls[call].inputs if point.side == "before" else graph.calls[call].outputs
    value = tensors[point.index] if point.index < len(tensors) else -1
    if value < 0:
        return "one of its calls has no tensor at that place"
    return placed(graph, value, hint_of(graph.calls[call].module))


def hint_of(module: nn.Module) -> int | None:
    """Return the channel dimension that a module has by convention."""
    if isinstance(module, nn.Linear):
        return -1
    return 1 if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) else None


def _common(a: Placed, b: Placed) -> Placed | None:
    """Return what holds for two calls of one module; None where they differ in more than their size."""
    without_grid = dataclasses.replace(a.layout, grid=None)
    if a.channels != b.channels or a.parts != b.parts or without_grid != dataclasses.replace(b.layout, grid=None):
        return None
    return a if a.layout == b.layout else dataclasses.replace(a, layout=without_grid)


def _cannot_build(backbone: nn.Module, config: FusionConfig, name: str, known: Placed) -> str | None:
    """Say why a fusion beside a convolution cannot be built for it; only building it tells."""
    if not config.every_conv:
        return None
    try:
        config.build(known, False, backbone.get_submodule(name))
    except Image2VideoError as error:
        return str(error)
    return None
