"""The rule of sites: it knows no family of networks, only the dataflow of one forward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from image2video.inject.hookpoints import Point, point_after, point_before, shared_after, shared_before
from image2video.trace.graph import Graph, Residual, bits, has


@dataclass(frozen=True)
class Candidate:
    """A place that the rule chose, before its layout is known.

    Args:
        rule: why it was chosen (see `Site`).
        block: path of the module that the place is in.
        point: the hook; None where no hook reaches the place.
        order: which residual of its block it is, from 0.
        where: path of the module that computes the weight.
    """

    rule: str
    block: str
    point: Point | None
    order: int = 0
    where: str = ""


def chosen_residuals(graph: Graph) -> list[Residual]:
    """Choose among nested residuals, in the order of execution.

    The outer one wins against inner ones that

    - the same module adds (a Res2Net block),
    - have a single weight (a RepVGG unit),
    - are in an adapter around a layer,
    - are alone, in a submodule of the one that adds (an attention with a residual of its own in a block).

    Else the inner ones win (HRNet, DLA, NASNet).
    """
    kept: list[Residual] = []
    for outer in graph.residuals():  # Inner sums come before the outer one.
        inner = [residual for residual in kept if has(outer.region, residual.add)]
        rivals = [
            residual
            for residual in inner
            if residual.owner != outer.owner
            and len(residual.weights) > 1
            and graph.adapter_around(residual.owner, outer.add) is None
        ]
        is_lone = len(rivals) == 1 and graph.contains(outer.owner, rivals[0].add)
        if rivals and not is_lone:
            continue
        kept = [residual for residual in kept if residual not in inner]
        kept.append(outer)
    return sorted(kept, key=lambda residual: residual.add)


def residual_candidates(graph: Graph, residuals: list[Residual], placement: str) -> list[Candidate]:
    """Find the hook points of each branch: before its first weights, or after its last ones."""
    found: list[Candidate] = []
    orders: Counter[int] = Counter()
    for residual in residuals:
        block = graph.calls[residual.owner].name if residual.owner >= 0 else ""
        for point, weight in _branch_points(graph, residual, placement):
            where = graph.calls[graph.values[weight].call].name
            found.append(Candidate("residual", block, point, orders[residual.owner], where))
        orders[residual.owner] += 1
    return found


def _branch_points(graph: Graph, residual: Residual, placement: str) -> list[tuple[Point | None, int]]:
    """Return the hooks of a branch, each with a weight that it stands for.

    Parallel weights share one hook where one reaches them all; else each has its own.
    """
    if placement == "before":
        ends, parallel, shared = _first(graph, residual), _entries(graph, residual), shared_before
    else:
        ends, parallel, shared = _last(graph, residual), _exits(graph, residual), shared_after
    for together in (parallel, ends):
        point = shared(graph, residual, together) if len(together) > 1 else None
        if point is not None:
            return [(point, together[0])]
    single = _for_one_weight(placement)
    return [(single(graph, residual, weight), weight) for weight in ends]


def _for_one_weight(placement: str) -> Callable[[Graph, Residual | None, int], Point | None]:
    """Return the function that finds the hook of a single weight."""
    return point_before if placement == "before" else point_after


def _first(graph: Graph, residual: Residual) -> list[int]:
    """List the weights that no other weight of the branch comes before."""
    mask = sum(1 << weight for weight in residual.weights)
    return [weight for weight in residual.weights if not graph.main[weight] & mask & ~(1 << weight)]


def _last(graph: Graph, residual: Residual) -> list[int]:
    """List the weights that no other weight of the branch comes after."""
    before = 0
    for weight in residual.weights:
        before |= graph.main[weight] & ~(1 << weight)
    return [weight for weight in residual.weights if not has(before, weight)]


def _entries(graph: Graph, residual: Residual) -> list[int]:
    """List the weights with a way from the fork on which no other weight lies (heads that share out a map)."""
    reached = 1 << residual.fork
    entries = []
    for index in bits(residual.region):
        value = graph.values[index]
        parents = [parent for parent in graph.main_parents(value) if not _crosses(graph, parent, index)]
        if not any(has(reached, parent) for parent in parents):
            continue
        if value.weighted:
            entries.append(index)  # Not reached: the way ends here.
        else:
            reached |= 1 << index
    return entries


def _exits(graph: Graph, residual: Residual) -> list[int]:
    """List the weights with a way to the sum on which no other weight lies (both halves of a Ghost module)."""
    seen: set[int] = set()
    exits: set[int] = set()
    queue = [residual.add]
    while queue:
        value = graph.values[queue.pop()]
        for parent in graph.main_parents(value):
            if parent in seen or not has(residual.region, parent) or _crosses(graph, value.index, parent):
                continue
            seen.add(parent)
            if graph.values[parent].weighted:
                exits.add(parent)
            else:
                queue.append(parent)
    return sorted(exits)


def _crosses(graph: Graph, inner: int, outer: int) -> bool:
    """Whether a step leads out of an adapter: its layer is on every way through it, whatever its own weights are."""
    adapter = graph.adapter_around(graph.values[inner].call)
    return adapter is not None and not graph.contains(adapter.index, outer)


def wide_convolutions(graph: Graph) -> list[int]:
    """List every convolution with a kernel above 1 on a map, in the order of execution, but for those of adapters."""
    on_maps = [value for value in graph.values if value.weighted and len(value.shape) == 4]
    wide = [value for value in on_maps if max(value.kernel, default=1) > 1]
    return [value.index for value in wide if _is_layer(graph, value.call, value.index)]


def _is_layer(graph: Graph, call: int, weight: int) -> bool:
    """Whether a weight is none that an adapter adds to its layer."""
    adapter = graph.adapter_around(call)
    return adapter is None or graph.adapters[adapter.index] == weight


def needs_fallback(graph: Graph, residuals: list[Residual]) -> bool:
    """Whether there are fewer residuals than one for every second map size on which convolutions work."""
    sizes = {graph.values[v].shape[2:] for v in wide_convolutions(graph)}
    return 2 * len(residuals) < len(sizes) or not residuals


def within_one_size(graph: Graph, residuals: list[Residual]) -> list[Residual]:
    """List the residuals whose wide convolutions work on maps of one size.

    A residual that spans several stages (a path that goes down and comes up again, added to an earlier map) is no
    block: its one site would stand for all that lies on the path.
    """
    wide = wide_convolutions(graph)
    chosen = []
    for residual in residuals:
        sizes = {graph.values[conv].shape[2:] for conv in wide if has(residual.region, conv)}
        if len(sizes) < 2:
            chosen.append(residual)
    return chosen


def fallback_candidates(graph: Graph, residuals: list[Residual], placement: str) -> list[Candidate]:
    """Choose every convolution with a kernel above 1 except the first one, outside of the branches chosen already."""
    taken = 0
    for residual in residuals:
        taken |= residual.region
    # What goes into an output; everything where the outputs are no tensors that the trace knows.
    used = 0 if graph.trace.outputs else ~0
    for _, value in graph.trace.outputs:
        used |= graph.main[value]
    find = _for_one_weight(placement)
    free = [conv for conv in wide_convolutions(graph)[1:] if has(used, conv) and not has(taken, conv)]
    return [_convolution(graph, "fallback", conv, find(graph, None, conv)) for conv in free]


def every_conv_candidates(graph: Graph) -> list[Candidate]:
    """Choose every convolution with a kernel above 1, the stem included."""
    return [
        _convolution(graph, "every-conv", conv, point_before(graph, None, conv, direct=True))
        for conv in wide_convolutions(graph)
    ]


def _convolution(graph: Graph, rule: str, conv: int, point: Point | None) -> Candidate:
    """Make the candidate of a convolution, whose block is the parent of its module."""
    call = graph.calls[graph.values[conv].call]
    call = graph.adapter_around(call.index) or call
    block = graph.calls[call.parent].name if call.parent >= 0 else ""
    return Candidate(rule, block, point, where=call.name)
