"""What of a larger network sees the frames of a clip that begins inside of one of its parts, and what leads past it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from image2video.inject.clip_places import Place, Places
from image2video.inject.clip_site import ClipSite
from image2video.trace.graph import Graph, has
from image2video.trace.trace import trace_forward


@dataclass(frozen=True)
class Reach:
    """How far the frames of a clip reach in a network.

    Args:
        outputs: paths of the outputs that are made from the frames.
        outputs_before: those that are made from the images alone.
        bypass: the modules that make and take what leads past the place, into an output that is made from the frames;
            None where nothing does.
    """

    outputs: tuple[str, ...]
    outputs_before: tuple[str, ...]
    bypass: tuple[str, str] | None


def reach_of(network: nn.Module, example: Tensor, module: str, index: int, *, as_is: bool = False) -> Reach:
    """Tell what a network makes from the frames of a clip that begins at a positional input of one of its modules.

    Args:
        network: it stays as it is.
        example: images `(B, C, H, W)`, of which the size and type count.
        module: path of the module, which runs once; where it does not run, all outputs are made from the images alone.
        index: which of its inputs.
        as_is: trace the modes that its modules are in; else eval mode.

    Raises:
        InputError: a forward that fails on such images.
        UnsupportedError: a network that cannot be copied.
    """
    graph = Graph(trace_forward(network, example, as_is=as_is))
    places = Places(graph)
    call = next((call for call in graph.calls if call.name == module), None)
    if call is None:  # a method that ends before the place
        return Reach((), tuple(path for path, _ in graph.trace.outputs), None)
    place = places.place(call, call.inputs[index])
    paths = [(path, has(place.behind, value)) for path, value in graph.trace.outputs]
    return Reach(
        outputs=tuple(path for path, seen in paths if seen),
        outputs_before=tuple(path for path, seen in paths if not seen),
        bypass=_bypass(places, place),
    )


@dataclass(frozen=True)
class Leak:
    """What keeps a place from being on every path, in a forward as it was traced.

    Args:
        site: the place.
        words: what is wrong, as a clause.
    """

    site: ClipSite
    words: str


def leak_of(graph: Graph, sites: Sequence[ClipSite], prefix: str) -> Leak | None:
    """Return what leads past the first of some places that is passed by; None where they are as planned.

    A place that the traced forward does not come to is none of its paths.

    Args:
        graph: of a traced network.
        sites: as planned, in the order of execution.
        prefix: the way from the network to the backbone that has the places, such as `"backbone."`.
    """
    places = Places(graph)
    before: Place | None = None
    for site in sites:
        calls = [call for call in graph.calls if call.name == f"{prefix}{site.module}"]
        if not calls:
            continue
        if len(calls) > 1:
            return Leak(site, f"{site.module!r} runs {len(calls)} times, and frames would be made of frames")
        value = calls[0].inputs[site.index] if site.index < len(calls[0].inputs) else -1
        if value < 0 or not graph.values[value].depends:
            return Leak(site, f"what comes in at {site.module!r} is not made from the images")
        place = places.place(calls[0], value)
        if before is not None and not has(before.behind, value):
            return Leak(site, f"what comes in at {site.module!r} has not passed the place before it")
        bypass = _bypass(places, place)
        if bypass is not None:
            producer, user = (_without(prefix, name) for name in bypass)
            return Leak(site, f"what {producer!r} makes leads past it to {user!r}")
        before = place
    return None


def _without(prefix: str, name: str) -> str:
    """Return the name of a module in a backbone, or in the network around it, without the way there."""
    *around, _ = prefix.split(".")
    for count in range(len(around), 0, -1):
        way = ".".join(around[:count])
        if name == way or name.startswith(f"{way}."):
            return name[len(way) + 1 :] or "(root)"
    return name


def _bypass(places: Places, place: Place) -> tuple[str, str] | None:
    """Return the modules that make and take what leads past a place; None where nothing does."""
    graph, cuts = places.graph, places.cuts(place)
    edge = cuts.bypass(place.value)
    if edge is not None:
        return _producer(graph, edge.producer, place.value), cuts.user_name(edge)
    # A cut that something outside of the module takes as well: the hook does not reach it.
    outside = next(places.users_outside(place), None)
    if outside is None:
        return None
    inner = graph.values[outside].call
    name = graph.calls[inner].name if inner >= 0 else ""
    return _producer(graph, place.value, place.value), name or "(root)"


def _producer(graph: Graph, value: int, begin: int) -> str:
    """Name the outermost module that returns a value and does not make the one where the clip begins."""
    if value == 0:
        return "(images)"
    around = list(graph.enclosing(graph.values[value].call))
    returning = [call.name for call in around if value in call.outputs and not graph.contains(call.index, begin)]
    if returning:
        return returning[-1]
    return around[0].name if around else "(root)"
