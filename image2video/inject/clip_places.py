"""The inputs of modules as places where a clip may begin, in the dataflow of one traced forward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from torch import nn

from image2video.inject.clip_site import ClipSite
from image2video.inject.sites import hint_of
from image2video.trace.cuts import Cuts, behind
from image2video.trace.graph import Graph, has
from image2video.trace.layout import Layout
from image2video.trace.layouts import Placed, map_grid, placed
from image2video.trace.macs import macs_of
from image2video.trace.recorder import Call
from image2video.trace.token_grid import TokenGrid
from image2video.trace.trace import IMAGES


@dataclass(frozen=True)
class Place:
    """A value at the input of a call.

    Args:
        call: index of the call.
        value: the value that comes in.
        behind: what is made from it by way of the call, as a bit set.
    """

    call: int
    value: int
    behind: int


@dataclass(frozen=True)
class Spot:
    """Where a place's tensor is: what is known of its dimensions, and its rows and columns."""

    known: Placed
    grid: TokenGrid


_SAME = frozenset({"to", "type_as", "contiguous", "dropout", "alpha_dropout", "feature_dropout"})
"""Operations that may return their own input."""


class Places:
    """The inputs of the calls of a traced forward as places where a clip may begin.

    Args:
        graph: the traced forward.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.macs = [macs_of(value) for value in graph.values]
        self.runs = Counter(call.module for call in graph.calls)
        self._cuts: dict[tuple[int, ...], Cuts] = {}

    def found(self) -> list[list[Place]]:
        """List the places that can be replaced, in the order of execution; modules inside of one another together.

        Of each list the first place is that of the outermost module.
        """
        found: dict[int, list[list[Place]]] = {}
        for call in self.graph.calls:
            for value in dict.fromkeys(call.inputs):
                if not self._takes_once(call, value):
                    continue
                place = self.place(call, value)
                if not self.is_replaceable(place):
                    continue
                groups = found.setdefault(value, [])
                if groups and call.stop <= self.graph.calls[groups[-1][0].call].stop:
                    groups[-1].append(place)
                else:
                    groups.append([place])
        return [group for value in sorted(found) for group in found[value]]

    def alike(self, place: Place) -> list[Place]:
        """List the places with the same input as one that can be replaced, of modules inside of one another."""
        return next(places for places in self.found() if place in places)

    def hooked(self, places: Sequence[Place]) -> Place:
        """Return the place whose module is hooked.

        Checkpointing calls the layers of an `nn.Sequential` one by one and passes it by: its first layer is hooked. Any
        other module may look at its input before a module inside gets it.

        Args:
            places: those with the same input, of modules inside of one another, the outermost first.
        """
        for place in places[:-1]:
            if type(self.graph.calls[place.call].module).forward is not nn.Sequential.forward:
                return place
        return places[-1]

    def place(self, call: Call, value: int) -> Place:
        """Return the place of a value at the input of a call."""
        return Place(call.index, value, behind(self.graph, value, call))

    def cuts(self, place: Place) -> Cuts:
        """Return the cuts for the outputs that are made by way of a place: the others stay as they are."""
        outputs = tuple(output for _, output in self.graph.trace.outputs if has(place.behind, output))
        if outputs not in self._cuts:
            self._cuts[outputs] = Cuts(self.graph, outputs)
        return self._cuts[outputs]

    def is_replaceable(self, place: Place) -> bool:
        """Whether a hook on the module of a call replaces a cut for all that the outputs behind it are made from."""
        if not self._takes_once(self.graph.calls[place.call], place.value):
            return False
        return self.cuts(place).is_cut(place.value) and next(self.users_outside(place), None) is None

    def _takes_once(self, call: Call, value: int) -> bool:
        """Whether a hook on a module reaches a value and no other: its only run takes it as one positional input."""
        once = call.inputs.count(value) == 1 and value not in call.extra_inputs and self.runs[call.module] == 1
        return once and call.parent >= 0 and value > 0 and self.graph.values[value].depends

    def users_outside(self, place: Place, value: int | None = None) -> Iterator[int]:
        """Yield what is made from the value outside of the call and goes into an output behind the place."""
        call = self.graph.calls[place.call]
        for user in self.cuts(place).users(place.value if value is None else value):
            if not self.graph.contains(call.index, user):
                yield user
            elif self.graph.values[user].op in _SAME and user not in call.outputs:
                # A module that casts its input to the type that it has: the trace goes on with another value, but what
                # comes later uses the input, which the module does not return.
                yield from self.users_outside(place, user)

    def spot(self, places: Sequence[Place]) -> Spot | str:
        """Return what is known of the dimensions at a place, or the reason why its positions are not known well enough.

        Args:
            places: those with the same input; a layer among them says which dimension has its channels.
        """
        value = places[0].value
        hints = [hint for place in places if (hint := hint_of(self.graph.calls[place.call].module)) is not None]
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

    def site(self, places: Sequence[Place]) -> ClipSite | str:
        """Return the site of places that can be replaced, or the reason why it is none.

        Args:
            places: those with the same input, of modules inside of one another, the outermost first.
        """
        spot = self.spot(places)
        if isinstance(spot, str):
            return spot
        place = self.hooked(places)
        call = self.graph.calls[place.call]
        after = sum(macs for made, macs in enumerate(self.macs) if has(place.behind, made))
        return ClipSite(
            name=self.graph.calls[places[0].call].name,
            module=call.name,
            index=call.inputs.index(place.value),
            layout=spot.known.layout,
            channels=spot.known.channels,
            shape=spot.known.shape,
            grid=spot.grid,
            macs_before=(sum(self.macs) - after) // IMAGES,
            macs_after=after // IMAGES,
            outputs_before=tuple(path for path, made in self.graph.trace.outputs if not has(place.behind, made)),
            aliases=tuple(self.graph.calls[other.call].name for other in places[1:]),
        )
