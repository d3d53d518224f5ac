"""Where in a network a clip may begin: found in the dataflow of one traced forward; no family of networks is named."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from image2video.inject.checks import check_backbone
from image2video.inject.clip_places import Place, Places
from image2video.inject.clip_rows import own_rows
from image2video.inject.clip_site import ClipSite
from image2video.trace.graph import Graph
from image2video.trace.sizes import example_for
from image2video.trace.trace import trace_forward


def clip_sites(
    backbone: nn.Module, *, input_size: Sequence[int] | None = None, example_input: Tensor | None = None
) -> tuple[ClipSite, ...]:
    """List the places inside of a network where a clip may begin, in the order of execution.

    A place is the input of a module, a map or tokens with a known grid, that is on every path to the outputs behind it.
    Before it the network runs once per image, behind it once per frame; outputs that do not pass it stay those of the
    image.

    Args:
        backbone: takes images `(B, C, H, W)`; it stays as it is.
        input_size: `(C, H, W)`; without it and an example, the size that timm says the backbone was made for.
        example_input: images `(B, C, H, W)`, of which the size and type count.

    Returns:
        The places, each under the name of the outermost module that has it as its input. The images themselves are none
        of them.

    Raises:
        InputError: no input size known, or a forward that fails on it.
        InputTypeError: a backbone that is no module, images that are no floating-point tensor.
        StateError: a backbone that is wrapped or compiled already.
        UnsupportedError: a backbone that is scripted or cannot be copied.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3))
        >>> [(site.name, site.map_size, round(site.cost(3), 2)) for site in clip_sites(net, input_size=(3, 16, 24))]
        [('1', (7, 11), 2.25), ('2', (7, 11), 2.25)]
    """
    check_backbone(backbone)
    example = example_for(backbone, input_size, example_input)
    graph = Graph(trace_forward(backbone, example))
    found: dict[Place, ClipSite] = {}
    places = Places(graph)
    for alike in places.found():
        site = places.site(alike)
        if isinstance(site, ClipSite):
            found[places.hooked(alike)] = site
    return tuple(found[place] for place in own_rows(backbone, graph, example, list(found)))
