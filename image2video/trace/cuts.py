"""Cuts of a traced forward: the values that every path from the images to some outputs passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from image2video.trace.graph import Graph, bits
from image2video.trace.recorder import Call


@dataclass(frozen=True)
class Edge:
    """A value that goes into the making of a later one."""

    producer: int
    user: int


class Cuts:
    """Which values of a trace every path from the images to the later ones of some outputs passes.

    Values stand in the order of execution. So a value is a cut where no edge between two others leads past it: from a
    value before it to one behind it, of which an output is made. An output before a cut does not count against it.

    Args:
        graph: the traced forward.
        outputs: the values of the outputs that count; None for all. Where the network returns no tensors that the trace
            knows, everything counts.
    """

    def __init__(self, graph: Graph, outputs: Iterable[int] | None = None) -> None:
        self.graph = graph
        self.live = _live(graph, outputs)
        self._passed_by = _counts(self)

    def is_live(self, value: int) -> bool:
        """Whether a value depends on the images, and an output on it."""
        return bool(self.live >> value & 1)

    def is_cut(self, value: int) -> bool:
        """Whether all that the network makes of the images behind a value is made from that value."""
        return self.is_live(value) and not self._passed_by[value]

    def cuts(self) -> list[int]:
        """List all cuts, in the order of execution; the images are the first one."""
        return [value for value in bits(self.live) if self.is_cut(value)]

    def users(self, value: int) -> list[int]:
        """List the values that are made from a value directly, and of which an output is made."""
        return [user for user in self.graph.consumers[value] if self.is_live(user)]

    def bypass(self, value: int) -> Edge | None:
        """Return the edge that leads past a value from the earliest producer; None for a cut."""
        return next((edge for edge in self._edges() if edge.producer < value < edge.user), None)

    def producer_name(self, edge: Edge) -> str:
        """Name the outermost module that returns an edge's value and is done before its user; `"(images)"` for those.

        Where no module returns it, the innermost one that computes it is named.
        """
        if edge.producer == 0:
            return "(images)"
        inner = self.graph.values[edge.producer].call
        returning = [call for call in self._calls_without(inner, edge.user) if edge.producer in call.outputs]
        return self._outermost(returning, inner)

    def user_name(self, edge: Edge) -> str:
        """Name the outermost module that begins after an edge's value is made and takes it, else the innermost one."""
        inner = self.graph.values[edge.user].call
        around = self._calls_without(inner, edge.producer)
        taking = [call for call in around if edge.producer in (*call.inputs, *call.extra_inputs)]
        return self._outermost(taking, inner)

    def _calls_without(self, call: int, value: int) -> Iterator[Call]:
        """Yield a call and those around it that do not hold a value, from the inside out."""
        for outer in self.graph.enclosing(call):
            if not self.graph.contains(outer.index, value):
                yield outer

    def _outermost(self, calls: list[Call], inner: int) -> str:
        """Name the last of some calls, or else the innermost call of a value."""
        if calls:
            return calls[-1].name
        name = self.graph.calls[inner].name if inner >= 0 else ""
        return name or "(root)"

    def _edges(self) -> Iterator[Edge]:
        """Yield every live edge, by its producer."""
        for producer in bits(self.live):
            users = self.users(producer)
            if users:
                yield Edge(producer, max(users))


def behind(graph: Graph, value: int, call: Call) -> int:
    """Return what is made from a value by way of the operations in one call that take it, as a bit set."""
    users = sum(1 << user for user in set(graph.consumers[value]) if graph.contains(call.index, user))
    later = range(call.start, len(graph.values))
    return sum(1 << made for made in later if graph.ancestors[made] & users)


def _live(graph: Graph, outputs: Iterable[int] | None) -> int:
    """Return what depends on the images and goes into one of some outputs."""
    if not graph.trace.outputs:
        return sum(1 << value.index for value in graph.values if value.depends)
    live = 0
    for output in (value for _, value in graph.trace.outputs) if outputs is None else outputs:
        live |= graph.ancestors[output]
    return live


def _counts(cuts: Cuts) -> list[int]:
    """Count the edges that lead past each value."""
    steps = [0] * (len(cuts.graph.values) + 1)
    for producer in bits(cuts.live):
        for user in cuts.users(producer):
            steps[producer + 1] += 1
            steps[user] -= 1
    counts, count = [], 0
    for step in steps[:-1]:
        count += step
        counts.append(count)
    return counts
