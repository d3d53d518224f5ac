"""Adapters in a trace (LoRA, DoRA, VeRA, IA³, bottlenecks): modules that stand around one layer and add to it.

They are told by the dataflow, whatever library made them: a module whose output is that of one layer on the module's
own input, scaled, or summed with further products of that input, or with a bottleneck.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from image2video.trace.recorder import WEIGHTED, Call, Trace, Value

_SCALED = frozenset({"mul", "div"})
_CARRIED = frozenset({"dropout", "native_dropout", "clone", "contiguous", "alias", "detach", "to", "_to_copy"})
_MOVED = frozenset(
    {"add", "sub", "view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "movedim", "unsqueeze"}
    | {"squeeze", "expand", "slice", "select", "cat", "split", "chunk", "constant_pad_nd"}
)


def sums_of_products(values: Sequence[Value], terms: Sequence[int], fork: int) -> bool:
    """Whether every summand is a linear image of the fork with a product in it: a layer and its adapters.

    A residual branch has a norm or an activation, or its shortcut is the fork itself.
    """
    return all(_products(values, term, fork) for term in terms)


def adapters_in(trace: Trace) -> dict[int, int]:
    """Find the calls of adapters.

    Returns:
        By the index of a call, the weighted value of the layer that it stands around.
    """
    children: dict[int, list[Call]] = {}
    for call in trace.calls:
        children.setdefault(call.parent, []).append(call)
    found: dict[int, int] = {}
    for call in trace.calls:
        if call.parent < 0 or call.stop < 0:
            continue
        for layer in children.get(call.index, []):
            weight = _only_weight(trace, layer)
            if layer.index not in children and weight is not None and _adapts(trace.values, call, layer):
                found[call.index] = weight
    return found


def _only_weight(trace: Trace, call: Call) -> int | None:
    """Return the weighted value of a call that has exactly one."""
    weights = [value.index for value in trace.values[call.start : call.stop] if value.weighted]
    return weights[0] if len(weights) == 1 else None


def _adapts(values: Sequence[Value], call: Call, layer: Call) -> bool:
    """Whether a call is an adapter around the layer that runs in it."""
    given, made, layer_in, layer_out = (
        _only(values, places)
        for places in ((*call.inputs, *call.extra_inputs), call.outputs, layer.inputs, layer.outputs)
    )
    if given is None or made is None or layer_in is None or layer_out is None:
        return False
    own = {id(parameter) for parameter in layer.module.parameters()}
    if all(id(parameter) in own for parameter in call.module.parameters()):
        return False  # A wrapper without parameters adds nothing of its own.
    if _carried(values, layer_in, given) != given:
        return False
    terms = list(_terms(values, made, layer_out))
    if layer_out not in terms:
        return False
    others = [term for term in terms if term != layer_out]
    return all(_products(values, term, given) or _is_bottleneck(values, term, given, layer_out) for term in others)


def _only(values: Sequence[Value], places: Sequence[int]) -> int | None:
    """Return the single value among places that depends on the images."""
    depending = {place for place in places if place >= 0 and values[place].depends}
    return depending.pop() if len(depending) == 1 else None


def _sources(values: Sequence[Value], value: Value) -> list[int]:
    """List the parents that depend on the images."""
    return [parent for parent in value.parents if values[parent].depends]


def _carried(values: Sequence[Value], index: int, root: int) -> int:
    """Walk back over scales, casts and dropout, no further than the root."""
    while index != root:
        value = values[index]
        sources = _sources(values, value)
        if value.op not in _SCALED | _CARRIED or len(sources) != 1:
            return index
        index = sources[0]
    return index


def _terms(values: Sequence[Value], index: int, layer_out: int) -> Iterator[int]:
    """Yield the summands of a value, sums of sums opened; the layer's output is one where it is only scaled."""
    index = _carried(values, index, layer_out)
    value = values[index]
    sources = _sources(values, value)
    if index == layer_out or value.op not in ("add", "sub") or len(sources) < 2:
        yield index
        return
    for source in sources:
        yield from _terms(values, source, layer_out)


def _products(values: Sequence[Value], index: int, root: int) -> int:
    """Count the products on the ways from a root; 0 where one is not linear, or comes from elsewhere."""
    count, seen, queue = 0, {index}, [index]
    while queue:
        current = queue.pop()
        if current == root:
            continue
        value = values[current]
        if current < root or not _is_linear(values, value):
            return 0
        count += value.op in WEIGHTED
        for source in _sources(values, value):
            if source not in seen:
                seen.add(source)
                queue.append(source)
    return count


def _is_linear(values: Sequence[Value], value: Value) -> bool:
    """Whether a value is linear in the tensors that depend on the images."""
    if value.op in WEIGHTED | _SCALED:
        return len(_sources(values, value)) == 1
    return value.op in _CARRIED | _MOVED


def _is_bottleneck(values: Sequence[Value], index: int, given: int, layer_out: int) -> bool:
    """Whether a summand is a branch of two products or more, from the layer or beside it, that is narrower than it."""
    size, weights, seen, queue = prod(values[layer_out].shape), [], {index}, [index]
    while queue:
        current = queue.pop()
        if current in (given, layer_out):
            continue
        if current < given:
            return False
        if values[current].weighted:
            weights.append(prod(values[current].shape))
        for source in _sources(values, values[current]):
            if source not in seen:
                seen.add(source)
                queue.append(source)
    return len(weights) > 1 and min(weights) < size
