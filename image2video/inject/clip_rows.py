"""Whether a network takes the number of rows behind a clip site from what comes in there, as it must.

A model may read the number of images early (`B = x.shape[0]`) and use it late (`x.view(B, -1)`): with T times the rows
that fails, or computes something else. So a copy runs with another number of rows from each site on. Every operation
behind must be the one, with the shapes and the arguments, that the network has for as many images from the start.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from image2video.errors import InputError
from image2video.inject.clip_places import Place
from image2video.trace.graph import Graph, has
from image2video.trace.operation import Named
from image2video.trace.recorder import Trace, Value
from image2video.trace.trace import IMAGES, trace_forward


@dataclass(frozen=True)
class Foreign:
    """Where a network uses a number of rows that it read before one of some places.

    Args:
        place: number of the last of the places before it, which it was read before; None where that is not known.
        where: what it does there.
    """

    place: int | None
    where: str


def own_rows(backbone: nn.Module, graph: Graph, example: Tensor, places: Sequence[Place]) -> list[Place]:
    """Keep the places behind which a network uses the rows that come in there, and no number that it read before.

    Args:
        backbone: the network; it stays as it is.
        graph: of its traced forward.
        example: an image like the traced ones.
        places: of modules, in the order of execution, each on every path to the outputs behind it.
    """
    rows = Rows(backbone, graph, example)
    left = list(places)
    dropped = len(left)
    # One forward for all; with real tensors it would compute as many rows as there are places.
    while left and graph.trace.fake:
        foreign = rows.foreign(left)
        if foreign is None:
            return left
        if foreign.place is None:
            break
        first = foreign.place
        if first + 1 == dropped and _is_chain(left):
            # The number was read far ahead, and every place behind its reading fails like this one.
            first = bisect_left(range(first), True, key=lambda number: rows.foreign([left[number]]) is not None)
        del left[first : foreign.place + 1]
        dropped = first
    return [place for place in left if rows.foreign([place]) is None]


class Rows:
    """The rows of a network, which it may have for several numbers of them.

    Args:
        backbone: the network; it stays as it is.
        graph: of its traced forward.
        example: an image like the traced ones.
    """

    def __init__(self, backbone: nn.Module, graph: Graph, example: Tensor) -> None:
        self.backbone = backbone
        self.graph = graph
        self.example = example
        self.more = trace_forward(backbone, example, images=IMAGES + 1)
        self.is_even = [value.op for value in _computed(graph.trace)] == [value.op for value in _computed(self.more)]

    def foreign(self, places: Sequence[Place]) -> Foreign | None:
        """Return the first place where the network uses a number of rows that it read before one of some places.

        Args:
            places: of modules, in the order of execution, each on every path to the outputs behind it.
        """
        if not self.is_even:
            return Foreign(None, "other operations run for another number of images")
        # All different: rows that were read at one place and are used behind another are seen.
        rows = [IMAGES + 2 + number for number in range(len(places))]
        comparison = _Comparison(self.graph, self.more, places, rows)
        passed: list[int] = []

        def prepare(model: nn.Module) -> None:
            for number, place in enumerate(places):
                call = self.graph.calls[place.call]
                index = call.inputs.index(place.value)
                hook = _with_rows(index, rows[number], comparison.shape_before(place), passed)
                model.get_submodule(call.name).register_forward_pre_hook(hook)

        try:
            changed = trace_forward(self.backbone, self.example, prepare=prepare, real=not self.graph.trace.fake)
        except InputError as error:
            last = len(passed) - 1 if passed and _is_chain(places) else None
            return Foreign(last, f"its forward fails: {error.__cause__ or error}")
        return comparison.difference(changed)


def _is_chain(places: Sequence[Place]) -> bool:
    """Whether each place is behind the one before it."""
    return all(has(place.behind, after.value) for place, after in pairwise(places))


def _with_rows(
    index: int, rows: int, shape: tuple[int, ...], passed: list[int]
) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    """Make a hook that repeats the first row of a positional input, which must have a shape, and notes that it ran."""

    def replace(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        given = tuple(args[index].shape)
        if given != shape:  # Its rows would be replaced here, and nobody would see.
            raise InputError(f"the next place must get a map of shape {shape}, got {given}")
        passed.append(rows)
        return (*args[:index], _repeated(args[index], rows), *args[index + 1 :])

    return replace


def _repeated(tensor: Tensor, rows: int) -> Tensor:
    """Repeat the first row; the memory keeps its order, on which a model's `view` may rely."""
    order = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    back = [order.index(dim) for dim in range(tensor.ndim)]
    copies = [rows if dim == 0 else 1 for dim in order]
    return tensor[:1].permute(order).repeat(copies).permute(back)


