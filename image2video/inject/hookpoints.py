"""Where a forward hook can reach a value of the trace: the inputs and outputs of module calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from image2video.trace.graph import Graph, Residual
from image2video.trace.layouts import frames_outermost
from image2video.trace.recorder import Call


@dataclass(frozen=True)
class Point:
    """A hook: on positional input `index` of a call (`"before"`), or on item `index` of its output (`"after"`).

    `value` is the tensor that the fusion acts on.
    """

    call: int
    side: str
    index: int
    value: int


def point_before(graph: Graph, residual: Residual | None, weight: int, *, direct: bool = False) -> Point | None:
    """Find the hook for the data that goes into a weighted operation, walking back to a module's boundary.

    With `direct`, only the module that computes the operation will do.
    """
    value = graph.values[weight].data
    calls = [c for c in graph.enclosing(graph.values[weight].call) if _outside(graph, residual, c)]
    calls = calls[:1] if direct else calls
    while True:
        for call in calls:
            position = _only_position(call, value)
            if position is not None:
                return Point(call.index, "before", position, value)
        if residual is not None and value == residual.fork:
            return None
        maker = None if direct else _before_maker(graph, residual, value)
        if maker is not None:
            return maker
        parents = [p for p in graph.values[value].parents if graph.values[p].depends]
        if len(parents) != 1 or graph.values[value].weighted:
            return None
        value = parents[0]


def point_after(graph: Graph, residual: Residual | None, weight: int) -> Point | None:
    """Find the hook for the output of a weighted operation, walking on to a module's boundary.

    A boundary where the frames are not the outermost part (an attention that works on `(L, N, C)`) is passed by for a
    later one of the same value's way, where there is one.
    """
    points = list(_points_after(graph, residual, weight))
    outermost = [point for point in points if frames_outermost(graph, point.value)]
    return next(iter(outermost or points), None)


def _points_after(graph: Graph, residual: Residual | None, weight: int) -> Iterator[Point]:
    value = weight
    while True:
        for call in (*graph.enclosing(graph.values[weight].call), *graph.enclosing(graph.values[value].call)):
            if value in call.outputs and _outside(graph, residual, call):
                yield Point(call.index, "after", call.outputs.index(value), value)
        users = graph.consumers[value]
        if len(users) != 1 or graph.values[users[0]].weighted or (residual and users[0] == residual.add):
            return
        if sum(graph.values[p].depends for p in graph.values[users[0]].parents) > 1:
            return
        value = users[0]


def shared_before(graph: Graph, residual: Residual, weights: list[int]) -> Point | None:
    """Find one hook for the common input of parallel first weights: their module's input, or what feeds them all."""
    common = ~0
    for weight in weights:
        common &= graph.ancestors[graph.values[weight].data]
    common &= residual.region | 1 << residual.fork
    for call in graph.enclosing(graph.values[weights[0]].call):
        inside = all(call.start <= weight < call.stop for weight in weights)
        if not inside or not _outside(graph, residual, call):
            continue
        feeding = {v for v in (*call.inputs, *call.extra_inputs) if v >= 0 and _feeds(graph, residual, v, weights)}
        if len(feeding) == 1:
            value = feeding.pop()
            position = _only_position(call, value)
            if position is not None and common >> value & 1:
                return Point(call.index, "before", position, value)
    latest = common.bit_length() - 1
    return _before_maker(graph, residual, latest) if latest > residual.fork else None


def shared_after(graph: Graph, residual: Residual, weights: list[int]) -> Point | None:
    """Find one hook for the output of the innermost module that holds all last weights of a branch."""
    for call in graph.enclosing(graph.values[weights[0]].call):
        inside = all(call.start <= weight < call.stop for weight in weights)
        if not inside or not _outside(graph, residual, call):
            continue
        for position, value in enumerate(call.outputs):
            if value < 0 or not residual.region >> value & 1 or graph.values[value].weighted:
                continue
            if all(graph.ancestors[value] >> weight & 1 for weight in weights) and _closes(graph, residual, value):
                return Point(call.index, "after", position, value)
    return None


def _feeds(graph: Graph, residual: Residual, value: int, weights: list[int]) -> bool:
    in_branch = residual.region | 1 << residual.fork
    return bool(in_branch >> value & 1) and any(graph.ancestors[w] >> value & 1 for w in weights)


def _closes(graph: Graph, residual: Residual, value: int) -> bool:
    """Whether no weight of the branch comes after a value."""
    return not any(graph.main[weight] >> value & 1 for weight in residual.weights)


def _outside(graph: Graph, residual: Residual | None, call: Call) -> bool:
    """Whether a call is neither the root's nor one that holds the sum: hooking that one would hook the shortcut."""
    return call.parent >= 0 and (residual is None or not graph.contains(call.index, residual.add))


def _only_position(call: Call, value: int) -> int | None:
    """Return the position of a value among a call's inputs, if it comes in once: a hook replaces one input."""
    if call.inputs.count(value) != 1 or value in call.extra_inputs:
        return None
    return call.inputs.index(value)


def _before_maker(graph: Graph, residual: Residual | None, value: int) -> Point | None:
    """Return the input hook of a module without weights (a norm, an activation) whose output only the branch uses."""
    if residual is None or not residual.region >> value & 1:
        return None
    if any(not residual.region >> user & 1 for user in graph.consumers[value]):
        return None
    for call in graph.enclosing(graph.values[value].call):
        inputs = {v for v in (*call.inputs, *call.extra_inputs) if v >= 0 and graph.values[v].depends}
        plain = not any(graph.values[v].weighted for v in range(call.start, call.stop))
        if value in call.outputs and plain and len(inputs) == 1 and _outside(graph, residual, call):
            position = _only_position(call, next(iter(inputs)))
            if position is not None:
                return Point(call.index, "before", position, call.inputs[position])
    return None
