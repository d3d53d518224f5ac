"""Where a forward hook can reach a value of the trace: the inputs and outputs of module calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from image2video.trace.graph import Graph, Residual, has
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

    Args:
        graph: the traced forward.
        residual: the branch that the operation is in; None where it is in none.
        weight: the operation.
        direct: whether only the module that computes the operation will do.

    Returns:
        The first hook on the way back; None where there is none up to the fork, another weight, or a value that
        several others go into.
    """
    value = graph.values[weight].data
    calls = [call for call in graph.enclosing(graph.values[weight].call) if _outside(graph, residual, call)]
    if direct:
        calls = list(graph.enclosing(graph.values[weight].call))[:1]
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
        parents = [parent for parent in graph.values[value].parents if graph.values[parent].depends]
        if len(parents) != 1 or graph.values[value].weighted:
            return _of_layer(graph, residual, weight, "before")
        value = parents[0]


def point_after(graph: Graph, residual: Residual | None, weight: int) -> Point | None:
    """Find the hook for the output of a weighted operation, walking on to a module's boundary.

    The first boundary where the frames are the outermost part is taken, else the first of all: an attention may work on
    `(L, N, C)` and give back `(N, L, C)` further on.
    """
    points = list(_points_after(graph, residual, weight))
    outermost = [point for point in points if frames_outermost(graph, point.value)]
    return next(iter(outermost or points), None) or _of_layer(graph, residual, weight, "after")


def _of_layer(graph: Graph, residual: Residual | None, weight: int, side: str) -> Point | None:
    """Return the hook of the layer that computes a weight in several operations, as quantised layers do."""
    call = graph.calls[graph.values[weight].call]
    if not isinstance(call.module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) or not _outside(
        graph, residual, call
    ):
        return None
    places = call.inputs if side == "before" else call.outputs
    depending = [value for value in places if value >= 0 and graph.values[value].depends]
    if len(depending) != 1 or (residual is not None and not has(_in_branch(residual), depending[0])):
        return None
    return Point(call.index, side, places.index(depending[0]), depending[0])


def _points_after(graph: Graph, residual: Residual | None, weight: int) -> Iterator[Point]:
    """Yield the hooks on the way from a weight, up to the sum, another weight, or where other values join."""
    value = weight
    adapter = graph.adapter_around(graph.values[weight].call, _sum_of(residual))
    if adapter is not None:
        value = next(output for output in adapter.outputs if output >= 0)
    while True:
        for call in (*graph.enclosing(graph.values[weight].call), *graph.enclosing(graph.values[value].call)):
            if value in call.outputs and _outside(graph, residual, call):
                yield Point(call.index, "after", call.outputs.index(value), value)
        users = graph.consumers[value]
        if len(users) != 1:
            return
        user = graph.values[users[0]]
        is_sum = residual is not None and user.index == residual.add
        joined = sum(graph.values[parent].depends for parent in user.parents) > 1
        if user.weighted or is_sum or joined:
            return
        value = user.index


def shared_before(graph: Graph, residual: Residual, weights: list[int]) -> Point | None:
    """Find one hook for the common input of parallel first weights: their module's input, or what feeds them all."""
    common = _in_branch(residual)
    for weight in weights:
        common &= graph.ancestors[graph.values[weight].data]
    for call in _holding_all(graph, residual, weights):
        inputs = {*call.inputs, *call.extra_inputs}
        feeding = [value for value in inputs if value >= 0 and _feeds(graph, residual, value, weights)]
        if len(feeding) == 1:
            value = feeding[0]
            position = _only_position(call, value)
            if position is not None and has(common, value):
                return Point(call.index, "before", position, value)
    latest = common.bit_length() - 1
    return _before_maker(graph, residual, latest) if latest > residual.fork else None


def shared_after(graph: Graph, residual: Residual, weights: list[int]) -> Point | None:
    """Find one hook for the output of the innermost module that holds all last weights of a branch."""
    for call in _holding_all(graph, residual, weights):
        for position, value in enumerate(call.outputs):
            if value < 0 or not has(residual.region, value) or graph.values[value].weighted:
                continue
            from_all = all(has(graph.ancestors[value], weight) for weight in weights)
            if from_all and _closes(graph, residual, value):
                return Point(call.index, "after", position, value)
    return None


def _holding_all(graph: Graph, residual: Residual, weights: list[int]) -> Iterator[Call]:
    """Yield the calls in which all weights are computed and the sum is not, from the inside out."""
    for call in graph.enclosing(graph.values[weights[0]].call):
        if _outside(graph, residual, call) and all(graph.contains(call.index, weight) for weight in weights):
            yield call


def _in_branch(residual: Residual) -> int:
    """Return the values of a branch and its fork, as a bit set."""
    return residual.region | 1 << residual.fork


def _feeds(graph: Graph, residual: Residual, value: int, weights: list[int]) -> bool:
    """Whether a value of the branch goes into one of the weights."""
    return has(_in_branch(residual), value) and any(has(graph.ancestors[weight], value) for weight in weights)


def _closes(graph: Graph, residual: Residual, value: int) -> bool:
    """Whether no weight of the branch comes after a value."""
    return not any(has(graph.main[weight], value) for weight in residual.weights)


def _outside(graph: Graph, residual: Residual | None, call: Call) -> bool:
    """Whether hooks of a call reach the branch alone, and all of a layer.

    Those of the root and of a call that holds the sum would reach the shortcut too; those inside of an adapter would
    leave out what the adapter adds, now or once it is switched on.
    """
    if call.parent < 0 or (residual is not None and graph.contains(call.index, residual.add)):
        return False
    return graph.adapter_around(call.parent, _sum_of(residual)) is None


def _sum_of(residual: Residual | None) -> int | None:
    """Return the value of a residual's sum."""
    return None if residual is None else residual.add


def _only_position(call: Call, value: int) -> int | None:
    """Return the position of a value among a call's inputs; None unless it comes in once: a hook replaces one input."""
    if call.inputs.count(value) != 1 or value in call.extra_inputs:
        return None
    return call.inputs.index(value)


def _before_maker(graph: Graph, residual: Residual | None, value: int) -> Point | None:
    """Return the input hook of a module without weights (a norm, an activation) whose output only the branch uses."""
    if residual is None or not has(residual.region, value):
        return None
    if not all(has(residual.region, user) for user in graph.consumers[value]):
        return None
    for call in graph.enclosing(graph.values[value].call):
        if value not in call.outputs or not _outside(graph, residual, call):
            continue
        inputs = {given for given in (*call.inputs, *call.extra_inputs) if given >= 0 and graph.values[given].depends}
        weighted = any(graph.values[made].weighted for made in range(call.start, call.stop))
        if weighted or len(inputs) != 1:
            continue
        position = _only_position(call, inputs.pop())
        if position is not None:
            return Point(call.index, "before", position, call.inputs[position])
    return None
