"""The rule of sites: it knows no family of networks, only the dataflow of one forward."""

from __future__ import annotations

from dataclasses import dataclass

from image2video.inject.hookpoints import Point, point_after, point_before, shared_after, shared_before
from image2video.trace.graph import Graph, Residual, bits


@dataclass(frozen=True)
class Candidate:
    """A place that the rule chose, before its layout is known; without a `point` it cannot be hooked."""

    rule: str
    block: str
    point: Point | None
    order: int = 0
    where: str = ""


def chosen_residuals(graph: Graph) -> list[Residual]:
    """Choose among nested residuals.

    Within one module the outer one wins (a Res2Net block), an inner branch of a single weight loses to the outer one (a
    RepVGG unit), and so does a lone inner one in a submodule of the one that adds (an attention with a residual of its
    own in a block). Else the inner ones win (HRNet, DLA, NASNet).
    """
    kept: list[Residual] = []
    for outer in graph.residuals():
        inner = [r for r in kept if outer.region >> r.add & 1]
        rivals = [r for r in inner if r.owner != outer.owner and len(r.weights) > 1]
        lone = len(rivals) == 1 and graph.contains(outer.owner, rivals[0].add)
        if lone or not rivals:
            kept = [r for r in kept if r not in inner] + [outer]
    return sorted(kept, key=lambda r: r.add)


def residual_candidates(graph: Graph, residuals: list[Residual], placement: str) -> list[Candidate]:
    """Find the hook points of each branch: before its first weights, or after its last ones."""
    found: list[Candidate] = []
    orders: dict[int, int] = {}
    for residual in residuals:
        block = graph.calls[residual.owner].name if residual.owner >= 0 else ""
        order = orders.setdefault(residual.owner, 0)
        orders[residual.owner] += 1
        if placement == "before":
            points, ends = _before(graph, residual)
        else:
            points, ends = _after(graph, residual)
        for point, end in zip(points, ends, strict=False):
            where = graph.calls[graph.values[end].call].name
            found.append(Candidate("residual", block, point, order, where))
    return found


def _before(graph: Graph, residual: Residual) -> tuple[list[Point | None], list[int]]:
    ends = _first(graph, residual)
    for parallel in (_entries(graph, residual), ends):
        shared = shared_before(graph, residual, parallel) if len(parallel) > 1 else None
        if shared:
            return [shared], parallel
    return [point_before(graph, residual, end) for end in ends], ends


def _after(graph: Graph, residual: Residual) -> tuple[list[Point | None], list[int]]:
    ends = _last(graph, residual)
    for parallel in (_exits(graph, residual), ends):
        shared = shared_after(graph, residual, parallel) if len(parallel) > 1 else None
        if shared:
            return [shared], parallel
    return [point_after(graph, residual, end) for end in ends], ends


def _first(graph: Graph, residual: Residual) -> list[int]:
    """The weights that no other weight of the branch comes before."""
    mask = sum(1 << w for w in residual.weights)
    return [w for w in residual.weights if not graph.main[w] & mask & ~(1 << w)]


def _last(graph: Graph, residual: Residual) -> list[int]:
    """The weights that no other weight of the branch comes after."""
    before = 0
    for weight in residual.weights:
        before |= graph.main[weight] & ~(1 << weight)
    return [w for w in residual.weights if not before >> w & 1]


def _entries(graph: Graph, residual: Residual) -> list[int]:
    """The weights with a way from the fork on which no other weight lies (heads that share out a map)."""
    reached = 1 << residual.fork
    ends = []
    for index in bits(residual.region):
        value = graph.values[index]
        if any(reached >> parent & 1 for parent in graph.main_parents(value)):
            if value.weighted:
                ends.append(index)
            else:
                reached |= 1 << index
    return ends


def _exits(graph: Graph, residual: Residual) -> list[int]:
    """The weights with a way to the sum on which no other weight lies (both halves of a Ghost module)."""
    reached: set[int] = set()
    ends: set[int] = set()
    queue = [p for p in graph.main_parents(graph.values[residual.add]) if residual.region >> p & 1]
    while queue:
        index = queue.pop()
        if index in reached:
            continue
        reached.add(index)
        if graph.values[index].weighted:
            ends.add(index)
        else:
            queue += [p for p in graph.main_parents(graph.values[index]) if residual.region >> p & 1]
    return sorted(ends)


def wide_convolutions(graph: Graph) -> list[int]:
    """Every convolution with a kernel above 1 on a map, in the order of execution."""
    return [v.index for v in graph.values if v.weighted and len(v.shape) == 4 and max(v.kernel, default=1) > 1]


def needs_fallback(graph: Graph, residuals: list[Residual]) -> bool:
    """Whether there are fewer residuals than one for every second map size on which convolutions work."""
    sizes = {graph.values[v].shape[2:] for v in wide_convolutions(graph)}
    return 2 * len(residuals) < len(sizes) or not residuals


def within_one_size(graph: Graph, residuals: list[Residual]) -> list[Residual]:
    """The residuals whose wide convolutions work on maps of one size.

    One that spans several stages (a path that goes down and comes up again, added to an earlier map) is no block: as
    the branch it would stand for all that lies on it.
    """
    wide = wide_convolutions(graph)
    return [r for r in residuals if len({graph.values[w].shape[2:] for w in wide if r.region >> w & 1}) < 2]


def fallback_candidates(graph: Graph, residuals: list[Residual], placement: str) -> list[Candidate]:
    """Choose every convolution with a kernel above 1 except the first one, outside of the branches chosen already."""
    taken = 0
    for residual in residuals:
        taken |= residual.region
    whole = 0 if graph.trace.outputs else ~0
    for _, value in graph.trace.outputs:
        whole |= graph.main[value]
    found = []
    for conv in wide_convolutions(graph)[1:]:
        if taken >> conv & 1 or not whole >> conv & 1:
            continue
        call = graph.values[conv].call
        make = point_before if placement == "before" else point_after
        found.append(Candidate("fallback", _parent(graph, call), make(graph, None, conv), 0, graph.calls[call].name))
    return found


def every_conv_candidates(graph: Graph) -> list[Candidate]:
    """Choose every convolution with a kernel above 1, the stem included."""
    found = []
    for conv in wide_convolutions(graph):
        call = graph.values[conv].call
        point = point_before(graph, None, conv, direct=True)
        found.append(Candidate("every-conv", _parent(graph, call), point, 0, graph.calls[call].name))
    return found


def _parent(graph: Graph, call: int) -> str:
    parent = graph.calls[call].parent if call >= 0 else -1
    return graph.calls[parent].name if parent >= 0 else ""
