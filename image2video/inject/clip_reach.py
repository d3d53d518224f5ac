"""What of a larger network sees the frames of a clip that begins inside of one of its parts, and what leads past it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from image2video.inject.clip_places import Places
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
        module: path of the module, which runs once.
        index: which of its inputs.
        as_is: trace the modes that its modules are in; else eval mode.

    Raises:
        InputError: a forward that fails on such images.
        UnsupportedError: a network that cannot be copied.
    """
    graph = Graph(trace_forward(network, example, as_is=as_is))
    places = Places(graph)
    call = next(call for call in graph.calls if call.name == module)
    place = places.place(call, call.inputs[index])
    paths = [(path, has(place.behind, value)) for path, value in graph.trace.outputs]
    cuts = places.cuts(place)
    edge = cuts.bypass(place.value)
    bypass = None if edge is None else (_producer(graph, edge.producer, place.value), cuts.user_name(edge))
    if bypass is None:
        # A cut that something outside of the module takes as well: the hook does not reach it.
        outside = next(places.users_outside(place), None)
        if outside is not None:
            inner = graph.values[outside].call
            name = graph.calls[inner].name if inner >= 0 else ""
            bypass = (_producer(graph, place.value, place.value), name or "(root)")
    return Reach(
        outputs=tuple(path for path, seen in paths if seen),
        outputs_before=tuple(path for path, seen in paths if not seen),
        bypass=bypass,
    )


def _producer(graph: Graph, value: int, begin: int) -> str:
    """Name the outermost module that returns a value and does not make the one where the clip begins."""
    if value == 0:
        return "(images)"
    around = list(graph.enclosing(graph.values[value].call))
    returning = [call.name for call in around if value in call.outputs and not graph.contains(call.index, begin)]
    if returning:
        return returning[-1]
    return around[0].name if around else "(root)"