_REPETITION = ("slice", "permute", "repeat", "permute")
"""The operations of `_repeated` as a trace names them."""


class _Comparison:
    """Three forwards of one network: on `IMAGES` images, on one more, and with other rows from some places on.

    From the first two follows what the network does for any number of images: all sizes grow evenly with it.
    """

    def __init__(self, graph: Graph, more: Trace, places: Sequence[Place], rows: Sequence[int]) -> None:
        self.graph = graph
        self.more = more
        self.places = places
        self.rows = rows

    def shape_before(self, place: Place) -> tuple[int, ...]:
        """Return the shape that a place's tensor must have when it comes in."""
        index = self.graph.calls[place.call].inputs.index(place.value)
        more = self.more.values[self.more.calls[place.call].inputs[index]].shape
        rows = self._rows(place.value)
        return tuple(_foretold(*sizes, rows) for sizes in zip(self.graph.values[place.value].shape, more, strict=True))

    def difference(self, trace: Trace) -> Foreign | None:
        """Return the first place where the third forward is not the one that the first two foretell."""
        few, more, changed = (_computed(made) for made in (self.graph.trace, self.more, trace))
        starts = sorted(self.graph.calls[place.call].start for place in self.places)
        for number, value in enumerate(few):
            shifted = number + bisect_right(starts, value.index) * len(_REPETITION)
            if shifted >= len(changed) or not self._fits(value, more[number], changed[shifted]):
                name = self.graph.calls[value.call].name if value.call >= 0 else ""
                return Foreign(self._place_before(value.index), f"in module {name or '(root)'!r}, {value.op}")
        if len(changed) != len(few) + len(starts) * len(_REPETITION):
            return Foreign(None, "other operations run for another number of rows")
        if not self._outputs_fit(trace):
            return Foreign(None, "an output has rows of neither the images nor the frames")
        return None

    def _fits(self, few: Value, more: Value, changed: Value) -> bool:
        """Whether a value of the third forward is the one that is foretold."""
        if not few.depends:
            return few.op == changed.op  # A constant of a wrong size shows in what is made with it.
        values = (few, more, changed)
        rows = self._rows(few.index)
        same = few.op == changed.op and _grows([value.shape for value in values], rows)
        return same and _grows([_arguments(value) for value in values], rows)

    def _outputs_fit(self, trace: Trace) -> bool:
        """Whether the outputs are those that are foretold."""
        traces = (self.graph.trace, self.more, trace)
        few, more, changed = (made.outputs for made in traces)
        if not [path for path, _ in few] == [path for path, _ in more] == [path for path, _ in changed]:
            return False
        for outputs in zip(few, more, changed, strict=True):
            shapes = [made.values[value].shape for made, (_, value) in zip(traces, outputs, strict=True)]
            if not _grows(shapes, self._rows(outputs[0][1])):
                return False
        return True

    def _place_before(self, value: int) -> int | None:
        """Return the number of the last place that a value is made by way of."""
        return max((number for number, place in enumerate(self.places) if has(place.behind, value)), default=None)

    def _rows(self, value: int) -> int:
        """Return how many rows a value has in the third forward."""
        number = self._place_before(value)
        return IMAGES if number is None else self.rows[number]


def _computed(trace: Trace) -> list[Value]:
    """List the values that were computed: what is noted for views of a memory that was written differs with them."""
    return [value for value in trace.values if value.op != "written"]


def _foretold(few: int, more: int, rows: int) -> int:
    """Return a number for `rows`, given those for `IMAGES` and for one more."""
    return few + (rows - IMAGES) * (more - few)


def _arguments(value: Value) -> list[Any]:
    """List the arguments of the operation that made a value; none where they are not written down."""
    if value.operation is None:
        return []
    return [*value.operation.args, *value.operation.kwargs.values()]


def _grows(given: Sequence[Any], rows: int) -> bool:
    """Whether numbers grow evenly with the rows: given those for `IMAGES`, for one more, and for `rows`."""
    few, more, changed = (item.shape if isinstance(item, Named) else item for item in given)
    if isinstance(few, list | tuple):
        same = all(isinstance(items, list | tuple) and len(items) == len(few) for items in (more, changed))
        return same and all(_grows(items, rows) for items in zip(few, more, changed, strict=True))
    if isinstance(few, int) and isinstance(more, int):
        return bool(changed == _foretold(few, more, rows))
    # Other arguments (types, devices, packed weights) say nothing of rows.
    return not isinstance(few, float) or few == more == changed
