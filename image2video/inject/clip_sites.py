"""Where in a network a clip may begin: found in the dataflow of one traced forward; no family of networks is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from torch import Tensor, nn

from image2video.inject.checks import check_backbone
from image2video.inject.clip_rows import Begin, own_rows
from image2video.inject.clip_site import ClipSite
from image2video.inject.sites import hint_of
from image2video.trace.cuts import Cuts
from image2video.trace.graph import Graph, has
from image2video.trace.layout import Layout
from image2video.trace.layouts import Placed, map_grid, placed
from image2video.trace.macs import macs_of
from image2video.trace.recorder import Call
from image2video.trace.sizes import example_for
from image2video.trace.token_grid import TokenGrid
from image2video.trace.trace import IMAGES, trace_forward


def clip_sites(
    backbone: nn.Module, *, input_size: Sequence[int] | None = None, example_input: Tensor | None = None
) -> tuple[ClipSite, ...]:
    """List the places inside of a network where a clip may begin, in the order of execution.

    A place is the input of a module, a map or tokens with a known grid, from which all is made that the network returns
    later on. Before it the network runs once per image, behind it once per frame.

    Args:
        backbone: takes images `(B, C, H, W)`; it stays as it is.
        input_size: `(C, H, W)`; without it and an example, the size that timm says the backbone was made for.
        example_input: images `(B, C, H, W)`, of which the size and type count.

    Returns:
        The places, each once, under the name of the outermost module that has it as its input. The images themselves
        are none of them.

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
    places = Places(graph)
    found: dict[Begin, ClipSite] = {}
    for value in places.cuts.cuts():
        calls = places.hookable(value)
        site = places.site(value, calls) if calls else None
        if isinstance(site, ClipSite):
            found[Begin(calls[0].index, site.index, value)] = site
    begins = own_rows(backbone, graph, example, list(found))
    return tuple(found[begin] for begin in begins)


@dataclass(frozen=True)
class Spot:
    """Where a site's tensor is: its value, and what is known of its dimensions."""

    known: Placed
    grid: TokenGrid


_SAME = frozenset({"to", "type_as", "contiguous", "dropout", "alpha_dropout", "feature_dropout"})
"""Operations that may return their own input."""


class Places:
    """The values of a traced forward as places where a clip may begin.

    Args:
        graph: the traced forward.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.cuts = Cuts(graph)
        self.macs = [macs_of(value) for value in graph.values]
        self.runs = Counter(call.module for call in graph.calls)
        self.taking: dict[int, list[Call]] = {}
        for call in graph.calls:
            for value in dict.fromkeys(call.inputs):
                self.taking.setdefault(value, []).append(call)

    def hookable(self, value: int) -> list[Call]:
        """List the calls at whose input a hook replaces a value for all that use it, the outermost first."""
        return [call for call in self.taking.get(value, []) if self.is_hookable(call, value)]

    def is_hookable(self, call: Call, value: int) -> bool:
        """Whether a hook on the module of a call replaces its input `value` for all that use it."""
        once = call.inputs.count(value) == 1 and value not in call.extra_inputs and self.runs[call.module] == 1
        return once and call.parent >= 0 and value > 0 and not any(self.users_outside(call, value))

    def users_outside(self, call: Call, value: int) -> Iterator[int]:
        """Yield what is made from a value outside of a call and goes into an output."""
        for user in self.cuts.users(value):
            if not self.graph.contains(call.index, user):
                yield user
            elif self.graph.values[user].op in _SAME and user not in call.outputs:
                # A module that casts its input to the type that it has: the trace goes on with another value, but what
                # comes later uses the input, which the module does not return.
                yield from self.users_outside(call, user)

    def spot(self, value: int, calls: Sequence[Call]) -> Spot | str:
        """Return what is known of a place's dimensions, or the reason why its positions are not known well enough."""
        hints = [hint for call in calls if (hint := hint_of(call.module)) is not None]
        known = placed(self.graph, value, next(iter(hints), None))
        if isinstance(known, str):
            return known
        shape = self.graph.values[value].shape
        if known.parts != 1:
            return (
                f"its tensor has shape {shape} for {IMAGES} images: windows or patches, whose places are not the map's"
            )
        grid = known.grid if known.layout.spatial == "tokens" and self._prefix_is_known(value, known.layout) else None
        if known.layout.spatial == "map":
            grid = map_grid(self.graph, value, known.layout)
        if grid is None:
            return f"its tensor has shape {shape} for {IMAGES} images, and the trace does not tell its rows and columns"
        if prod(grid.grid) < 2:
            return f"its tensor has shape {shape} for {IMAGES} images, a map of a single place"
        return Spot(known, grid)

    def _prefix_is_known(self, value: int, layout: Layout) -> bool:
        """Whether the trace tells that further tokens stand at the head of a sequence, and not behind its places."""
        axes = self.graph.values[value].axes
        assert axes is not None
        return not layout.prefix_tokens or any(atom.tail for atom in axes[layout.token_dim])

    def site(self, value: int, calls: Sequence[Call]) -> ClipSite | str:
        """Return the site of a cut, or the reason why it is none.

        Args:
            value: the cut.
            calls: those at whose input it can be replaced, the outermost first.
        """
        spot = self.spot(value, calls)
        if isinstance(spot, str):
            return spot
        after = sum(macs for later, macs in enumerate(self.macs) if has(self.graph.ancestors[later], value))
        after -= self.macs[value]
        return ClipSite(
            name=calls[0].name,
            index=calls[0].inputs.index(value),
            layout=spot.known.layout,
            channels=spot.known.channels,
            shape=spot.known.shape,
            grid=spot.grid,
            macs_before=(sum(self.macs) - after) // IMAGES,
            macs_after=after // IMAGES,
            outputs_before=tuple(path for path, output in self.graph.trace.outputs if output <= value),
            aliases=tuple(call.name for call in calls[1:]),
        )
